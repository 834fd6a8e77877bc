/* The functions for scripts that look up names and addresses: each makes its task wait for a look-up of lookup.c. */
#include <assert.h>
#include <string.h>

#include "uv/address.h"
#include "uv/lookup.h"

/* The look-up of one task: a userdata that stays on its stack. */
typedef struct waiter {
  ag_wait wait;
  ag_lookup lookup;
} waiter;

#define WAITER "agather.DnsWaiter"

static waiter *waiter_of_wait(ag_wait *wait) { return (waiter *)((char *)wait - offsetof(waiter, wait)); }

static void waiter_cancel(ag_wait *wait) { ag_lookup_clear(&waiter_of_wait(wait)->lookup); }

static void waiter_done(ag_lookup *lookup) { ag_wake(&((waiter *)((char *)lookup - offsetof(waiter, lookup)))->wait); }

static int waiter_gc(lua_State *L) {
  ag_lookup_clear(&((waiter *)lua_touserdata(L, 1))->lookup);
  return 0;
}

static waiter *waiter_new(lua_State *L) {
  waiter *w = lua_newuserdatauv(L, sizeof *w, 0);
  memset(w, 0, sizeof *w);
  w->wait.cancel = waiter_cancel;
  w->lookup.done = waiter_done;
  luaL_setmetatable(L, WAITER);
  return w;
}

static int fail(lua_State *L, int status, const char *operation) {
  if (status == UV_ENOMEM || status == UV_EAI_MEMORY)
    return luaL_error(L, "not enough memory");
  return ag_uv_error(L, status, operation, lua_tostring(L, 1));
}

/* [-0, +1, m] */
static void push_host(lua_State *L, const struct sockaddr_storage *address) {
  ag_push_address(L, (const struct sockaddr *)address);
  lua_pop(L, 1); /* there is no port */
}

/* Stack: host ..., waiter. Pushes the list of what was found, and gives up the share. */
static int push_found(lua_State *L, waiter *w, const char *operation, bool tables) {
  if (w->lookup.status != 0)
    return fail(L, w->lookup.status, operation);
  const ag_answer *answer = w->lookup.answer;
  assert(answer != NULL);
  lua_createtable(L, answer->count, 0);
  for (int i = 0; i < answer->count; i++) {
    if (tables) {
      lua_createtable(L, 0, 2);
      push_host(L, &answer->addresses[i]);
      lua_setfield(L, -2, "address");
      lua_pushstring(L, answer->addresses[i].ss_family == AF_INET6 ? "ipv6" : "ipv4");
      lua_setfield(L, -2, "family");
    } else {
      push_host(L, &answer->addresses[i]);
    }
    lua_rawseti(L, -2, i + 1);
  }
  ag_lookup_clear(&w->lookup);
  return 1;
}

static int resolved(lua_State *L, int unused, lua_KContext context) {
  (void)unused;
  return push_found(L, (waiter *)context, "resolve", true);
}

static int looked_up(lua_State *L, int unused, lua_KContext context) {
  (void)unused;
  return push_found(L, (waiter *)context, "look up", false);
}

/* Looks up the host at 1 in the family at 2; k(waiter) gives the results. */
static int look_up(lua_State *L, int flags, const char *operation, lua_KFunction k) {
  static const char *const names[] = {"any", "ipv4", "ipv6", NULL};
  static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
  const char *host = ag_check_host(L, 1);
  int family = families[luaL_checkoption(L, 2, "any", names)];
  uv_loop_t *loop = ag_uv_loop(L, operation);
  ag_suspend_check(L);
  waiter *w = waiter_new(L);
  int status = ag_lookup_start(L, loop, &w->lookup, host, family, flags);
  if (status < 0)
    return fail(L, status, operation);
  if (status > 0)
    return k(L, LUA_OK, (lua_KContext)w);
  return ag_suspend(L, &w->wait, (lua_KContext)w, k);
}

/* resolve(host [, family [, fresh]]): a list of { address = , family = }. */
static int dns_resolve(lua_State *L) {
  return look_up(L, lua_toboolean(L, 3) ? AG_LOOKUP_FRESH : 0, "resolve", resolved);
}

/* lookup(host [, family]): the same, a list of strings: for what connects. */
static int dns_lookup(lua_State *L) { return look_up(L, 0, "look up", looked_up); }

static int reversed(lua_State *L, int unused, lua_KContext context) {
  waiter *w = (waiter *)context;
  (void)unused;
  if (w->lookup.status != 0)
    return fail(L, w->lookup.status, "reverse");
  lua_pushstring(L, w->lookup.answer->name);
  ag_lookup_clear(&w->lookup);
  return 1;
}

/* reverse(address, fresh): the name of a numeric address. */
static int dns_reverse(lua_State *L) {
  const char *text = luaL_checkstring(L, 1);
  struct sockaddr_storage address;
  if (!ag_address_parse(text, 0, &address))
    return luaL_argerror(L, 1, lua_pushfstring(L, "numeric address expected, got '%s'", text));
  uv_loop_t *loop = ag_uv_loop(L, "reverse");
  ag_suspend_check(L);
  waiter *w = waiter_new(L);
  int flags = lua_toboolean(L, 2) ? AG_LOOKUP_FRESH : 0;
  int status = ag_lookup_reverse(L, loop, &w->lookup, &address, flags);
  if (status < 0)
    return fail(L, status, "reverse");
  if (status > 0)
    return reversed(L, LUA_OK, (lua_KContext)w);
  return ag_suspend(L, &w->wait, (lua_KContext)w, reversed);
}

/* clear_dns_cache(): what is asked from now on is asked anew; those who wait share their look-up still. */
static int dns_clear_cache(lua_State *L) {
  ag_lookup_forget(L);
  return 0;
}

void ag_open_dns(lua_State *L) {
  static const luaL_Reg functions[] = {{"resolve", dns_resolve},
                                       {"lookup", dns_lookup},
                                       {"reverse", dns_reverse},
                                       {"clear_dns_cache", dns_clear_cache},
                                       {NULL, NULL}};
  luaL_newmetatable(L, WAITER);
  lua_pushcfunction(L, waiter_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  ag_open_lookup(L);
  luaL_setfuncs(L, functions, 0);
}
