/* Waiting: a task that is not the only one to run yields here, and nowhere else. Futures and tasks are waited for on
** their list; coros and functions run inline in the calling task. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/report.h"
#include "core/task.h"

/* Coros awaited inline run on the awaiter's thread, but C allows only some 190 calls in each other: below this many
** the next one gets a thread of its own, which the loop resumes flat. */
enum { INLINE_MAX = 16 };

/* Pushes "file:line: " of the script's function that runs. [-0, +1, m] */
static const char *push_where(lua_State *L) {
  lua_Debug ar;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline > 0)
      return lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
  }
  return lua_pushliteral(L, "");
}

/* Pushes the name under which Lua's libraries have the function on top, such as "table.sort". [-1, +0|1, m] */
static bool library_name(lua_State *L) {
  static const char *const libraries[] = {"_G", "string", "table", "io", "os", "debug", "utf8", "package"};
  int function = lua_gettop(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
    if (lua_getfield(L, function + 1, libraries[i]) == LUA_TTABLE) {
      for (lua_pushnil(L); lua_next(L, function + 2); lua_pop(L, 1)) {
        if (!lua_rawequal(L, -1, function) || lua_type(L, -2) != LUA_TSTRING)
          continue;
        lua_pushfstring(L, i == 0 ? "%s%s" : "%s.%s", i == 0 ? "" : libraries[i], lua_tostring(L, -2));
        lua_replace(L, function);
        lua_settop(L, function);
        return true;
      }
    }
    lua_settop(L, function + 1);
  }
  lua_settop(L, function - 1);
  return false;
}

/* Pushes the name of the C function that stands in the way of a wait. [-0, +1, m] */
static const char *push_c_call(lua_State *L) {
  static const char *const can_yield[] = {"pcall", "xpcall", "dofile", "await"};
  lua_Debug ar;
  bool script_seen = false;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Snf", &ar);
    bool passes = ar.what[0] != 'C' || !script_seen;
    for (int i = 0; i < 4 && !passes; i++)
      passes = ar.name != NULL && strcmp(ar.name, can_yield[i]) == 0;
    script_seen = script_seen || ar.what[0] != 'C';
    if (passes) {
      lua_pop(L, 1);
      continue;
    }
    if (library_name(L))
      return lua_tostring(L, -1);
    return lua_pushfstring(L, "the C function '%s'", ar.name != NULL ? ar.name : "?");
  }
  return lua_pushliteral(L, "a C call");
}

int ag_task_none(lua_State *L, ag_state *S, const char *what) {
  if (S->running == NULL || S->running->task == NULL)
    ag_error_raise(L, S, "RuntimeError", "%s: no running task (call it inside agather.run, in a task)", what);
  if (ag_task_here(L, S) == NULL)
    ag_error_raise(L, S, "RuntimeError",
                   "%s: cannot wait inside a plain coroutine (use agather.coroutine instead of coroutine)", what);
  const char *call = push_c_call(L);
  ag_error_raise(L, S, "RuntimeError",
                 "%s%s: cannot wait across %s: a C function cannot be suspended, wait before or after it",
                 push_where(L), what, call);
}

/* ---- futures ---- */

/* Whether the finished future at 1 raises CancelledError. */
static bool is_cancellation(lua_State *L, ag_state *S, const ag_future *future) {
  if (future->status != AG_FAILED)
    return future->status == AG_CANCELLED;
  lua_getiuservalue(L, 1, 2);
  bool found = ag_error_is(L, S, -1, "CancelledError");
  lua_pop(L, 1);
  return found;
}

static int await_resumed(lua_State *L, int status, lua_KContext context) {
  ag_state *S = ag_self(L);
  (void)status, (void)context;
  ag_future *future = lua_touserdata(L, 1);
  if (future->status == AG_FAILED) {
    future->asked = true;
    if (future->watched)
      ag_unwatch(L, S, future, 1);
  }
  ag_task *task = ag_task_back(L, S);
  if (task->must_cancel && is_cancellation(L, S, future)) { /* the future's own cancellation goes first */
    ag_task_take_throw(L, S, task);
    lua_pop(L, 1);
  }
  ag_task_raise(L, S, task);
  return ag_future_results(L, S, 1);
}

static int refused(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_task_resumed(L, ag_self(L));
  return 0;
}

/* Raises in the next iteration, as asyncio does, which only then looks at what a task waits for. */
static int refuse(lua_State *L, ag_state *S, ag_task *task, const char *message) {
  if (!task->must_cancel) {
    lua_pushstring(L, message);
    ag_error_push(L, S, "RuntimeError");
    ag_task_throw_error(L, S, task);
  }
  ag_loop_ready(S->running, &task->timer.node);
  return ag_task_park(L, task, AG_WAIT_NONE, 0, refused);
}

int ag_await_future(lua_State *L, ag_state *S) {
  ag_future *future = lua_touserdata(L, 1);
  if (future->status != AG_PENDING)
    return ag_future_results(L, S, 1);
  ag_task *task = ag_task_check(L, S, "await");
  if (future == &task->future)
    return refuse(L, S, task, "Task cannot await on itself");
  if (future->loop != task->future.loop)
    return refuse(L, S, task, "the awaitable belongs to another loop");
  if (future->slot == 0) { /* alive while somebody waits, whatever a script does to the waiting thread */
    lua_pushvalue(L, 1);
    future->slot = ag_keep(L, S);
  }
  ag_list_append(&future->waiters, &task->timer.node.link);
  task->waiting = future;
  if (task->must_cancel) { /* cancelled itself before this wait */
    lua_pushvalue(L, 1);
    ag_task_take_throw(L, S, task);
    lua_pushvalue(L, -1);
    if (!ag_cancel(L, S, 1)) {
      ag_task_throw(L, S, task);
      lua_pop(L, 1);
    } else if (task->must_cancel) { /* it came back in a circle, which nothing else would wake */
      ag_link_remove(&task->timer.node.link);
      ag_loop_ready(S->running, &task->timer.node);
    }
    lua_settop(L, 1);
  }
  return ag_task_park(L, task, AG_WAIT_FUTURE, 0, await_resumed);
}

/* ---- coros and functions, inline ---- */

/* The context holds the stack's base and the depth to go back to. */
static int inline_done(lua_State *L, int status, lua_KContext context) {
  (void)status;
  ag_state *S = ag_self(L);
  ag_task *task = ag_task_here(L, S);
  if (task == NULL)
    return ag_task_hijacked(L, S);
  task->depth = (uint8_t)(context >> 8);
  return lua_gettop(L) - (int)(context & 255);
}

static int frame_done(lua_State *L, int status, lua_KContext base) {
  (void)status;
  ag_state *S = ag_self(L);
  ag_task *task = ag_task_here(L, S);
  if (task == NULL)
    return ag_task_hijacked(L, S);
  if (task->raising)
    return lua_error(L);
  return lua_gettop(L) - (int)base;
}

static int await(lua_State *L);

/* How many coros are awaited inline on this thread, beside the one that begins: those that failed and were caught have
** not counted themselves off. INLINE_MAX where that takes long to tell. */
static uint8_t count_inline(lua_State *L) {
  uint8_t found = 0;
  lua_Debug ar;
  luaL_checkstack(L, 1, NULL);
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    if (level > 6 * INLINE_MAX)
      return INLINE_MAX;
    lua_getinfo(L, "f", &ar);
    found += lua_tocfunction(L, -1) == await;
    lua_pop(L, 1);
  }
  return found;
}

/* Calls the function and [nargs] arguments above [base] inline: here, or on a thread of its own when deep. */
static int call_inline(lua_State *L, ag_state *S, ag_task *task, int nargs, int base) {
  task->raising = false; /* what was raised here before was caught */
  if (task->depth >= INLINE_MAX && S->running->here == task->thread.L)
    task->depth = count_inline(L);
  if (task->depth < INLINE_MAX || S->running->here != task->thread.L) {
    lua_KContext context = base | (lua_KContext)task->depth << 8;
    task->depth++;
    lua_callk(L, nargs, LUA_MULTRET, context, inline_done);
    return inline_done(L, LUA_OK, context);
  }
  ag_thread thread = ag_thread_take(L, S);
  ag_frame *frame = malloc(sizeof *frame);
  if (frame == NULL || !lua_checkstack(thread.L, nargs + 8)) {
    free(frame);
    ag_thread_give(L, S, thread, true);
    return luaL_error(L, "not enough memory");
  }
  lua_rawgeti(thread.L, LUA_REGISTRYINDEX, S->frame);
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
  if (ag_future_to(L, S, 1) != NULL)
    return ag_await_future(L, S);
  bool used = false;
  ag_task *coro = ag_coro_to(L, S, 1, &used);
  if (coro != NULL) {
    if (used)
      return ag_error_raise(L, S, "RuntimeError", "cannot reuse already awaited coroutine");
    ag_task *task = ag_task_check(L, S, "await");
    int nargs = coro->future.count;
    luaL_checkstack(L, nargs + 2, "too many arguments");
    ag_coro_start(L, S, 1, false);
    for (int i = 0; i <= nargs; i++)
      lua_getiuservalue(L, 1, i + 1);
    return call_inline(L, S, task, nargs, 1);
  }
  if (lua_type(L, 1) == LUA_TTHREAD)
    ag_thread_function(L, 1, 1);
  if (lua_type(L, 1) != LUA_TFUNCTION)
    ag_await_method(L, 1);
  if (lua_type(L, 1) != LUA_TFUNCTION)
    return luaL_argerror(L, 1, lua_pushfstring(L, "awaitable expected, got %s", ag_type_name(L, 1)));
  return call_inline(L, S, ag_task_check(L, S, "await"), 0, 0);
}

static int awaited(lua_State *L, int status, lua_KContext base) {
  (void)status;
  return lua_gettop(L) - (int)base;
}

int ag_await(lua_State *L, int index) {
  index = lua_absindex(L, index);
  int base = lua_gettop(L);
  luaL_checkstack(L, 3, NULL);
  lua_pushlightuserdata(L, ag_state_open(L));
  lua_pushcclosure(L, await, 1);
  lua_pushvalue(L, index);
  lua_callk(L, 1, LUA_MULTRET, base, awaited);
  return awaited(L, LUA_OK, base);
}

void ag_await_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg methods[] = {{"await", await}, {NULL, NULL}};
  ag_setfuncs(L, S, methods);
  ag_add_methods(L, S, S->mt_coro, methods);
  ag_add_methods(L, S, S->mt_used, methods);
}
