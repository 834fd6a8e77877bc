/* Look-ups on libuv's thread pool: uv_getaddrinfo and uv_getnameinfo.
** A query is one question and, once answered, its cached answer. It is on the resolver's list as long as another
** asker may share it, and is freed when it is neither there nor with libuv. */
#include "uv/dns.h"

#include <assert.h>
#include <ctype.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "uv/pool.h"

enum { NAME_LIMIT = 253, CACHE_LIMIT = 256 };
static const uint64_t cache_time = 5000000000u; /* nanoseconds */

/* The families that no address has: a reverse look-up. */
enum { REVERSE = -1 };

typedef struct resolver {
  struct ag_query *newest; /* pending and answered queries */
  int answered;
} resolver;

typedef struct ag_query {
  union {
    uv_getaddrinfo_t addresses;
    uv_getnameinfo_t name;
    uv_req_t any;
  } request;
  resolver *among; /* NULL: on no list, no one else will share it */
  struct ag_query *older;
  uv_loop_t *loop;           /* NULL: libuv has answered */
  ag_lookup *askers, **last; /* those who wait, and the end of their list */
  ag_answer *answer;
  uint64_t until; /* when the answer is too old */
  int family;
  char host[NAME_LIMIT + 1]; /* in lower case */
} ag_query;

static const char resolver_key = 0;

/* ---- answers ---- */

static ag_answer *answer_new(int count, size_t extra) {
  ag_answer *answer = calloc(1, sizeof *answer + (size_t)count * sizeof answer->addresses[0] + extra);
  if (answer != NULL) {
    answer->shares = 1;
    answer->count = count;
  }
  return answer;
}

static void answer_drop(ag_answer *answer) {
  if (answer != NULL && --answer->shares == 0)
    free(answer);
}

static ag_answer *answer_from(const struct addrinfo *found) {
  int count = 0;
  for (const struct addrinfo *a = found; a != NULL; a = a->ai_next)
    count += a->ai_family == AF_INET || a->ai_family == AF_INET6;
  ag_answer *answer = answer_new(count, 0);
  if (answer == NULL)
    return NULL;
  count = 0;
  for (const struct addrinfo *a = found; a != NULL; a = a->ai_next)
    if (a->ai_family == AF_INET || a->ai_family == AF_INET6)
      memcpy(&answer->addresses[count++], a->ai_addr, a->ai_addrlen);
  return answer;
}

static ag_answer *answer_named(const char *name) {
  size_t size = strlen(name) + 1;
  ag_answer *answer = answer_new(0, size);
  if (answer == NULL)
    return NULL;
  memcpy(answer->addresses, name, size);
  answer->name = (const char *)answer->addresses;
  return answer;
}

/* ---- queries ---- */

/* Frees a query that is on no list, unless libuv has it. */
static void query_release(ag_query *q) {
  if (q->loop == NULL) {
    answer_drop(q->answer);
    free(q);
  }
}

/* Takes off the list the query that [place] points to. */
static void query_unlist(resolver *r, ag_query **place) {
  ag_query *q = *place;
  *place = q->older;
  r->answered -= q->answer != NULL;
  q->among = NULL;
  query_release(q);
}

static void query_drop(ag_query *q) {
  resolver *r = q->among;
  if (r == NULL) {
    query_release(q);
    return;
  }
  ag_query **place = &r->newest;
  while (*place != q)
    place = &(*place)->older;
  query_unlist(r, place);
}

static void cache_trim(resolver *r, uint64_t now) {
  ag_query **oldest = NULL;
  for (ag_query **place = &r->newest; *place != NULL;) {
    ag_query *q = *place;
    if (q->answer != NULL && q->until <= now) {
      query_unlist(r, place);
      continue;
    }
    if (q->answer != NULL && (oldest == NULL || q->until < (*oldest)->until))
      oldest = place;
    place = &q->older;
  }
  if (r->answered > CACHE_LIMIT && oldest != NULL) /* one came, so one goes */
    query_unlist(r, oldest);
}

/* Takes a lookup off its query. */
static void leave(ag_lookup *lookup) {
  *lookup->place = lookup->next;
  *(lookup->next != NULL ? &lookup->next->place : &lookup->query->last) = lookup->place;
  lookup->query = NULL;
}

/* libuv is done with the query. Takes over [answer], which is NULL where [status] tells an error. */
static void query_answered(ag_query *q, int status, ag_answer *answer) {
  q->loop = NULL;
  q->answer = answer;
  while (q->askers != NULL) { /* one that is told may give up for another */
    ag_lookup *asker = q->askers;
    leave(asker);
    asker->status = status;
    asker->answer = answer;
    if (answer != NULL)
      answer->shares++;
    asker->done(asker);
  }
  if (answer == NULL || q->among == NULL) {
    query_drop(q);
    return;
  }
  uint64_t now = uv_hrtime();
  q->until = now + cache_time;
  q->among->answered++;
  cache_trim(q->among, now);
}

static void on_addresses(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
  ag_query *q = request->data;
  ag_answer *answer = NULL;
  if (status == 0 && (answer = answer_from(found)) == NULL)
    status = UV_ENOMEM;
  if (status == 0 && answer->count == 0) {
    answer_drop(answer);
    answer = NULL;
    status = UV_EAI_NODATA;
  }
  uv_freeaddrinfo(found);
  query_answered(q, status, answer);
}

static void on_name(uv_getnameinfo_t *request, int status, const char *name, const char *service) {
  ag_answer *answer = NULL;
  (void)service;
  if (status == 0 && (answer = answer_named(name)) == NULL)
    status = UV_ENOMEM;
  query_answered(request->data, status, answer);
}

/* ---- asking ---- */

static resolver *resolver_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &resolver_key);
  resolver *r = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return r;
}

static int parse_numeric(const char *host, struct sockaddr_storage *address) {
  if (uv_ip4_addr(host, 0, (struct sockaddr_in *)address) == 0)
    return AF_INET;
  memset(address, 0, sizeof *address);
  return uv_ip6_addr(host, 0, (struct sockaddr_in6 *)address) == 0 ? AF_INET6 : AF_UNSPEC;
}

/* Names that mean this machine (RFC 6761): neither the network nor a file is asked. */
static bool is_localhost(const char *host) {
  static const char name[] = "localhost";
  size_t size = sizeof name - 1, n = strlen(host);
  if (n > 0 && host[n - 1] == '.')
    n--;
  if (n < size || strncmp(host + n - size, name, size) != 0)
    return false;
  return n == size || host[n - size - 1] == '.';
}

/* Answers what needs no look-up: 1, or an error; 0: it needs one. */
static int answer_at_once(ag_lookup *lookup, const char *host, int family) {
  struct sockaddr_storage found[2];
  int count = 0;
  memset(found, 0, sizeof found);
  int numeric = parse_numeric(host, found);
  if (numeric != AF_UNSPEC) {
    if (family != AF_UNSPEC && family != numeric)
      return UV_EAI_ADDRFAMILY;
    count = 1;
  } else if (is_localhost(host)) {
    if (family != AF_INET6)
      uv_ip4_addr("127.0.0.1", 0, (struct sockaddr_in *)&found[count++]);
    if (family != AF_INET)
      uv_ip6_addr("::1", 0, (struct sockaddr_in6 *)&found[count++]);
  } else {
    return 0;
  }
  ag_answer *answer = answer_new(count, 0);
  if (answer == NULL)
    return UV_ENOMEM;
  memcpy(answer->addresses, found, (size_t)count * sizeof found[0]);
  lookup->answer = answer;
  lookup->status = 0;
  return 1;
}

static void join(ag_query *q, ag_lookup *lookup) {
  lookup->query = q;
  lookup->next = NULL;
  lookup->place = q->last;
  *q->last = lookup;
  q->last = &lookup->next;
}

/* A query that [lookup] can share, or NULL. Its answer may be there. */
static ag_query *find_shared(resolver *r, uv_loop_t *loop, const char *host, int family, int flags) {
  uint64_t now = uv_hrtime();
  for (ag_query *q = r->newest; q != NULL; q = q->older) {
    bool usable = q->answer != NULL ? !(flags & AG_LOOKUP_FRESH) && q->until > now : q->loop == loop;
    if (usable && q->family == family && strcmp(q->host, host) == 0)
      return q;
  }
  return NULL;
}

/* Gives [q] to libuv. */
static int query_send(ag_query *q, const struct sockaddr *address) {
  q->request.any.data = q;
  int status = ag_pool_check();
  if (status != 0)
    return status;
  if (q->family == REVERSE)
    return uv_getnameinfo(q->loop, &q->request.name, on_name, address, NI_NAMEREQD);
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = q->family;
  hints.ai_socktype = SOCK_STREAM; /* else each address comes once for every type of socket */
  return uv_getaddrinfo(q->loop, &q->request.addresses, on_addresses, q->host, NULL, &hints);
}

static int ask(resolver *r, uv_loop_t *loop, ag_lookup *lookup, const char *host, int family, int flags,
               const struct sockaddr *address) {
  ag_query *q = find_shared(r, loop, host, family, flags);
  if (q != NULL && q->answer != NULL) {
    lookup->answer = q->answer;
    lookup->answer->shares++;
    lookup->status = 0;
    return 1;
  }
  if (q == NULL) {
    q = calloc(1, sizeof *q);
    if (q == NULL)
      return UV_ENOMEM;
    q->family = family;
    q->loop = loop;
    q->last = &q->askers;
    memcpy(q->host, host, strlen(host) + 1);
    int status = query_send(q, address);
    if (status != 0) {
      free(q);
      return status;
    }
    q->among = r;
    q->older = r->newest;
    r->newest = q;
  }
  join(q, lookup);
  return 0;
}

int ag_lookup_start(lua_State *L, uv_loop_t *loop, ag_lookup *lookup, const char *host, int family, int flags) {
  char name[NAME_LIMIT + 1] = "";
  lookup->answer = NULL;
  lookup->query = NULL;
  if (strlen(host) > NAME_LIMIT) /* libuv would cut it and ask for another name */
    return UV_ENAMETOOLONG;
  for (size_t i = 0; host[i] != '\0'; i++)
    name[i] = (char)tolower((unsigned char)host[i]);
  int status = answer_at_once(lookup, name, family);
  return status != 0 ? status : ask(resolver_of(L), loop, lookup, name, family, flags, NULL);
}

void ag_lookup_clear(ag_lookup *lookup) {
  answer_drop(lookup->answer);
  lookup->answer = NULL;
  ag_query *q = lookup->query;
  if (q == NULL)
    return;
  leave(lookup);
  /* Where a thread is at it already, others may still join and the answer is kept. */
  if (q->askers == NULL && q->loop != NULL && uv_cancel(&q->request.any) == 0)
    query_drop(q);
}

/* ---- for scripts ---- */

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

/* Pushes the text of an address. [-0, +1, m] */
static void push_text(lua_State *L, const struct sockaddr_storage *address) {
  char text[INET6_ADDRSTRLEN + UV_IF_NAMESIZE + 2] = "";
  if (address->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    uv_ip6_name(in6, text, sizeof text);
    if (in6->sin6_scope_id != 0) { /* a link-local address is nothing without its interface */
      size_t n = strlen(text), room = sizeof text - n - 1;
      text[n] = '%';
      if (uv_if_indextoname(in6->sin6_scope_id, text + n + 1, &room) != 0)
        text[n] = '\0';
    }
  } else {
    uv_ip4_name((const struct sockaddr_in *)address, text, sizeof text);
  }
  lua_pushstring(L, text);
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
      push_text(L, &answer->addresses[i]);
      lua_setfield(L, -2, "address");
      lua_pushstring(L, answer->addresses[i].ss_family == AF_INET6 ? "ipv6" : "ipv4");
      lua_setfield(L, -2, "family");
    } else {
      push_text(L, &answer->addresses[i]);
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
  size_t size;
  const char *host = luaL_checklstring(L, 1, &size);
  luaL_argcheck(L, strlen(host) == size, 1, "host name contains a zero byte");
  luaL_argcheck(L, size > 0 && size <= NAME_LIMIT, 1, "host name must have 1 to 253 bytes");
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
  memset(&address, 0, sizeof address);
  if (parse_numeric(text, &address) == AF_UNSPEC)
    return luaL_argerror(L, 1, lua_pushfstring(L, "numeric address expected, got '%s'", text));
  uv_loop_t *loop = ag_uv_loop(L, "reverse");
  ag_suspend_check(L);
  waiter *w = waiter_new(L);
  char name[NAME_LIMIT + 1];
  snprintf(name, sizeof name, "%s", text);
  int flags = lua_toboolean(L, 2) ? AG_LOOKUP_FRESH : 0;
  int status = ask(resolver_of(L), loop, &w->lookup, name, REVERSE, flags, (struct sockaddr *)&address);
  if (status < 0)
    return fail(L, status, "reverse");
  if (status > 0)
    return reversed(L, LUA_OK, (lua_KContext)w);
  return ag_suspend(L, &w->wait, (lua_KContext)w, reversed);
}

/* is_address(text): whether it is a numeric address. */
static int dns_is_address(lua_State *L) {
  struct sockaddr_storage address;
  lua_pushboolean(L, parse_numeric(luaL_checkstring(L, 1), &address) != AF_UNSPEC);
  return 1;
}

static void forget_all(resolver *r) {
  while (r->newest != NULL)
    query_unlist(r, &r->newest);
}

/* clear_dns_cache(): what is asked from now on is asked anew; those who wait share their look-up still. */
static int dns_clear_cache(lua_State *L) {
  forget_all(resolver_of(L));
  return 0;
}

static int resolver_gc(lua_State *L) {
  forget_all(lua_touserdata(L, 1));
  return 0;
}

void ag_open_dns(lua_State *L) {
  static const luaL_Reg functions[] = {{"resolve", dns_resolve},
                                       {"lookup", dns_lookup},
                                       {"reverse", dns_reverse},
                                       {"is_address", dns_is_address},
                                       {"clear_dns_cache", dns_clear_cache},
                                       {NULL, NULL}};
  luaL_newmetatable(L, WAITER);
  lua_pushcfunction(L, waiter_gc);
  lua_setfield(L, -2, "__gc");
  resolver *r = lua_newuserdatauv(L, sizeof *r, 0);
  memset(r, 0, sizeof *r);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, resolver_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &resolver_key);
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
