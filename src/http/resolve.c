/* Names to addresses before curl sees them: its own look-up cannot be cancelled without waiting for a thread.
** A look-up that is cancelled goes on in libuv's pool and finds nobody. */
#include <stdlib.h>
#include <string.h>

#include "http/transfer.h"
#include "uv/share.h"

typedef struct lookup {
  uv_getaddrinfo_t request;
  ag_wait wait;
  struct addrinfo *found;
  int status;
  bool over, owned; /* freed when it is over and no userdata refers to it */
} lookup;

static void lookup_free(lookup *l) {
  uv_freeaddrinfo(l->found);
  free(l);
}

static void on_found(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
  lookup *l = request->data;
  l->status = status;
  l->found = found;
  l->over = true;
  if (!l->owned)
    lookup_free(l);
  else
    ag_wake(&l->wait);
}

static int lookup_gc(lua_State *L) {
  lookup **box = lua_touserdata(L, 1);
  lookup *l = *box;
  *box = NULL;
  if (l == NULL)
    return 0;
  l->owned = false;
  if (l->over)
    lookup_free(l);
  return 0;
}

static void cancel_wait(ag_wait *wait) { (void)wait; }

/* Stack: name, lookup. */
static int looked_up(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  lookup *l = *(lookup **)lua_touserdata(L, 2);
  if (l->status != 0) {
    lua_pushnil(L);
    lua_pushstring(L, uv_strerror(l->status));
    return 2;
  }
  lua_newtable(L);
  lua_Integer n = 0;
  char text[64];
  for (struct addrinfo *a = l->found; a != NULL; a = a->ai_next) {
    bool six = a->ai_family == AF_INET6;
    if (six ? uv_ip6_name((struct sockaddr_in6 *)a->ai_addr, text, sizeof text) != 0
            : uv_ip4_name((struct sockaddr_in *)a->ai_addr, text, sizeof text) != 0)
      continue;
    lua_pushfstring(L, six ? "[%s]" : "%s", text);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* resolve(name): a list of numeric addresses, those of IPv6 in brackets; or nil and what is wrong. */
static int curl_resolve(lua_State *L) {
  size_t n;
  const char *name = luaL_checklstring(L, 1, &n);
  luaL_argcheck(L, strlen(name) == n && n <= 253, 1, "name of a host expected");
  const ag_uv_functions *uv = ag_uv_share(L);
  uv_loop_t *loop = uv->loop(L, "resolve");
  lua_settop(L, 1);
  lookup **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_newmetatable(L, "agather.http.Lookup")) {
    lua_pushcfunction(L, lookup_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  lookup *l = calloc(1, sizeof *l);
  if (l == NULL)
    return luaL_error(L, "not enough memory");
  l->over = l->owned = true;
  *box = l;
  l->request.data = l;
  l->wait.cancel = cancel_wait;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  int status = uv_getaddrinfo(loop, &l->request, on_found, name, NULL, &hints);
  if (status != 0)
    return uv->error(L, status, "resolve", name);
  l->over = false;
  return ag_suspend(L, &l->wait, 0, looked_up);
}

void http_open_resolve(lua_State *L) {
  static const luaL_Reg functions[] = {{"resolve", curl_resolve}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
