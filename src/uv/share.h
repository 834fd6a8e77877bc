/* What agather.uv gives to the C modules beside it. They are shared objects of their own and cannot call each other by
** name, so agather.uv leaves this table in the registry: a module that needs libuv runs require "agather.uv" and
** takes it with ag_uv_share. Knows nothing of who uses it. */
#ifndef AG_UV_SHARE_H
#define AG_UV_SHARE_H

#include <lauxlib.h>
#include <uv.h>

#define AG_UV_SHARE "agather.uv.share"

typedef struct ag_uv_functions {
  /* The libuv loop of the running loop; makes it the poller at the first call. Raises outside a loop, with [what].
  **
  ** When the loop closes, each handle still open is closed with the uv_close_cb that its data points to: a struct
  ** whose first member is that function; or without one where data is NULL. */
  uv_loop_t *(*loop)(lua_State *L, const char *what);
} ag_uv_functions;

/* The functions of agather.uv; borrowed, they live as long as the Lua state. Raises when the module is missing. */
static inline const ag_uv_functions *ag_uv_share(lua_State *L) {
  if (lua_getfield(L, LUA_REGISTRYINDEX, AG_UV_SHARE) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "agather.uv");
    lua_call(L, 1, 0);
    lua_getfield(L, LUA_REGISTRYINDEX, AG_UV_SHARE);
  }
  const ag_uv_functions *functions = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return functions;
}

#endif
