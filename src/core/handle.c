/* Handles: what call_soon, call_later and call_at return, and what a future keeps for each done callback. */
#include "core/handle.h"

#include <math.h>
#include <string.h>

#include "core/context.h"
#include "core/error.h"
#include "core/limits.h"
#include "core/report.h"

static void handle_run(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_state *S = loop->S;
  ag_handle *handle = ag_container(node, ag_handle, timer.node);
  ag_push_kept(L, S, handle->slot);
  if (!handle->promised)
    ag_handle_release(L, S, handle);
  loop->runs = NULL; /* it may be that nothing but this stack holds the handle now */
  int self = lua_gettop(L);
  luaL_checkstack(L, handle->nargs + 8, "too many arguments");
  for (int i = 0; i <= handle->nargs; i++)
    lua_getiuservalue(L, self, i + 1);
  ag_task *outer = loop->task;
  loop->task = NULL;
  bool swapped = S->contexts_used;
  if (swapped)
    ag_context_swap(L, S, self);
  bool opened = S->limiter != NULL && ag_budget_open(L, S);
  int status = lua_pcall(L, handle->nargs, 0, 0);
  if (opened)
    ag_budget_close(S);
  if (swapped)
    ag_context_swap(L, S, self);
  loop->task = outer;
  if (handle->promised) { /* there was no memory even for the call */
    if (!loop->closed)
      ag_loop_ready(loop, node);
    lua_error(L);
  }
  if (status != LUA_OK && !ag_loop_interrupted(L, loop, self + 1, NULL)) {
    lua_getiuservalue(L, self, 1);
    ag_push_site(L, S, -1);
    const char *message = lua_pushfstring(L, "Exception in callback %s", lua_tostring(L, -1));
    ag_error_wrap(L, S, self + 1);
    ag_report(L, loop, message, 0);
  }
}

/* Protected: 1 the loop, 2 the handle. */
static int run_promised(lua_State *L) {
  ag_handle *handle = lua_touserdata(L, 2);
  handle_run(lua_touserdata(L, 1), L, &handle->timer.node);
  return 0;
}

void ag_handle_close(lua_State *L, ag_loop *loop, ag_handle *handle) {
  lua_pushcfunction(L, run_promised);
  lua_pushlightuserdata(L, loop);
  lua_pushlightuserdata(L, handle);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK)
    lua_pop(L, 1);
  if (handle->promised)
    ag_handle_kept(L, loop->S, handle);
}

void ag_handle_kept(lua_State *L, ag_state *S, ag_handle *handle) {
  handle->promised = false;
  ag_handle_release(L, S, handle);
}

ag_handle *ag_handle_new(lua_State *L, ag_loop *loop, int fn) {
  ag_state *S = loop->S;
  uint32_t id = loop->id;
  int nargs = lua_gettop(L) - fn;
  ag_limit_check(L, S, callbacks, S->callbacks);
  luaL_argcheck(L, nargs < 250, fn, "too many arguments for a callback");
  ag_handle *handle = lua_newuserdatauv(L, sizeof *handle, nargs + 1);
  memset(handle, 0, sizeof *handle);
  ag_link_init(&handle->timer.node.link);
  handle->timer.node.run = handle_run;
  handle->loop = id;
  handle->nargs = nargs;
  for (int i = 0; i <= nargs; i++) {
    lua_pushvalue(L, fn + i);
    lua_setiuservalue(L, -2, i + 1);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_handle);
  lua_setmetatable(L, -2);
  if (S->contexts_used)
    ag_context_inherit(L, S, -1);
  if (ag_loop_find(S, id) == NULL) /* a finalizer has closed it */
    ag_loop_closed(L, S);
  lua_pushvalue(L, -1);
  handle->slot = ag_keep(L, S);
  S->callbacks++;
  return handle;
}

ag_handle *ag_handle_to(lua_State *L, ag_state *S, int index) {
  void *p = lua_touserdata(L, index);
  if (p == NULL || !lua_getmetatable(L, index))
    return NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_handle);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? p : NULL;
}

void ag_handle_release(lua_State *L, ag_state *S, ag_handle *handle) {
  int slot = handle->slot;
  handle->slot = 0;
  if (slot != 0)
    S->callbacks--;
  ag_drop(L, S, slot);
}

ag_handle *ag_handle_of(ag_node *node) {
  return node->run == handle_run ? ag_container(node, ag_handle, timer.node) : NULL;
}

/* ---- methods of the loop ---- */

static int schedule(lua_State *L, ag_loop *loop, int fn, double when) {
  luaL_checktype(L, fn, LUA_TFUNCTION);
  if (!isnan(when))
    ag_limit_check(L, loop->S, timers, loop->timers.count);
  ag_handle *handle = ag_handle_new(L, loop, fn);
  handle->when = when;
  if (isnan(when)) {
    ag_loop_ready(loop, &handle->timer.node);
  } else if (!ag_timer_start(&loop->timers, &handle->timer, when)) {
    ag_handle_release(L, loop->S, handle);
    return luaL_error(L, "not enough memory");
  }
  return 1;
}

static double check_time(lua_State *L, int arg) {
  double t = luaL_checknumber(L, arg);
  luaL_argcheck(L, !isnan(t), arg, "number expected, got nan");
  return t;
}

/* loop:call_soon(f, ...): in the next iteration. */
static int loop_call_soon(lua_State *L) { return schedule(L, ag_loop_check_open(L), 2, NAN); }

/* loop:call_later(seconds, f, ...) */
static int loop_call_later(lua_State *L) {
  ag_loop *loop = ag_loop_check_open(L);
  double delay = check_time(L, 2);
  return schedule(L, loop, 3, ag_loop_time(loop) + delay);
}

/* loop:call_at(when, f, ...): [when] on the clock of loop:time(). */
static int loop_call_at(lua_State *L) {
  ag_loop *loop = ag_loop_check_open(L);
  return schedule(L, loop, 3, check_time(L, 2));
}

/* ---- methods of handles ---- */

static ag_handle *check_handle(lua_State *L) {
  ag_handle *handle = ag_handle_to(L, ag_self(L), 1);
  if (handle == NULL)
    luaL_typeerror(L, 1, "Handle");
  return handle;
}

static int handle_cancel(lua_State *L) {
  ag_handle *handle = check_handle(L);
  ag_state *S = ag_self(L);
  if (handle->cancelled)
    return 0;
  handle->cancelled = true;
  ag_link_remove(&handle->timer.node.link);
  ag_loop *loop = ag_loop_find(S, handle->loop);
  if (loop != NULL)
    ag_timer_stop(&loop->timers, &handle->timer);
  ag_handle_release(L, S, handle);
  return 0;
}

static int handle_cancelled(lua_State *L) {
  lua_pushboolean(L, check_handle(L)->cancelled);
  return 1;
}

/* handle:when(): the time it is due, on the loop's clock; nil for call_soon. */
static int handle_when(lua_State *L) {
  ag_handle *handle = check_handle(L);
  if (isnan(handle->when))
    lua_pushnil(L);
  else
    lua_pushnumber(L, handle->when);
  return 1;
}

static int handle_tostring(lua_State *L) {
  ag_handle *handle = check_handle(L);
  lua_getiuservalue(L, 1, 1);
  ag_push_site(L, ag_self(L), -1);
  lua_pushfstring(L, "<Handle %s%s>", lua_tostring(L, -1), handle->cancelled ? " cancelled" : "");
  return 1;
}

void ag_handle_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg methods[] = {
      {"cancel", handle_cancel}, {"cancelled", handle_cancelled}, {"when", handle_when}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__tostring", handle_tostring}, {NULL, NULL}};
  static const luaL_Reg loop_methods[] = {
      {"call_soon", loop_call_soon}, {"call_later", loop_call_later}, {"call_at", loop_call_at}, {NULL, NULL}};
  S->mt_handle = ag_new_type(L, S, "Handle", meta, methods);
  ag_add_methods(L, S, S->mt_loop, loop_methods);
}
