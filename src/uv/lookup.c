/* Look-ups on libuv's thread pool: uv_getaddrinfo and uv_getnameinfo.
** A query is one question and, once answered, its cached answer. It is on the resolver's list as long as another
** asker may share it, and is freed when it is neither there nor with libuv. */
#include "uv/lookup.h"

#include <ctype.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "uv/address.h"
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
  struct sockaddr_storage address; /* of a reverse look-up */
  char host[NAME_LIMIT + 1];       /* in lower case */
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
  if (ag_address_parse(host, 0, found)) {
    if (family != AF_UNSPEC && family != found->ss_family)
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

static int submit(void *data) {
  ag_query *q = data;
  q->request.any.data = q;
  if (q->family == REVERSE)
    return uv_getnameinfo(q->loop, &q->request.name, on_name, (const struct sockaddr *)&q->address, NI_NAMEREQD);
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = q->family;
  hints.ai_socktype = SOCK_STREAM; /* else each address comes once for every type of socket */
  return uv_getaddrinfo(q->loop, &q->request.addresses, on_addresses, q->host, NULL, &hints);
}

static int ask(resolver *r, uv_loop_t *loop, ag_lookup *lookup, const char *host, int family, int flags,
               const struct sockaddr_storage *address) {
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
    if (address != NULL)
      q->address = *address;
    int status = ag_pool_submit(submit, q);
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

int ag_lookup_reverse(lua_State *L, uv_loop_t *loop, ag_lookup *lookup, const struct sockaddr_storage *address,
                      int flags) {
  char text[NAME_LIMIT + 1];
  lookup->answer = NULL;
  lookup->query = NULL;
  ag_address_text((const struct sockaddr *)address, text, sizeof text);
  return ask(resolver_of(L), loop, lookup, text, REVERSE, flags, address);
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

/* ---- the resolver ---- */

static void forget_all(resolver *r) {
  while (r->newest != NULL)
    query_unlist(r, &r->newest);
}

void ag_lookup_forget(lua_State *L) { forget_all(resolver_of(L)); }

static int resolver_gc(lua_State *L) {
  forget_all(lua_touserdata(L, 1));
  return 0;
}

void ag_open_lookup(lua_State *L) {
  resolver *r = lua_newuserdatauv(L, sizeof *r, 0);
  memset(r, 0, sizeof *r);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, resolver_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &resolver_key);
}
