/* Coros: functions with arguments that nobody has started, and what else may stand for one: plain functions and
** Lua threads that have not started. */
#include <string.h>

#include "core/context.h"
#include "core/error.h"
#include "core/generator.h"
#include "core/limits.h"
#include "core/report.h"
#include "core/task.h"

/* A task's userdata with function and arguments in its user values and no metatable. [-(nargs+1), +1, m] */
static ag_task *new_task(lua_State *L, const ag_state *S, int nargs) {
  luaL_argcheck(L, nargs < 250, 1, "too many arguments for a coroutine");
  int values = nargs < 1 ? 2 : nargs + 1;
  ag_task *task = lua_newuserdatauv(L, sizeof *task, values);
  memset(task, 0, sizeof *task);
  ag_link_init(&task->future.waiters);
  task->future.kind = AG_TASK;
  task->future.values = (uint8_t)values;
  task->future.count = nargs;
  ag_link_init(&task->timer.node.link);
  ag_link_init(&task->turn_link);
  int function = lua_gettop(L) - nargs - 1;
  task->timer.node.run = lua_tocfunction(L, function) == S->direct ? S->direct_step : ag_task_step;
  for (int i = 0; i <= nargs; i++) {
    lua_pushvalue(L, function + i);
    lua_setiuservalue(L, -2, i + 1);
  }
  lua_replace(L, function);
  lua_settop(L, function);
  return task;
}

/* Magic of coros, as futures have theirs. */
static const void *coro_magic(const ag_state *S) { return &S->mt_coro; }
static const void *used_magic(const ag_state *S) { return &S->mt_used; }

ag_task *ag_coro_new(lua_State *L, ag_state *S, int nargs) {
  ag_task *task = new_task(L, S, nargs);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_coro);
  lua_setmetatable(L, -2);
  task->future.magic = coro_magic(S);
  S->unstarted++;
  if (S->debug || (S->running != NULL && S->running->debug)) {
    luaL_where(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->origins);
    lua_pushvalue(L, -3);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 2);
  }
  return task;
}

ag_task *ag_coro_to(lua_State *L, ag_state *S, int index, bool *used) {
  ag_task *task = lua_touserdata(L, index);
  if (task == NULL || lua_rawlen(L, index) < sizeof *task)
    return NULL;
  *used = task->future.magic == used_magic(S);
  return *used || task->future.magic == coro_magic(S) ? task : NULL;
}

void ag_coro_start(lua_State *L, ag_state *S, int index, bool as_task) {
  ag_task *task = lua_touserdata(L, index);
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, as_task ? S->mt_task : S->mt_used);
  lua_setmetatable(L, index);
  task->future.magic = as_task ? ag_future_magic(S) : used_magic(S);
  task->started = true;
  S->unstarted--;
}

/* Queues the first step of the task on top, which is anchored in [slot]. */
static void schedule(lua_State *L, ag_loop *loop, ag_task *task, int slot) {
  ag_state *S = loop->S;
  task->future.magic = ag_future_magic(S);
  task->future.loop = loop->id;
  task->future.slot = slot;
  task->id = ++S->next_task;
  loop->tasks++;
  ag_loop_ready(loop, &task->timer.node);
}

/* The tables a new task needs are at [living] and [metatable]: upvalues, or on the stack. */
static ag_task *spawn_with(lua_State *L, ag_loop *loop, int nargs, int living, int metatable) {
  ag_state *S = loop->S;
  ag_limit_check(L, S, tasks, loop->tasks);
  ag_task *task = new_task(L, S, nargs);
  task->started = true;
  lua_pushvalue(L, metatable);
  lua_setmetatable(L, -2);
  if (S->contexts_used)
    ag_context_inherit(L, S, -1);
  if (loop->closed) /* by a finalizer */
    ag_loop_closed(L, S);
  lua_pushvalue(L, -1);
  schedule(L, loop, task, ag_keep_in(L, S, living));
  return task;
}

ag_task *ag_task_spawn(lua_State *L, ag_loop *loop, int nargs) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, loop->S->living);
  lua_rawgeti(L, LUA_REGISTRYINDEX, loop->S->mt_task);
  lua_rotate(L, -nargs - 3, 2);
  int living = lua_gettop(L) - nargs - 2;
  ag_task *task = spawn_with(L, loop, nargs, living, living + 1);
  lua_replace(L, living);
  lua_settop(L, living);
  return task;
}

bool ag_awaitable(lua_State *L, ag_state *S, int index) {
  bool used;
  int type = lua_type(L, index);
  if (type == LUA_TFUNCTION || type == LUA_TTHREAD)
    return true;
  if (ag_future_to(L, S, index) != NULL || ag_coro_to(L, S, index, &used) != NULL)
    return true;
  if (luaL_getmetafield(L, index, "__await") == LUA_TNIL)
    return false;
  lua_pop(L, 1);
  return true;
}

bool ag_thread_fresh(lua_State *L, int index) {
  lua_State *co = lua_tothread(L, index);
  return lua_status(co) == LUA_OK && lua_gettop(co) == 1 && lua_isfunction(co, 1);
}

void ag_thread_function(lua_State *L, int index, int arg) {
  luaL_argcheck(L, ag_thread_fresh(L, index), arg, "coroutine was already started");
  lua_xmove(lua_tothread(L, index), L, 1);
  ag_generator_function(L);
  lua_replace(L, index);
}

static int all_results(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

/* What stands for a value with __await: upvalue 1 the method, 2 the value. */
static int call_await(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_callk(L, 1, LUA_MULTRET, 0, all_results);
  return lua_gettop(L);
}

bool ag_await_method(lua_State *L, int index) {
  index = lua_absindex(L, index);
  if (luaL_getmetafield(L, index, "__await") == LUA_TNIL)
    return false;
  lua_pushvalue(L, index);
  lua_pushcclosure(L, call_await, 2);
  lua_replace(L, index);
  return true;
}

ag_future *ag_ensure_future(lua_State *L, ag_loop *loop, int index, int arg) {
  ag_state *S = loop->S;
  index = lua_absindex(L, index);
  ag_future *future = ag_future_to(L, S, index);
  if (future != NULL) {
    if (future->loop != loop->id && future->status == AG_PENDING)
      ag_error_raise(L, S, "RuntimeError", "the awaitable belongs to another loop");
    return future;
  }
  bool used = false;
  int type = lua_type(L, index);
  if (type == LUA_TTHREAD) {
    ag_thread_function(L, index, arg);
    type = LUA_TFUNCTION;
  }
  if (type == LUA_TFUNCTION) {
    lua_pushvalue(L, index);
    future = &ag_task_spawn(L, loop, 0)->future;
    lua_replace(L, index);
    return future;
  }
  ag_task *task = ag_coro_to(L, S, index, &used);
  if (task == NULL && ag_await_method(L, index))
    return ag_ensure_future(L, loop, index, arg);
  if (task == NULL)
    luaL_argerror(L, arg, lua_pushfstring(L, "awaitable expected, got %s", ag_type_name(L, index)));
  if (used)
    ag_error_raise(L, S, "RuntimeError", "cannot reuse already awaited coroutine");
  ag_limit_check(L, S, tasks, loop->tasks);
  if (S->contexts_used)
    ag_context_inherit(L, S, index);
  if (loop->closed)
    ag_loop_closed(L, S);
  lua_pushvalue(L, index);
  int slot = ag_keep(L, S);
  ag_coro_start(L, S, index, true);
  schedule(L, loop, task, slot);
  return &task->future;
}

/* ---- for scripts ---- */

/* spawn(f, ...): a task that runs f(...). Upvalue 2 is the table of the living, 3 the metatable of tasks. */
static int spawn(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_check(L, S, "spawn");
  luaL_checktype(L, 1, LUA_TFUNCTION);
  spawn_with(L, loop, lua_gettop(L) - 1, lua_upvalueindex(2), lua_upvalueindex(3));
  return 1;
}

static int call_async(lua_State *L) {
  int nargs = lua_gettop(L);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  ag_coro_new(L, ag_self(L), nargs);
  return 1;
}

/* async(f [, name]): a function whose calls return coros. */
static int async(lua_State *L) {
  ag_state *S = ag_self(L);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_optstring(L, 2, NULL);
  if (!lua_isnoneornil(L, 2)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->names);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_rawset(L, -3);
  }
  lua_pushlightuserdata(L, S);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, call_async, 2);
  return 1;
}

/* is_awaitable(v): whether v is a future, a task, a coro, or a value whose metatable has __await. */
static int is_awaitable(lua_State *L) {
  ag_state *S = ag_self(L);
  bool used;
  luaL_checkany(L, 1);
  lua_pushboolean(L, ag_future_to(L, S, 1) != NULL || ag_coro_to(L, S, 1, &used) != NULL ||
                         luaL_getmetafield(L, 1, "__await") != LUA_TNIL);
  return 1;
}

/* ensure_future(aw): the future or task itself, or a new task of what is not scheduled yet. */
static int ensure_future(lua_State *L) {
  ag_loop *loop = ag_loop_check(L, ag_self(L), "ensure_future");
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  ag_ensure_future(L, loop, 1, 1);
  return 1;
}

/* coro:close(): it will not run, and nobody is told that it was never awaited. */
static int coro_close(lua_State *L) {
  ag_state *S = ag_self(L);
  bool used;
  if (ag_coro_to(L, S, 1, &used) == NULL)
    return luaL_typeerror(L, 1, "Coroutine");
  if (!used)
    ag_coro_start(L, S, 1, false);
  return 0;
}

static int coro_gc(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_task *task = lua_touserdata(L, 1);
  if (task->started || S->closed)
    return 0;
  task->started = true;
  S->unstarted--;
  ag_report_later(L, S);
  return 0;
}

static int coro_tostring(lua_State *L) {
  bool used;
  if (ag_coro_to(L, ag_self(L), 1, &used) == NULL)
    return luaL_typeerror(L, 1, "Coroutine");
  lua_getiuservalue(L, 1, 1);
  ag_push_site(L, ag_self(L), -1);
  lua_pushfstring(L, "<Coroutine %s>", lua_tostring(L, -1));
  return 1;
}

void ag_coro_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg coro_meta[] = {{"__tostring", coro_tostring}, {"__gc", coro_gc}, {NULL, NULL}};
  static const luaL_Reg used_meta[] = {{"__tostring", coro_tostring}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"close", coro_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"async", async}, {"is_awaitable", is_awaitable}, {"ensure_future", ensure_future}, {NULL, NULL}};
  S->mt_coro = ag_new_type(L, S, "Coroutine", coro_meta, methods);
  S->mt_used = ag_new_type(L, S, "Coroutine", used_meta, methods);
  ag_setfuncs(L, S, functions);
  lua_pushlightuserdata(L, S);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_task);
  lua_pushcclosure(L, spawn, 3);
  lua_setfield(L, -2, "spawn");
}
