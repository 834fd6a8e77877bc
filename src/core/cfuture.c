/* The public functions on futures: what scripts do with methods, C does with these. Each that could raise is a function
** under lua_pcall and the plain one around it. */
#include "core/error.h"
#include "core/future.h"
#include "core/handle.h"
#include "core/loop.h"

typedef struct watcher {
  void (*fn)(lua_State *L, void *data);
  void *data;
  ag_handle *handle; /* which the loop keeps until the call */
} watcher;

/* The future at [index], or NULL. Never raises. */
static ag_future *to_future(lua_State *L, int index) {
  ag_state *S = ag_state_find(L);
  return S != NULL ? ag_future_to(L, S, index) : NULL;
}

/* For protected functions: the future at 1. */
static ag_future *check_future(lua_State *L) {
  ag_future *future = to_future(L, 1);
  if (future == NULL)
    luaL_error(L, "Future or Task expected, got %s", ag_type_name(L, 1));
  return future;
}

static ag_future *check_settable(lua_State *L) {
  ag_future *future = check_future(L);
  if (future->kind != AG_FUTURE)
    luaL_error(L, "a %s is settled by the loop, not by hand", future->kind == AG_TASK ? "task" : "gather");
  return future;
}

/* Calls the protected [function] with the value at [index] and the [n] values on top. [-n, +results|1, -] */
static ag_status protected_call(lua_State *L, lua_CFunction function, int index, int n, int results) {
  lua_pushvalue(L, index);
  lua_insert(L, -n - 1);
  lua_pushcfunction(L, function);
  lua_insert(L, -n - 2);
  return lua_pcall(L, n + 1, results, 0) == LUA_OK ? AG_OK : AG_ERROR;
}

static bool is_done(lua_State *L, int index) {
  ag_future *future = to_future(L, index);
  return future != NULL && future->status != AG_PENDING;
}

static int create(lua_State *L) {
  ag_future_new(L, lua_touserdata(L, 1), sizeof(ag_future), AG_FUTURE);
  return 1;
}

ag_status ag_future_create(lua_State *L, ag_loop *loop) {
  if (loop->closed)
    return AG_CLOSED;
  lua_pushcfunction(L, create);
  lua_pushlightuserdata(L, loop);
  return lua_pcall(L, 1, 1, 0) == LUA_OK ? AG_OK : AG_ERROR;
}

static int set_result(lua_State *L) {
  check_settable(L);
  ag_future_resolve(L, ag_state_open(L), 1, lua_gettop(L) - 1);
  return 0;
}

ag_status ag_future_set_result(lua_State *L, int index, int n) {
  if (!is_done(L, index))
    return protected_call(L, set_result, index, n, 0);
  lua_pop(L, n);
  return AG_SETTLED;
}

static int set_error(lua_State *L) {
  check_settable(L);
  if (lua_isnil(L, 2))
    return luaL_error(L, "error value expected, got nil");
  ag_error_wrap(L, ag_state_open(L), 2);
  if (check_settable(L)->status != AG_PENDING)
    return luaL_error(L, "a finalizer has settled the future");
  ag_future_reject(L, ag_state_open(L), 1);
  return 0;
}

ag_status ag_future_set_error(lua_State *L, int index) {
  if (!is_done(L, index))
    return protected_call(L, set_error, index, 1, 0);
  lua_pop(L, 1);
  return AG_SETTLED;
}

/* 1 the future, 2 the message as light userdata. */
static int cancel(lua_State *L) {
  check_future(L);
  lua_pushstring(L, lua_touserdata(L, 2));
  ag_push_cancelled(L, ag_state_open(L), 3);
  ag_cancel(L, ag_state_open(L), 1);
  return 0;
}

ag_status ag_future_cancel(lua_State *L, int index, const char *message) {
  if (is_done(L, index))
    return AG_SETTLED;
  index = lua_absindex(L, index);
  lua_pushlightuserdata(L, (void *)message);
  return protected_call(L, cancel, index, 1, 0);
}

ag_future_status ag_future_state(lua_State *L, int index) {
  ag_future *future = to_future(L, index);
  return future != NULL ? (ag_future_status)future->status : AG_NOT_FUTURE;
}

static int outcome(lua_State *L) {
  ag_future *future = check_future(L);
  ag_state *S = ag_state_open(L);
  if (future->status == AG_RESULT)
    return ag_future_results(L, S, 1);
  ag_future_value(L, S, 1);
  return lua_error(L);
}

ag_status ag_future_outcome(lua_State *L, int index) {
  if (ag_future_state(L, index) == AG_PENDING)
    return AG_IDLE;
  return protected_call(L, outcome, index, 0, LUA_MULTRET);
}

static int call_watcher(lua_State *L) {
  watcher *w = lua_touserdata(L, lua_upvalueindex(1));
  ag_handle_kept(L, ag_state_open(L), w->handle);
  w->fn(L, w->data);
  return 0;
}

/* 1 the future, 2 the watcher as light userdata. The function it becomes is called as a done callback is. */
static int watch(lua_State *L) {
  ag_future *future = check_future(L);
  ag_loop *loop = ag_loop_find(ag_state_open(L), future->loop);
  watcher *w = lua_newuserdatauv(L, sizeof *w, 0);
  *w = *(watcher *)lua_touserdata(L, 2);
  lua_pushcclosure(L, call_watcher, 1);
  lua_pushvalue(L, 1);
  ag_handle *handle = ag_handle_new(L, loop, 3);
  w->handle = handle;
  handle->promised = loop->promises = true;
  ag_list_append(future->status == AG_PENDING ? &future->waiters : &loop->ready, &handle->timer.node.link);
  return 0;
}

ag_status ag_future_watch(lua_State *L, int index, void (*fn)(lua_State *L, void *data), void *data) {
  ag_future *future = to_future(L, index);
  ag_loop *loop = future != NULL ? ag_loop_find(ag_state_find(L), future->loop) : NULL;
  if (future != NULL && (loop == NULL || loop->closed))
    return AG_CLOSED;
  watcher w = {fn, data, NULL};
  index = lua_absindex(L, index);
  lua_pushlightuserdata(L, &w);
  return protected_call(L, watch, index, 1, 0);
}
