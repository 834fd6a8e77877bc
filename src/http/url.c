/* URLs by curl's own parser, so that what is checked is what is used. */
#include <string.h>

#include "http/transfer.h"

#define URL "agather.http.URL"

/* What curl gave and must get back, also when an error comes. */
typedef struct url {
  CURLU *parsed;
  char *part;
} url;

static int url_gc(lua_State *L) {
  url *u = lua_touserdata(L, 1);
  curl_url_cleanup(u->parsed);
  curl_free(u->part);
  *u = (url){NULL, NULL};
  return 0;
}

static url *push_url(lua_State *L) {
  url *u = lua_newuserdatauv(L, sizeof *u, 0);
  *u = (url){NULL, NULL};
  luaL_setmetatable(L, URL);
  u->parsed = curl_url();
  if (u->parsed == NULL)
    luaL_error(L, "not enough memory");
  return u;
}

/* Sets field [name] of the table on top to a part of [u], if it has that. */
static void set_part(lua_State *L, url *u, CURLUPart part, unsigned flags, const char *name) {
  if (curl_url_get(u->parsed, part, &u->part, flags) == CURLUE_OK) {
    lua_pushstring(L, u->part);
    lua_setfield(L, -2, name);
  }
  curl_free(u->part); /* there is one also after an error: curl 7.88 leaves a host that has no punycode */
  u->part = NULL;
}

/* parse_url(text [, base]): a table with url (without credentials and fragment), scheme, host (as it is looked up),
** port, path, query, user and password; or nil and what is wrong. A [base] is what a relative [text] refers to. */
static int parse_url(lua_State *L) {
  size_t n, base_n = 0;
  const char *text = luaL_checklstring(L, 1, &n);
  const char *base = luaL_optlstring(L, 2, NULL, &base_n);
  if (strlen(text) != n || (base != NULL && strlen(base) != base_n)) {
    lua_pushnil(L);
    lua_pushliteral(L, "it holds a NUL");
    return 2;
  }
  url *u = push_url(L);
  CURLUcode code = CURLUE_OK;
  if (base != NULL)
    code = curl_url_set(u->parsed, CURLUPART_URL, base, CURLU_NON_SUPPORT_SCHEME);
  if (code == CURLUE_OK)
    code = curl_url_set(u->parsed, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME);
  if (code != CURLUE_OK) {
    lua_pushnil(L);
    lua_pushstring(L, curl_url_strerror(code));
    return 2;
  }
  lua_createtable(L, 0, 10);
  set_part(L, u, CURLUPART_SCHEME, 0, "scheme");
  set_part(L, u, CURLUPART_HOST, CURLU_PUNYCODE, "host");
  set_part(L, u, CURLUPART_PORT, CURLU_DEFAULT_PORT, "port");
  set_part(L, u, CURLUPART_PATH, 0, "path");
  set_part(L, u, CURLUPART_QUERY, 0, "query");
  set_part(L, u, CURLUPART_USER, CURLU_URLDECODE, "user");
  set_part(L, u, CURLUPART_PASSWORD, CURLU_URLDECODE, "password");
  curl_url_set(u->parsed, CURLUPART_USER, NULL, 0);
  curl_url_set(u->parsed, CURLUPART_PASSWORD, NULL, 0);
  curl_url_set(u->parsed, CURLUPART_FRAGMENT, NULL, 0);
  set_part(L, u, CURLUPART_URL, 0, "url");
  return 1;
}

/* escape(text [, plus]): percent-encoded for a query; plus: spaces as "+", as forms have them. */
static int escape(lua_State *L) {
  static const char hex[] = "0123456789ABCDEF";
  size_t n;
  const unsigned char *text = (const unsigned char *)luaL_checklstring(L, 1, &n);
  bool plus = lua_toboolean(L, 2);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < n; i++) {
    unsigned char c = text[i];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c != 0 && strchr("-._~", c))) {
      luaL_addchar(&b, (char)c);
    } else if (c == ' ' && plus) {
      luaL_addchar(&b, '+');
    } else {
      luaL_addchar(&b, '%');
      luaL_addchar(&b, hex[c >> 4]);
      luaL_addchar(&b, hex[c & 15]);
    }
  }
  luaL_pushresult(&b);
  return 1;
}

void http_open_url(lua_State *L) {
  static const luaL_Reg functions[] = {{"parse_url", parse_url}, {"escape", escape}, {NULL, NULL}};
  luaL_newmetatable(L, URL);
  lua_pushcfunction(L, url_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
