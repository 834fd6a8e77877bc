/* Tasks: what scripts call. */
#include "core/task.h"

#include <string.h>

#include "core/context.h"
#include "core/error.h"

/* Tasks that start tasks at once nest C calls, of which Lua allows 200: below this many the next one is queued. */
enum { EAGER_MAX = 20 };

/* ---- functions of the module ---- */

static void set_name(lua_State *L, ag_state *S, int task, int name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->names);
  lua_pushvalue(L, task);
  luaL_tolstring(L, name, NULL);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Protected: 1 loop, 2 task. */
static int step(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  ag_task *task = lua_touserdata(L, 2);
  lua_settop(L, 0);
  ag_task_step(loop, L, &task->timer.node);
  return 0;
}

/* The first step of a task, inside that of another. What raises for want of memory ends the inner one alone. */
static void step_at_once(lua_State *L, ag_loop *loop, ag_task *task) {
  ag_task *outer = loop->task;
  lua_State *here = loop->here;
  bool solo = loop->solo, stuck = loop->inner_stuck;
  ag_link_remove(&task->timer.node.link);
  lua_pushcfunction(L, step);
  lua_pushlightuserdata(L, loop);
  lua_pushlightuserdata(L, task);
  loop->eager++;
  int status = lua_pcall(L, 2, 0, 0);
  loop->eager--;
  if (status == LUA_OK)
    return;
  loop->task = outer;
  loop->here = here;
  loop->solo = solo;
  loop->inner_stuck = stuck;
  if (task->future.status == AG_PENDING && ag_list_empty(&task->timer.node.link))
    ag_task_lost(L, loop, task);
  else
    lua_pop(L, 1);
}

/* Makes a task of the awaitable at [index] with the options above it and pushes it. */
static int make_task(lua_State *L, ag_state *S, ag_loop *loop, int index) {
  int options = index + 1;
  lua_settop(L, options);
  bool eager = false, named = false, given = false;
  if (!lua_isnil(L, options)) {
    luaL_checktype(L, options, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, options); lua_pop(L, 1)) {
      const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
      if (strcmp(key, "name") == 0)
        named = true;
      else if (strcmp(key, "context") == 0)
        given = true;
      else if (strcmp(key, "eager_start") == 0)
        eager = lua_toboolean(L, -1);
      else
        return luaL_argerror(L, options, lua_pushfstring(L, "unknown option '%s' of create_task", key));
    }
  }
  if (ag_future_to(L, S, index) != NULL)
    return luaL_argerror(L, index, "coroutine expected, got a future or task that is scheduled already");
  if (given) { /* checked before the coro is started */
    lua_getfield(L, options, "context");
    ag_context_check(L, S, -1, options);
    lua_pop(L, 1);
  }
  ag_task *task = (ag_task *)ag_ensure_future(L, loop, index, index);
  if (named) {
    lua_getfield(L, options, "name");
    set_name(L, S, index, options + 1);
    lua_pop(L, 1);
  }
  if (given) {
    lua_getfield(L, options, "context");
    ag_context_give(L, S, index);
  }
  lua_settop(L, index);
  if (eager && S->running == loop) { /* asyncio.eager_task_factory, 3.12 */
    if (!lua_checkstack(L, 20) || loop->eager >= EAGER_MAX) {
      ag_link_remove(&task->timer.node.link);
      ag_loop_ready(loop, &task->timer.node);
    } else {
      step_at_once(L, loop, task);
      task->eager = task->future.status != AG_PENDING;
    }
  }
  return 1;
}

/* create_task(aw [, {name=, context=, eager_start=}]): schedules a coro as a task. asyncio.create_task, 3.11;
** eager_start runs its first step at once (3.14). */
static int create_task(lua_State *L) {
  ag_state *S = ag_self(L);
  return make_task(L, S, ag_loop_check(L, S, "create_task"), 1);
}

/* loop:create_task(aw [, options]) */
static int loop_create_task(lua_State *L) { return make_task(L, ag_self(L), ag_loop_check_open(L), 2); }

static int current_task(lua_State *L) {
  ag_state *S = ag_self(L);
  if (S->running == NULL || S->running->task == NULL)
    lua_pushnil(L);
  else
    ag_push_kept(L, S, S->running->task->future.slot);
  return 1;
}

static int all_tasks(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_check(L, S, "all_tasks");
  lua_newtable(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_Integer n = 0;
  for (int i = 1; i <= S->top_slot; i++) {
    lua_rawgeti(L, -1, i);
    ag_future *future = ag_future_to(L, S, -1);
    if (future != NULL && future->kind == AG_TASK && future->slot == i && future->status == AG_PENDING &&
        future->loop == loop->id)
      lua_rawseti(L, -3, ++n);
    else
      lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return 1;
}

/* ---- methods ---- */

static ag_task *check_task(lua_State *L) {
  ag_future *future = ag_future_check(L, 1);
  if (future->kind != AG_TASK)
    luaL_typeerror(L, 1, "Task");
  return (ag_task *)future;
}

void ag_task_push_name(lua_State *L, ag_state *S, ag_task *task, int index) {
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->names);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushfstring(L, "Task-%d", (int)task->id);
  }
}

void ag_task_push_function(lua_State *L, int index) {
  lua_getiuservalue(L, index, 1);
  if (lua_isuserdata(L, -1)) { /* a watch holds the function */
    lua_getiuservalue(L, -1, 1);
    lua_remove(L, -2);
  }
}

static int task_get_name(lua_State *L) {
  ag_task_push_name(L, ag_self(L), check_task(L), 1);
  return 1;
}

static int task_set_name(lua_State *L) {
  check_task(L);
  luaL_checkany(L, 2);
  set_name(L, ag_self(L), 1, 2);
  return 0;
}

static int task_get_coro(lua_State *L) {
  check_task(L);
  lua_settop(L, 1);
  return 1;
}

static int task_cancelling(lua_State *L) {
  lua_pushinteger(L, check_task(L)->cancels);
  return 1;
}

static int task_uncancel(lua_State *L) {
  ag_task *task = check_task(L);
  if (task->cancels > 0 && --task->cancels == 0 && !task->delivering)
    task->must_cancel = false;
  lua_pushinteger(L, task->cancels);
  return 1;
}

static int task_traceback(lua_State *L) {
  ag_task *task = check_task(L);
  if (task->thread.L == NULL && task->wait == AG_WAIT_SLEEP)
    lua_pushliteral(L, "stack traceback:\n\t[C]: in function 'agather.sleep'");
  else if (task->future.status != AG_PENDING || task->thread.L == NULL)
    lua_pushliteral(L, "stack traceback: (not running)");
  else
    luaL_traceback(L, task->thread.L, NULL, 0);
  return 1;
}

/* task:get_context(): the context it runs in, also while context:run has it in another. */
static int task_get_context(lua_State *L) {
  check_task(L);
  ag_context_push_own(L, ag_self(L), 1);
  return 1;
}

void ag_task_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg methods[] = {{"get_name", task_get_name},       {"set_name", task_set_name},
                                     {"get_coro", task_get_coro},       {"cancelling", task_cancelling},
                                     {"uncancel", task_uncancel},       {"traceback", task_traceback},
                                     {"get_context", task_get_context}, {NULL, NULL}};
  static const luaL_Reg loop_methods[] = {{"create_task", loop_create_task}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"create_task", create_task}, {"current_task", current_task}, {"all_tasks", all_tasks}, {NULL, NULL}};
  ag_add_methods(L, S, S->mt_task, methods);
  ag_add_methods(L, S, S->mt_loop, loop_methods);
  ag_setfuncs(L, S, functions);
}
