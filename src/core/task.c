/* Tasks: coros, the step, waiting, names. The body runs under lua_pcallk, so that <close> handlers may wait while
** an error unwinds. */
#include "core/task.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/report.h"

/* ---- coros ---- */

ag_task *ag_coro_new(lua_State *L, ag_state *S, int nargs) {
  luaL_argcheck(L, nargs < 250, 1, "too many arguments for a coroutine");
  int values = nargs < 1 ? 2 : nargs + 1;
  ag_task *task = lua_newuserdatauv(L, sizeof *task, values);
  memset(task, 0, sizeof *task);
  ag_future_init(&task->future, 0, AG_TASK, (uint8_t)values);
  task->future.count = nargs;
  ag_link_init(&task->timer.node.link);
  task->timer.node.run = ag_task_step;
  lua_insert(L, -nargs - 2);
  for (int i = nargs; i >= 0; i--) lua_setiuservalue(L, -i - 2, i + 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_coro);
  lua_setmetatable(L, -2);
  S->unstarted++;
  return task;
}

static ag_task *to_coro(lua_State *L, ag_state *S, int index, bool *used) {
  void *p = lua_touserdata(L, index);
  if (p == NULL || !lua_getmetatable(L, index)) return NULL;
  const void *id = lua_topointer(L, -1);
  lua_pop(L, 1);
  *used = id == S->id_used;
  return id == S->id_coro || id == S->id_used ? p : NULL;
}

static void start_coro(lua_State *L, ag_state *S, int index, int metatable) {
  ag_task *task = lua_touserdata(L, index);
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, metatable);
  lua_setmetatable(L, index);
  task->started = true;
  S->unstarted--;
}

void ag_task_schedule(lua_State *L, ag_loop *loop, int index) {
  ag_state *S = loop->S;
  ag_task *task = lua_touserdata(L, index);
  lua_pushvalue(L, index);
  int slot = ag_keep(L, S);
  start_coro(L, S, index, S->mt_task);
  task->future.loop = loop->id;
  task->future.slot = slot;
  task->id = ++S->next_task;
  loop->tasks++;
  ag_loop_ready(loop, &task->timer.node);
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
  if (lua_type(L, index) == LUA_TFUNCTION) {
    lua_pushvalue(L, index);
    ag_coro_new(L, S, 0);
    lua_replace(L, index);
  } else if (lua_type(L, index) == LUA_TTHREAD) {
    lua_State *co = lua_tothread(L, index);
    luaL_argcheck(L, lua_status(co) == LUA_OK && lua_gettop(co) == 1, arg, "coroutine was already started");
    lua_xmove(co, L, 1);
    ag_coro_new(L, S, 0);
    lua_replace(L, index);
  } else if (to_coro(L, S, index, &used) == NULL) {
    luaL_argerror(L, arg, lua_pushfstring(L, "awaitable expected, got %s", luaL_typename(L, index)));
  } else if (used) {
    ag_error_raise(L, S, "RuntimeError", "cannot reuse already awaited coroutine");
  }
  ag_task_schedule(L, loop, index);
  return lua_touserdata(L, index);
}

/* ---- the body ---- */

static int message_handler(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_task *task = S->running != NULL ? S->running->task : NULL;
  if (task == NULL || ag_error_is(L, S, 1, "CancelledError")) return 1;
  if (task->raising) { /* from a thread above: the traceback goes on here */
    task->raising = false;
    ag_push_kept(L, S, task->future.slot);
    lua_getiuservalue(L, -1, 2);
    if (lua_istable(L, -1) && lua_getfield(L, -1, "traceback") == LUA_TSTRING) {
      luaL_traceback(L, L, NULL, 1);
      const char *rest = strchr(lua_tostring(L, -1), '\n');
      lua_pushfstring(L, "%s%s", lua_tostring(L, -2), rest != NULL ? rest : "");
      lua_setfield(L, -4, "traceback");
    }
    lua_settop(L, 1);
    return 1;
  }
  ag_error_wrap(L, S, 1);
  lua_getfield(L, -1, "traceback");
  if (lua_isnil(L, -1)) {
    luaL_traceback(L, L, NULL, 1);
    lua_setfield(L, 2, "traceback");
  }
  lua_settop(L, 2);
  ag_push_kept(L, S, task->future.slot);
  lua_insert(L, 2);
  lua_setiuservalue(L, 2, 2);
  lua_settop(L, 1);
  return 1;
}

static int body_done(lua_State *L, int status, lua_KContext context) {
  ag_task *task = (ag_task *)context;
  if (status != LUA_OK && status != LUA_YIELD) {
    task->failed = true;
    return 1;
  }
  return lua_gettop(L) - 1;
}

/* Runs on the task's thread: function and arguments are on the stack. */
static int task_body(lua_State *L) {
  ag_state *S = ag_self(L);
  lua_KContext context = (lua_KContext)S->running->task;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->handler);
  lua_insert(L, 1);
  return body_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, context, body_done), context);
}

/* ---- the step ---- */

/* The task has left with an error; the raised value is on top of L. [-1, +0, m] */
static void finish_failed(lua_State *L, ag_loop *loop, ag_task *task) {
  ag_state *S = loop->S;
  int raised = lua_gettop(L);
  ag_push_kept(L, S, task->future.slot);
  int self = raised + 1;
  if (ag_error_is(L, S, raised, "CancelledError")) {
    lua_pushvalue(L, raised);
    ag_future_set_cancelled(L, S, self);
  } else {
    /* The message handler left the error object, unless a <close> handler replaced the error without one. */
    lua_getiuservalue(L, self, 2);
    bool ours = ag_error_is(L, S, -1, NULL);
    if (ours) {
      lua_pushvalue(L, -1);
      ag_error_unwrap(L);
      ours = lua_rawequal(L, -1, raised);
      lua_pop(L, 1);
    }
    if (!ours) {
      lua_pop(L, 1);
      ag_error_wrap(L, S, raised);
    }
    ag_future_reject(L, S, self);
  }
  lua_settop(L, raised - 1);
}

static void take_throw(lua_State *L, ag_state *S, ag_task *task) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->throws);
  if (lua_rawgeti(L, -1, task->future.slot) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
  } else {
    lua_pushnil(L);
    lua_rawseti(L, -3, task->future.slot);
  }
  lua_remove(L, -2);
  task->must_cancel = false;
}

void ag_task_throw(lua_State *L, ag_state *S, ag_task *task) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->throws);
  lua_insert(L, -2);
  lua_rawseti(L, -2, task->future.slot);
  lua_pop(L, 1);
  task->must_cancel = true;
}

/* The thread of the topmost frame has ended: the one below goes on with its results, or its error. */
static int leave_frame(lua_State *L, ag_state *S, ag_task *task, int status, int nres) {
  ag_frame *frame = task->frames;
  ag_thread ended = task->thread;
  lua_State *below = frame->thread.L;
  bool failed = status != LUA_OK || task->failed;
  int n = failed ? 1 : nres;
  if (!lua_checkstack(below, n + 8)) {
    lua_settop(ended.L, 0);
    lua_pushliteral(ended.L, "stack overflow");
    failed = true;
    n = 1;
  }
  lua_xmove(ended.L, below, n);
  task->failed = false;
  task->raising = failed;
  task->thread = frame->thread;
  task->depth = frame->depth;
  task->frames = frame->below;
  free(frame);
  if (failed)
    ag_drop(L, S, ended.slot);
  else
    ag_thread_give(L, S, ended);
  return n;
}

void ag_task_step(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_state *S = loop->S;
  ag_task *task = ag_container(node, ag_task, timer.node);
  int nargs = 0, nres = 0;
  if (task->thread.L == NULL) {
    if (task->must_cancel) { /* cancelled before the first step: the body never runs */
      ag_push_kept(L, S, task->future.slot);
      int self = lua_gettop(L);
      take_throw(L, S, task);
      ag_future_set_cancelled(L, S, self);
      lua_pop(L, 1);
      return;
    }
    task->thread = ag_thread_take(L, S);
    lua_State *co = task->thread.L;
    nargs = task->future.count;
    luaL_checkstack(co, nargs + 4, "too many arguments");
    lua_rawgeti(co, LUA_REGISTRYINDEX, S->body);
    ag_push_kept(L, S, task->future.slot);
    for (int i = 0; i <= nargs; i++) lua_getiuservalue(L, -1 - i, i + 1);
    lua_xmove(L, co, nargs + 1);
    for (int i = 1; i <= nargs; i++) {
      lua_pushnil(L);
      lua_setiuservalue(L, -2, i + 1);
    }
    lua_pop(L, 1);
    nargs++;
  }
  ag_task *outer = loop->task;
  loop->task = task;
  lua_State *co;
  int status;
  for (;;) { /* more than once only where coros await each other deeply */
    co = task->thread.L;
    task->parked = task->entering = false;
    status = lua_resume(co, L, nargs, &nres);
    if (task->entering) {
      nargs = lua_gettop(co = task->thread.L) - 1;
    } else if (status != LUA_YIELD && task->frames != NULL) {
      nargs = leave_frame(L, S, task, status, nres);
    } else {
      break;
    }
  }
  loop->task = outer;
  if (status == LUA_YIELD) {
    if (!task->parked) { /* a stray coroutine.yield: as asyncio's bare yield, one turn of the loop */
      lua_pop(co, nres);
      ag_loop_ready(loop, &task->timer.node);
    }
    return;
  }
  if (status == LUA_OK && !task->failed) {
    if (task->must_cancel) { /* cancelled itself and returned: the results are lost */
      lua_settop(co, 0);
      ag_push_kept(L, S, task->future.slot);
      take_throw(L, S, task);
      ag_thread_give(L, S, task->thread);
      ag_future_set_cancelled(L, S, -2);
      lua_pop(L, 1);
      return;
    }
    luaL_checkstack(L, nres + 4, "too many results");
    ag_push_kept(L, S, task->future.slot);
    int self = lua_gettop(L);
    lua_xmove(co, L, nres);
    ag_thread_give(L, S, task->thread);
    ag_future_resolve(L, S, self, nres);
    lua_pop(L, 1);
  } else {
    lua_xmove(co, L, 1);
    ag_drop(L, S, task->thread.slot);
    finish_failed(L, loop, task);
  }
  task->thread.slot = 0;
}

/* ---- waiting ---- */

ag_task *ag_task_check(lua_State *L, ag_state *S, const char *what) {
  ag_task *task = S->running != NULL ? S->running->task : NULL;
  if (task == NULL)
    ag_error_raise(L, S, "RuntimeError", "%s: no running task (call it inside agather.run, in a task)", what);
  if (task->thread.L != L)
    ag_error_raise(L, S, "RuntimeError",
                   "%s: cannot wait inside a plain coroutine (use agather.coroutine instead of coroutine)", what);
  if (!lua_isyieldable(L))
    ag_error_raise(L, S, "RuntimeError",
                   "%s: cannot wait across a C call (table.sort, string.gsub, tostring, require, ...): "
                   "wait before or after it",
                   what);
  return task;
}

int ag_task_park(lua_State *L, ag_task *task, uint8_t wait, lua_KFunction k) {
  task->wait = wait;
  task->parked = true;
  return lua_yieldk(L, 0, 0, k);
}

void ag_task_resumed(lua_State *L, ag_state *S) {
  ag_task *task = S->running != NULL ? S->running->task : NULL;
  if (task == NULL || task->thread.L != L)
    luaL_error(L, "the thread of a task was resumed by hand: only the loop resumes it");
  task->wait = AG_WAIT_NONE;
  task->waiting = NULL;
  if (task->must_cancel) {
    take_throw(L, S, task);
    lua_error(L);
  }
}

static int await_resumed(lua_State *L, int status, lua_KContext context) {
  ag_state *S = ag_self(L);
  (void)status, (void)context;
  ag_future *future = lua_touserdata(L, 1);
  if (future->status == AG_PENDING) return luaL_error(L, "the thread of a task was resumed by hand: only the loop resumes it");
  if (future->status == AG_FAILED) {
    future->asked = true;
    if (future->watched) ag_unwatch(L, S, future, 1);
  }
  ag_task_resumed(L, S);
  return ag_future_results(L, S, 1);
}

int ag_await_future(lua_State *L, ag_state *S) {
  ag_future *future = lua_touserdata(L, 1);
  if (future->status != AG_PENDING) return ag_future_results(L, S, 1);
  ag_task *task = ag_task_check(L, S, "await");
  if (future == &task->future) return ag_error_raise(L, S, "RuntimeError", "Task cannot await on itself");
  if (future->loop != task->future.loop)
    return ag_error_raise(L, S, "RuntimeError", "the awaitable belongs to another loop");
  ag_list_append(&future->waiters, &task->timer.node.link);
  task->waiting = future;
  if (task->must_cancel) { /* cancelled itself before this wait */
    lua_pushvalue(L, 1);
    take_throw(L, S, task);
    lua_pushvalue(L, -1);
    if (!ag_cancel(L, S, 1)) {
      ag_task_throw(L, S, task);
      lua_pop(L, 1);
    }
    lua_settop(L, 1);
  }
  return ag_task_park(L, task, AG_WAIT_FUTURE, await_resumed);
}

/* The context holds the stack's base and the depth to go back to. */
static int inline_done(lua_State *L, int status, lua_KContext context) {
  (void)status;
  ag_self(L)->running->task->depth = (uint8_t)(context >> 8);
  return lua_gettop(L) - (int)(context & 255);
}

static int frame_done(lua_State *L, int status, lua_KContext base) {
  (void)status;
  ag_state *S = ag_self(L);
  ag_task *task = S->running != NULL ? S->running->task : NULL;
  if (task == NULL || task->thread.L != L)
    return luaL_error(L, "the thread of a task was resumed by hand: only the loop resumes it");
  if (task->raising) return lua_error(L);
  return lua_gettop(L) - (int)base;
}

/* Calls the function and [nargs] arguments above [base] inline: here, or on a thread of its own when deep. */
static int call_inline(lua_State *L, ag_state *S, ag_task *task, int nargs, int base) {
  if (task->depth < AG_INLINE_MAX) {
    lua_KContext context = base | (lua_KContext)task->depth << 8;
    task->depth++;
    lua_callk(L, nargs, LUA_MULTRET, context, inline_done);
    return inline_done(L, LUA_OK, context);
  }
  ag_thread thread = ag_thread_take(L, S);
  ag_frame *frame = malloc(sizeof *frame);
  if (frame == NULL || !lua_checkstack(thread.L, nargs + 8)) {
    free(frame);
    ag_thread_give(L, S, thread);
    return luaL_error(L, "not enough memory");
  }
  lua_rawgeti(thread.L, LUA_REGISTRYINDEX, S->body);
  lua_settop(L, base + nargs + 1);
  lua_xmove(L, thread.L, nargs + 1);
  *frame = (ag_frame){task->frames, task->thread, task->depth};
  task->frames = frame;
  task->thread = thread;
  task->depth = 0;
  task->entering = true;
  return lua_yieldk(L, 0, base, frame_done);
}

/* await(aw): waits for a future or task; runs a coro or function inline in the calling task. */
static int await(lua_State *L) {
  ag_state *S = ag_self(L);
  lua_settop(L, 1);
  if (ag_future_to(L, S, 1) != NULL) return ag_await_future(L, S);
  bool used = false;
  ag_task *coro = to_coro(L, S, 1, &used);
  if (coro != NULL) {
    if (used) return ag_error_raise(L, S, "RuntimeError", "cannot reuse already awaited coroutine");
    ag_task *task = ag_task_check(L, S, "await");
    int nargs = coro->future.count;
    luaL_checkstack(L, nargs + 2, "too many arguments");
    start_coro(L, S, 1, S->mt_used);
    for (int i = 0; i <= nargs; i++) lua_getiuservalue(L, 1, i + 1);
    return call_inline(L, S, task, nargs, 1);
  }
  if (lua_type(L, 1) == LUA_TTHREAD) {
    lua_State *co = lua_tothread(L, 1);
    luaL_argcheck(L, lua_status(co) == LUA_OK && lua_gettop(co) == 1, 1, "coroutine was already started");
    lua_xmove(co, L, 1);
    lua_replace(L, 1);
  }
  if (lua_type(L, 1) != LUA_TFUNCTION)
    return luaL_argerror(L, 1, lua_pushfstring(L, "awaitable expected, got %s", luaL_typename(L, 1)));
  return call_inline(L, S, ag_task_check(L, S, "await"), 0, 0);
}

/* ---- functions of the module ---- */

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

/* spawn(f, ...): a task that runs f(...). */
static int spawn(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_check(L, S, "spawn");
  luaL_checktype(L, 1, LUA_TFUNCTION);
  ag_coro_new(L, S, lua_gettop(L) - 1);
  ag_task_schedule(L, loop, -1);
  return 1;
}

static void set_name(lua_State *L, ag_state *S, int task, int name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->names);
  lua_pushvalue(L, task);
  luaL_tolstring(L, name, NULL);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

static int create_task(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_check(L, S, "create_task");
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  if (ag_future_to(L, S, 1) != NULL)
    return luaL_argerror(L, 1, "coroutine expected, got a future or task that is scheduled already");
  ag_ensure_future(L, loop, 1, 1);
  if (lua_istable(L, 2) && lua_getfield(L, 2, "name") != LUA_TNIL) set_name(L, S, 1, 3);
  lua_settop(L, 1);
  return 1;
}

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
    if (future != NULL && future->kind == AG_TASK && future->status == AG_PENDING && future->loop == loop->id)
      lua_rawseti(L, -3, ++n);
    else
      lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return 1;
}

static int is_awaitable(lua_State *L) {
  ag_state *S = ag_self(L);
  bool used;
  luaL_checkany(L, 1);
  lua_pushboolean(L, ag_future_to(L, S, 1) != NULL || to_coro(L, S, 1, &used) != NULL);
  return 1;
}

/* ---- methods ---- */

static ag_task *check_task(lua_State *L) {
  ag_future *future = ag_future_check(L, 1);
  if (future->kind != AG_TASK) luaL_typeerror(L, 1, "Task");
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
  if (task->cancels > 0 && --task->cancels == 0) task->must_cancel = false;
  lua_pushinteger(L, task->cancels);
  return 1;
}

static int task_traceback(lua_State *L) {
  ag_task *task = check_task(L);
  if (task->future.status != AG_PENDING || task->thread.L == NULL)
    lua_pushliteral(L, "stack traceback: (not running)");
  else
    luaL_traceback(L, task->thread.L, NULL, 0);
  return 1;
}

static int coro_gc(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_task *task = lua_touserdata(L, 1);
  if (task->started || S->closed) return 0;
  task->started = true;
  S->unstarted--;
  ag_report_later(L, S);
  return 0;
}

static int coro_await(lua_State *L) { return await(L); }

static int coro_tostring(lua_State *L) {
  lua_getiuservalue(L, 1, 1);
  ag_push_site(L, ag_self(L), -1);
  lua_pushfstring(L, "<Coroutine %s>", lua_tostring(L, -1));
  return 1;
}

void ag_task_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg methods[] = {{"get_name", task_get_name},     {"set_name", task_set_name},
                                     {"get_coro", task_get_coro},     {"cancelling", task_cancelling},
                                     {"uncancel", task_uncancel},     {"traceback", task_traceback},
                                     {NULL, NULL}};
  static const luaL_Reg coro_methods[] = {{"await", coro_await}, {NULL, NULL}};
  static const luaL_Reg coro_meta[] = {{"__tostring", coro_tostring}, {"__gc", coro_gc}, {NULL, NULL}};
  static const luaL_Reg used_meta[] = {{"__tostring", coro_tostring}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"async", async},
                                       {"await", await},
                                       {"spawn", spawn},
                                       {"create_task", create_task},
                                       {"current_task", current_task},
                                       {"all_tasks", all_tasks},
                                       {"is_awaitable", is_awaitable},
                                       {NULL, NULL}};
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_task);
  lua_getfield(L, -1, "__index");
  ag_setfuncs(L, S, methods);
  lua_pop(L, 2);
  const struct {
    const luaL_Reg *meta;
    int *ref;
    const void **id;
  } types[] = {{coro_meta, &S->mt_coro, &S->id_coro}, {used_meta, &S->mt_used, &S->id_used}};
  for (int i = 0; i < 2; i++) {
    lua_newtable(L);
    *types[i].id = lua_topointer(L, -1);
    ag_setfuncs(L, S, types[i].meta);
    lua_pushliteral(L, "Coroutine");
    lua_setfield(L, -2, "__name");
    lua_newtable(L);
    ag_setfuncs(L, S, coro_methods);
    lua_setfield(L, -2, "__index");
    *types[i].ref = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, task_body, 1);
  S->body = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, message_handler, 1);
  S->handler = luaL_ref(L, LUA_REGISTRYINDEX);
  ag_setfuncs(L, S, functions);
}
