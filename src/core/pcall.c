/* pcall and xpcall that catch everything but CancelledError, as `except Exception` does in Python. */
#include "core/pcall.h"

#include "core/error.h"

static int pcall_done(lua_State *L, int status, lua_KContext extra) {
  if (status != LUA_OK && status != LUA_YIELD) {
    ag_error_normalize(L, -1);
    if (ag_error_is(L, ag_self(L), -1, "CancelledError"))
      return lua_error(L);
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
  }
  return lua_gettop(L) - (int)extra;
}

/* pcall(f, ...): as Lua's, but a cancellation goes through. */
static int pcall_(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, 1);
  lua_insert(L, 1);
  return pcall_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, pcall_done), 0);
}

/* The handler at upvalue 2, but for cancellations. */
static int handler(lua_State *L) {
  ag_error_normalize(L, 1);
  if (ag_error_is(L, ag_self(L), 1, "CancelledError"))
    return 1;
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

/* xpcall(f, handler, ...) */
static int xpcall_(lua_State *L) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  int n = lua_gettop(L);
  lua_pushlightuserdata(L, ag_self(L));
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, handler, 2);
  lua_replace(L, 2);
  lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2); /* f, handler, true, f, ... */
  return pcall_done(L, lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, pcall_done), 2);
}

void ag_pcall_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg functions[] = {{"pcall", pcall_}, {"xpcall", xpcall_}, {NULL, NULL}};
  ag_setfuncs(L, S, functions);
}
