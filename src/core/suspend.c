/* Waiting for builtins written in C: ag_suspend and ag_wake of the public header, and its errors. */
#include "core/error.h"
#include "core/task.h"

static int suspend_resumed(lua_State *L, int status, lua_KContext context) {
  ag_wait *wait = (ag_wait *)context;
  ag_state *S = ag_state_open(L);
  (void)status;
  ag_task_resumed(L, S); /* raises when the task was cancelled: [wait] may be gone then */
  return wait->k(L, LUA_YIELD, wait->context);
}

void ag_suspend_check(lua_State *L) { ag_task_check(L, ag_state_open(L), "wait"); }

int ag_suspend(lua_State *L, ag_wait *wait, lua_KContext context, lua_KFunction k) {
  ag_task *task = ag_task_check(L, ag_state_open(L), "wait");
  wait->k = k;
  wait->context = context;
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
  return lua_yieldk(L, 0, (lua_KContext)wait, suspend_resumed);
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
  return ag_error_raise(L, ag_state_open(L), name, "%s", message);
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
  return lua_error(L);
}
