/* Names of hosts to addresses, by the system's resolver, off the loop's thread. A cancelled look-up frees its task at
** once; its late answer is thrown away. */
#include <stdlib.h>
#include <string.h>

#include "uv/address.h"

typedef struct lookup {
  uv_getaddrinfo_t request;
  ag_wait waiter;
  struct addrinfo *addresses;
  int status;
  bool answered, abandoned;
} lookup;

#define LOOKUP "agather.Lookup"

static void free_lookup(lookup *l) {
  uv_freeaddrinfo(l->addresses);
  free(l);
}

static void on_answer(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses) {
  lookup *l = (lookup *)request;
  l->answered = true;
  l->status = status;
  l->addresses = addresses;
  if (l->abandoned)
    free_lookup(l);
  else
    ag_wake(&l->waiter);
}

static void cancel_lookup(ag_wait *wait) { uv_cancel((uv_req_t *)(void *)((char *)wait - offsetof(lookup, waiter))); }

static int lookup_gc(lua_State *L) {
  lookup **box = lua_touserdata(L, 1), *l = *box;
  *box = NULL;
  if (l == NULL)
    return 0;
  l->abandoned = true;
  if (l->answered)
    free_lookup(l);
  return 0;
}

/* Stack: host, its box on top. */
static int answered(lua_State *L, int status, lua_KContext context) {
  lookup *l = (lookup *)context;
  (void)status;
  if (l->status != 0)
    return ag_uv_error(L, l->status, "look up", lua_tostring(L, 1));
  lua_newtable(L);
  int n = 0;
  for (struct addrinfo *a = l->addresses; a != NULL; a = a->ai_next) {
    ag_push_address(L, a->ai_addr);
    lua_pop(L, 1);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* uv.lookup(host [, "ipv4" or "ipv6"]): the list of its addresses, in the resolver's order. Raises OSError. */
static int uv_lookup(lua_State *L) {
  static const char *const families[] = {"any", "ipv4", "ipv6", NULL};
  static const int numbers[] = {AF_UNSPEC, AF_INET, AF_INET6};
  const char *host = ag_check_host(L, 1);
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = numbers[luaL_checkoption(L, 2, "any", families)];
  uv_loop_t *loop = ag_uv_loop(L, "lookup");
  lua_settop(L, 1);
  lookup **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, LOOKUP);
  lua_toclose(L, -1);
  lookup *l = calloc(1, sizeof *l);
  if (l == NULL)
    return luaL_error(L, "not enough memory");
  int status = uv_getaddrinfo(loop, &l->request, on_answer, host, NULL, &hints);
  if (status != 0) {
    free(l);
    return ag_uv_error(L, status, "look up", host);
  }
  *box = l;
  l->waiter.cancel = cancel_lookup;
  return ag_suspend(L, &l->waiter, (lua_KContext)l, answered);
}

void ag_open_lookup(lua_State *L) {
  static const luaL_Reg meta[] = {{"__gc", lookup_gc}, {"__close", lookup_gc}, {NULL, NULL}};
  luaL_newmetatable(L, LOOKUP);
  luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
  lua_pushcfunction(L, uv_lookup);
  lua_setfield(L, -2, "lookup");
}
