/* Waiting for builtins written in C: ag_suspend and ag_wake of the public header, and its errors. */
#include "core/error.h"
#include "core/task.h"

/* On top are the continuation and its context: the wait may serve another task by now, or be gone. */
static int suspend_resumed(lua_State *L, int status, lua_KContext unused) {
  (void)status, (void)unused;
  ag_task_resumed(L, ag_state_open(L)); /* raises when the task was cancelled */
  lua_KFunction k = (lua_KFunction)lua_touserdata(L, -2);
  lua_KContext context = (lua_KContext)lua_tointeger(L, -1);
  lua_pop(L, 2);
  return k(L, LUA_YIELD, context);
}

void ag_suspend_check(lua_State *L) { ag_task_check(L, ag_state_open(L), "wait"); }

int ag_suspend(lua_State *L, ag_wait *wait, lua_KContext context, lua_KFunction k) {
  ag_task *task = ag_task_check(L, ag_state_open(L), "wait");
  luaL_checkstack(L, 2, NULL);
  lua_pushlightuserdata(L, (void *)k);
  lua_pushinteger(L, (lua_Integer)context);
  task->operation = NULL;
  if (task->must_cancel) { /* cancelled itself before this wait */
    task->delivering = true;
    wait->cancel(wait);
    ag_loop_ready(ag_state_open(L)->running, &task->timer.node);
  } else {
    wait->task = task;
    wait->loop = ag_state_open(L)->running;
    task->operation = wait;
  }
  task->wait = AG_WAIT_OPERATION;
  task->parked = true;
  return lua_yieldk(L, 0, 0, suspend_resumed);
}

void ag_wake(ag_wait *wait) {
  ag_task *task = wait->task;
  if (task == NULL)
    return;
  wait->task = NULL;
  task->operation = NULL;
  task->wait = AG_WAIT_NONE;
  ag_loop_ready(wait->loop, &task->timer.node);
}

bool ag_waiting(const ag_wait *wait) { return wait->task != NULL; }

int ag_error(lua_State *L, const char *name, const char *message) {
  ag_error_raise(L, ag_state_open(L), name, "%s", message);
}

void ag_error_new(lua_State *L, const char *name) { ag_error_push(L, ag_state_open(L), name); }

int ag_os_error(lua_State *L, const char *code, int number, const char *text, const char *operation,
                const char *address) {
  lua_pushfstring(L, "%s%s%s: %s (%s)", operation, address ? " " : "", address ? address : "", text, code);
  ag_error_push(L, ag_state_open(L), "OSError");
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  lua_pushinteger(L, number);
  lua_setfield(L, -2, "errno");
  lua_pushstring(L, operation);
  lua_setfield(L, -2, "operation");
  lua_pushstring(L, address);
  lua_setfield(L, -2, "address");
  lua_error(L);
}
