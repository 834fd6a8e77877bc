/* The loop as a value: what scripts call of it, and its poller. Knows nothing of iterations. */
#include "core/error.h"
#include "core/future.h"
#include "core/loop.h"
#include "core/report.h"

ag_loop *ag_loop_check_self(lua_State *L) {
  ag_state *S = ag_self(L);
  void *p = lua_touserdata(L, 1);
  if (p != NULL && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_loop);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (same)
      return p;
  }
  luaL_typeerror(L, 1, "Loop");
  return NULL;
}

void ag_loop_closed(lua_State *L, ag_state *S) { ag_error_raise(L, S, "RuntimeError", "Event loop is closed"); }

ag_loop *ag_loop_check_open(lua_State *L) {
  ag_loop *loop = ag_loop_check_self(L);
  if (loop->closed)
    ag_loop_closed(L, loop->S);
  return loop;
}

ag_poller *ag_loop_poller(ag_loop *loop) { return loop->poller; }

void ag_loop_set_poller(ag_loop *loop, ag_poller *poller) {
  if (loop->closed) {
    poller->close(poller);
    return;
  }
  ag_poller *old = loop->poller;
  loop->poller = poller;
  loop->has_io = true;
  ag_remote_set_poller(loop->remote, poller);
  if (old != NULL)
    old->close(old);
  poller->wake(poller); /* the old one may have got a wake-up that it never answered */
}

ag_loop *ag_running_loop(lua_State *L, const char *what) { return ag_loop_check(L, ag_state_open(L), what); }

static int loop_time(lua_State *L) {
  lua_pushnumber(L, ag_loop_time(ag_loop_check_self(L)));
  return 1;
}

static int loop_create_future(lua_State *L) {
  ag_loop *loop = ag_loop_check_open(L);
  ag_future_new(L, loop, sizeof(ag_future), AG_FUTURE);
  return 1;
}

static int loop_stop(lua_State *L) {
  ag_loop_check_self(L)->stopping = true;
  return 0;
}

static int loop_is_running(lua_State *L) {
  lua_pushboolean(L, ag_loop_check_self(L)->running);
  return 1;
}

static int loop_is_closed(lua_State *L) {
  lua_pushboolean(L, ag_loop_check_self(L)->closed);
  return 1;
}

static int loop_close(lua_State *L) {
  ag_loop *loop = ag_loop_check_self(L);
  if (loop->running)
    return ag_error_raise(L, loop->S, "RuntimeError", "Cannot close a running event loop");
  if (!loop->closed) {
    ag_report_suspects(L, loop, true);
    ag_loop_close(L, loop);
  }
  return 0;
}

static void end(lua_State *L, ag_loop *loop) {
  ag_link_remove(&loop->every);
  if (!loop->closed) {
    loop->slot = loop->handler = 0;
    ag_loop_close(L, loop);
  }
  ag_remote_unref(loop->remote);
  loop->remote = NULL;
}

static int loop_gc(lua_State *L) {
  end(L, lua_touserdata(L, 1));
  return 0;
}

void ag_loops_end(lua_State *L, ag_state *S) {
  while (!ag_list_empty(&S->every))
    end(L, ag_container(S->every.next, ag_loop, every));
}

static int loop_set_debug(lua_State *L) {
  ag_loop_check_self(L)->debug = lua_toboolean(L, 2);
  return 0;
}

static int loop_get_debug(lua_State *L) {
  lua_pushboolean(L, ag_loop_check_self(L)->debug);
  return 1;
}

static int loop_set_exception_handler(lua_State *L) {
  ag_loop *loop = ag_loop_check_open(L);
  int slot = 0;
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    slot = ag_keep(L, loop->S);
  }
  ag_drop(L, loop->S, loop->handler);
  loop->handler = slot;
  return 0;
}

static int get_running_loop(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_check(L, S, "get_running_loop");
  ag_push_kept(L, S, loop->slot);
  return 1;
}

static int new_event_loop(lua_State *L) {
  ag_loop_new(L, ag_self(L), false, false);
  return 1;
}

static int loop_tostring(lua_State *L) {
  ag_loop *loop = ag_loop_check_self(L);
  lua_pushfstring(L, "<Loop %s>", loop->closed ? "closed" : loop->running ? "running" : "idle");
  return 1;
}

void ag_loop_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg loop_methods[] = {{"time", loop_time},
                                          {"create_future", loop_create_future},
                                          {"stop", loop_stop},
                                          {"is_running", loop_is_running},
                                          {"is_closed", loop_is_closed},
                                          {"close", loop_close},
                                          {"set_debug", loop_set_debug},
                                          {"get_debug", loop_get_debug},
                                          {"set_exception_handler", loop_set_exception_handler},
                                          {NULL, NULL}};
  static const luaL_Reg loop_meta[] = {{"__gc", loop_gc}, {"__tostring", loop_tostring}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"get_running_loop", get_running_loop}, {"new_event_loop", new_event_loop}, {NULL, NULL}};
  S->mt_loop = ag_new_type(L, S, "Loop", loop_meta, loop_methods);
  ag_setfuncs(L, S, functions);
}
