/* luaopen_agather_ssl: TLS contexts and engines for lua/agather/tls.lua. */
#include "tls/tls.h"

__attribute__((visibility("default"))) int luaopen_agather_ssl(lua_State *L);

int luaopen_agather_ssl(lua_State *L) {
  lua_newtable(L);
  tls_open_context(L);
  tls_open_engine(L);
  return 1;
}
