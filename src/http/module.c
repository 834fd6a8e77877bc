/* luaopen_agather_curl: what lua/agather/http is made of. It is a shared object of its own because libcurl brings
** thirty others with it. */
#include "http/transfer.h"

__attribute__((visibility("default"))) int luaopen_agather_curl(lua_State *L);

int luaopen_agather_curl(lua_State *L) {
  luaL_checkversion(L);
  /* Counted and safe in threads since 7.84. Never undone: others in the process may use libcurl. */
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    return luaL_error(L, "agather.http: libcurl could not be initialized");
  lua_newtable(L);
  http_open_transfer(L);
  http_open_share(L);
  http_open_url(L);
  lua_pushstring(L, curl_version_info(CURLVERSION_NOW)->version);
  lua_setfield(L, -2, "version");
  return 1;
}
