/* luaopen_agather_uv: the table of all that stands on libuv, and nothing else. The files in Lua (lua/agather/net.lua
** and its neighbours) take from it what is theirs. */
#include "uv/uv.h"

__attribute__((visibility("default"))) int luaopen_agather_uv(lua_State *L);

int luaopen_agather_uv(lua_State *L) {
  lua_newtable(L);
  ag_open_tcp(L);
  ag_open_dns(L);
  ag_open_worker(L);
  return 1;
}
