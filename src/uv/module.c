/* luaopen_agather_uv: the table of all that stands on libuv, and nothing else. The files in Lua (lua/agather/net.lua
** and its neighbours) take from it what is theirs. */
#include "uv/share.h"
#include "uv/uv.h"

__attribute__((visibility("default"))) int luaopen_agather_uv(lua_State *L);

int luaopen_agather_uv(lua_State *L) {
  static const char key = 0; /* opened again, it is the same, and its types keep the methods that are in Lua */
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key) == LUA_TTABLE)
    return 1;
  lua_pop(L, 1);
  static const ag_uv_functions functions = {ag_uv_loop};
  lua_pushlightuserdata(L, (void *)&functions);
  lua_setfield(L, LUA_REGISTRYINDEX, AG_UV_SHARE);
  lua_newtable(L);
  ag_open_address(L);
  ag_open_buffer(L);
  ag_open_connect(L);
  ag_open_dns(L);
  ag_open_file(L);
  ag_open_fs(L);
  ag_open_fs_whole(L);
  ag_open_guest(L);
  ag_open_job(L);
  ag_open_listener(L);
  ag_open_process(L);
  ag_open_signal(L);
  ag_open_stream(L);
  ag_open_udp(L);
  ag_open_waitlist(L);
  ag_open_watch(L);
  ag_open_worker(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
  return 1;
}
