/* What a client keeps between its transfers: cookies, with curl's rules for who gets them, and TLS sessions. */
#include <stdlib.h>
#include <string.h>

#include "http/transfer.h"

#define LINES "agather.http.Lines"

/* share(cookies): one that keeps cookies or does not. */
static int curl_share(lua_State *L) {
  http_share **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, SHARE);
  http_share *share = calloc(1, sizeof *share);
  if (share == NULL || (share->curl = curl_share_init()) == NULL) {
    free(share);
    return luaL_error(L, "not enough memory");
  }
  share->refs = 1;
  *box = share;
  share->cookies = lua_toboolean(L, 1);
  if (share->cookies && curl_share_setopt(share->curl, CURLSHOPT_SHARE, CURL_LOCK_DATA_COOKIE) != CURLSHE_OK)
    return luaL_error(L, "not enough memory");
  if (curl_share_setopt(share->curl, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK)
    return luaL_error(L, "not enough memory");
  return 1;
}

static http_share *check_share(lua_State *L) {
  http_share *share = *(http_share **)luaL_checkudata(L, 1, SHARE);
  if (share == NULL)
    luaL_error(L, "http: the client is closed");
  return share;
}

static int lines_gc(lua_State *L) {
  struct curl_slist **lines = lua_touserdata(L, 1);
  curl_slist_free_all(*lines);
  *lines = NULL;
  return 0;
}

/* share:cookies(): a list of lines in Netscape's format. */
static int share_cookies(lua_State *L) {
  http_share *share = check_share(L);
  lua_newtable(L);
  struct curl_slist **lines = lua_newuserdatauv(L, sizeof(void *), 0); /* frees them when an error comes */
  *lines = NULL;
  luaL_setmetatable(L, LINES);
  CURL *easy = curl_easy_init();
  if (easy == NULL)
    return luaL_error(L, "not enough memory");
  curl_easy_setopt(easy, CURLOPT_SHARE, share->curl);
  curl_easy_getinfo(easy, CURLINFO_COOKIELIST, lines);
  curl_easy_cleanup(easy);
  lua_Integer n = 0;
  for (struct curl_slist *line = *lines; line != NULL; line = line->next) {
    lua_pushstring(L, line->data);
    lua_rawseti(L, -3, ++n);
  }
  lua_pop(L, 1);
  return 1;
}

/* share:set_cookie(line): a line in Netscape's format, or "ALL" to forget them. */
static int share_set_cookie(lua_State *L) {
  http_share *share = check_share(L);
  const char *line = luaL_checkstring(L, 2);
  CURL *easy = curl_easy_init();
  if (easy == NULL)
    return luaL_error(L, "not enough memory");
  curl_easy_setopt(easy, CURLOPT_SHARE, share->curl);
  curl_easy_setopt(easy, CURLOPT_COOKIELIST, line);
  curl_easy_cleanup(easy);
  return 0;
}

/* share:close(): transfers that use it keep it until they end. */
static int share_close(lua_State *L) {
  http_share **box = luaL_checkudata(L, 1, SHARE);
  http_share *share = *box;
  *box = NULL;
  http_share_unref(share);
  return 0;
}

void http_share_unref(http_share *share) {
  if (share == NULL || --share->refs > 0)
    return;
  curl_share_cleanup(share->curl);
  free(share);
}

void http_open_share(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"cookies", share_cookies}, {"set_cookie", share_set_cookie}, {"close", share_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"share", curl_share}, {NULL, NULL}};
  luaL_newmetatable(L, LINES);
  lua_pushcfunction(L, lines_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_newmetatable(L, SHARE);
  lua_pushcfunction(L, share_close);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
