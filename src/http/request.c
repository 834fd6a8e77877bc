/* A request in a Lua table becomes curl's options. lua/agather/http makes the table and has checked what scripts gave;
** what would be a hole is refused here again. */
#include <string.h>

#include "http/transfer.h"

/* Raises when curl did not take the option [name]. */
static void taken(lua_State *L, CURLcode code, const char *name) {
  if (code == CURLE_OK)
    return;
  if (code == CURLE_OUT_OF_MEMORY)
    luaL_error(L, "not enough memory");
  luaL_error(L, "http: '%s' is not possible with this libcurl (%s)", name, curl_easy_strerror(code));
}

/* The text at the top of the stack: without line ends and zeros, which would make another request of it. */
static const char *plain_text(lua_State *L, const char *name) {
  size_t n;
  const char *text = luaL_checklstring(L, -1, &n);
  if (strlen(text) != n || strpbrk(text, "\r\n") != NULL)
    luaL_error(L, "http: '%s' must not hold CR, LF or NUL", name);
  return text;
}

/* The text in field [name], or NULL; it lives as long as the table holds it. */
static const char *field_text(lua_State *L, int index, const char *name) {
  const char *text = NULL;
  if (lua_getfield(L, index, name) != LUA_TNIL)
    text = plain_text(L, name);
  lua_pop(L, 1);
  return text;
}

static bool field_true(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool is = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return is;
}

static lua_Integer field_integer(lua_State *L, int index, const char *name, lua_Integer absent) {
  lua_getfield(L, index, name);
  lua_Integer n = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : absent;
  lua_pop(L, 1);
  return n;
}

/* Appends the strings of the list in field [name]. */
static void field_list(lua_State *L, int index, const char *name, struct curl_slist **list) {
  if (lua_getfield(L, index, name) == LUA_TTABLE) {
    lua_Integer n = luaL_len(L, -1);
    for (lua_Integer i = 1; i <= n; i++) {
      lua_geti(L, -1, i);
      struct curl_slist *longer = curl_slist_append(*list, plain_text(L, name));
      if (longer == NULL)
        luaL_error(L, "not enough memory");
      *list = longer;
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
}

static void set_text(lua_State *L, int index, CURL *easy, CURLoption option, const char *name) {
  const char *text = field_text(L, index, name);
  if (text != NULL)
    taken(L, curl_easy_setopt(easy, option, text), name);
}

static void set_safety(CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  /* 7.85 wants the option with names; the older one says the same without parsing. */
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 86400000L); /* our own deadlines are shorter */
  curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L);
  curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
}

static void set_method_and_body(lua_State *L, int index, transfer *t) {
  CURL *easy = t->job.easy;
  const char *method = field_text(L, index, "method");
  size_t n;
  lua_getfield(L, index, "body");
  const char *body = lua_tolstring(L, -1, &n);
  if (field_true(L, index, "upload")) {
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)field_integer(L, index, "upload_size", -1));
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L); /* it cannot be sent again when an idle connection is dead */
  } else if (body != NULL) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n);
    taken(L, curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, body), "body");
    if (n > 65536)
      curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
  } else if (strcmp(method, "HEAD") == 0) {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  }
  lua_pop(L, 1);
  taken(L, curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method), "method");
}

static void set_version(lua_State *L, int index, CURL *easy) {
  const char *version = field_text(L, index, "http_version");
  long number = CURL_HTTP_VERSION_1_1;
  if (version != NULL && strcmp(version, "2") == 0)
    number = CURL_HTTP_VERSION_2TLS;
  else if (version != NULL && strcmp(version, "2-prior") == 0)
    number = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
  taken(L, curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, number), "http2");
  if (number != CURL_HTTP_VERSION_1_1)
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
}

static void set_tls(lua_State *L, int index, CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  if (field_true(L, index, "insecure")) {
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  /* Without a directory of certificates curl keeps the parsed file for the next connection. */
  curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
  set_text(L, index, easy, CURLOPT_CAINFO, "ca_file");
  set_text(L, index, easy, CURLOPT_PROXY_CAINFO, "ca_file");
  set_text(L, index, easy, CURLOPT_SSLCERT, "cert_file");
  set_text(L, index, easy, CURLOPT_SSLKEY, "key_file");
  set_text(L, index, easy, CURLOPT_KEYPASSWD, "key_password");
}

static void set_auth(lua_State *L, int index, transfer *t) {
  CURL *easy = t->job.easy;
  const char *user = field_text(L, index, "user");
  if (user == NULL)
    return;
  taken(L, curl_easy_setopt(easy, CURLOPT_USERNAME, user), "user");
  set_text(L, index, easy, CURLOPT_PASSWORD, "password");
  t->may_retry_auth = field_true(L, index, "digest");
  curl_easy_setopt(easy, CURLOPT_HTTPAUTH, t->may_retry_auth ? CURLAUTH_DIGEST : CURLAUTH_BASIC);
}

static void set_share(lua_State *L, int index, transfer *t) {
  if (lua_getfield(L, index, "share") != LUA_TNIL) {
    http_share *share = *(http_share **)luaL_checkudata(L, -1, SHARE);
    if (share == NULL)
      luaL_error(L, "http: the client is closed");
    taken(L, curl_easy_setopt(t->job.easy, CURLOPT_SHARE, share->curl), "share");
    if (share->cookies) /* curl looks at shared cookies only when it has been given a file of them */
      taken(L, curl_easy_setopt(t->job.easy, CURLOPT_COOKIEFILE, ""), "cookies");
    t->share = share;
    share->refs++;
  }
  lua_pop(L, 1);
}

/* Fields: url, method, headers (lines), body or upload and upload_size, stream, max_body, decompress; http_version;
** resolve (lines for CURLOPT_RESOLVE); proxy; insecure, ca_file, cert_file, key_file, key_password; user, password,
** digest; cookie; share; keepalive (seconds that a connection may have been idle). */
void http_request_set(lua_State *L, int index, transfer *t) {
  CURL *easy = t->job.easy;
  luaL_checkstack(L, 8, NULL);
  set_safety(easy);
  set_text(L, index, easy, CURLOPT_URL, "url");
  set_method_and_body(L, index, t);
  field_list(L, index, "headers", &t->headers);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers);
  field_list(L, index, "resolve", &t->resolve);
  curl_easy_setopt(easy, CURLOPT_RESOLVE, t->resolve);
  set_version(L, index, easy);
  const char *proxy = field_text(L, index, "proxy");
  taken(L, curl_easy_setopt(easy, CURLOPT_PROXY, proxy != NULL ? proxy : ""), "proxy");
  curl_easy_setopt(easy, CURLOPT_NOPROXY, ""); /* curl would look into the environment */
  set_tls(L, index, easy);
  set_auth(L, index, t);
  set_text(L, index, easy, CURLOPT_COOKIE, "cookie");
  set_share(L, index, t);
  if (field_true(L, index, "decompress"))
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
  lua_Integer keepalive = field_integer(L, index, "keepalive", -1);
  if (keepalive == 0)
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
  else if (keepalive > 0)
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)keepalive);
  t->stream = field_true(L, index, "stream");
  t->max_body = (curl_off_t)field_integer(L, index, "max_body", -1);
}
