/* Connecting: to the first of several addresses that answers (RFC 8305: an attempt that takes long is joined by the
** next one, and the first connection wins), and to Unix sockets. Names are looked up elsewhere. */
#include <stdlib.h>
#include <string.h>

#include "uv/address.h"
#include "uv/stream.h"

#define RACE "agather.Race"

/* One connection to be made. The task holds it by a userdata; the timer and each attempt hold it, too. */
typedef struct race {
  uv_close_cb on_close; /* first: the reactor closes the timer through it */
  uv_timer_t timer;
  ag_wait waiter;
  unsigned holders;
  bool over; /* nobody waits for the attempts any more */
  bool nodelay;
  unsigned keepalive;       /* seconds, or 0 */
  int count, next, running; /* addresses; the next to try; attempts under way */
  int failure;              /* of the attempt that tells most */
  uint64_t stagger;         /* milliseconds */
  ag_stream *winner;
  const char *name; /* on the Lua stack of the task */
  const char *path; /* of a Unix socket, on the Lua stack: then there is one target and no address */
  struct sockaddr_storage local;
  struct target {
    union {
      struct sockaddr any;
      struct sockaddr_in v4;
      struct sockaddr_in6 v6;
    } address;
    ag_stream *s; /* while it is tried */
  } targets[];
} race;

typedef struct attempt {
  uv_connect_t request;
  race *race;
  int index;
} attempt;

static void release(race *r) {
  if (--r->holders == 0)
    free(r);
}

static void on_timer_closed(uv_handle_t *handle) { release(handle->data); }

/* Ends what is under way, but for the winner. */
static void end_race(race *r) {
  if (r->over)
    return;
  r->over = true;
  for (int i = 0; i < r->next; i++) {
    ag_stream *s = r->targets[i].s;
    r->targets[i].s = NULL;
    if (s != NULL && s != r->winner)
      ag_stream_drop(s);
  }
  if (!uv_is_closing((uv_handle_t *)&r->timer))
    uv_close((uv_handle_t *)&r->timer, on_timer_closed);
}

/* A machine without IPv6 should hear of the IPv4 address that refused. */
static void note_failure(race *r, int status) {
  bool no_route = r->failure == UV_ENETUNREACH || r->failure == UV_EHOSTUNREACH || r->failure == UV_EADDRNOTAVAIL ||
                  r->failure == UV_EAFNOSUPPORT;
  if (r->failure == 0 || no_route)
    r->failure = status;
}

static void on_connect(uv_connect_t *request, int status);

static int start_attempt(race *r, int index) {
  struct target *target = &r->targets[index];
  attempt *a = malloc(sizeof *a);
  if (a == NULL)
    return UV_ENOMEM;
  ag_stream *s = NULL;
  int status = ag_stream_create(r->timer.loop, r->path != NULL ? UV_NAMED_PIPE : UV_TCP, &s);
  if (status == 0 && r->path == NULL && r->local.ss_family == target->address.any.sa_family)
    status = uv_tcp_bind(&s->handle.tcp, (struct sockaddr *)&r->local, 0);
  a->race = r;
  a->index = index;
  if (status == 0 && r->path != NULL)
    uv_pipe_connect(&a->request, &s->handle.pipe, r->path, on_connect);
  else if (status == 0)
    status = uv_tcp_connect(&a->request, &s->handle.tcp, &target->address.any, on_connect);
  if (status != 0) {
    if (s != NULL)
      ag_stream_drop(s);
    free(a);
    return status;
  }
  target->s = s;
  r->holders++;
  r->running++;
  return 0;
}

static void on_stagger(uv_timer_t *timer);

/* Starts the next attempt that can be started; without one, and with none under way, the race is lost. */
static void go_on(race *r) {
  while (r->next < r->count) {
    int status = start_attempt(r, r->next++);
    if (status == 0) {
      if (r->next < r->count)
        uv_timer_start(&r->timer, on_stagger, r->stagger, 0);
      return;
    }
    note_failure(r, status);
  }
  if (r->running == 0) {
    end_race(r);
    ag_wake(&r->waiter);
  }
}

static void on_stagger(uv_timer_t *timer) { go_on(timer->data); }

static void on_connect(uv_connect_t *request, int status) {
  attempt *a = (attempt *)request;
  race *r = a->race;
  struct target *target = &r->targets[a->index];
  free(a);
  r->running--;
  if (!r->over && status == 0) {
    r->winner = target->s;
    end_race(r);
    ag_wake(&r->waiter);
  } else if (!r->over) {
    note_failure(r, status);
    if (status == UV_ECANCELED) { /* the loop closes */
      target->s = NULL;
      end_race(r);
      ag_wake(&r->waiter);
    } else {
      ag_stream_drop(target->s);
      target->s = NULL;
      go_on(r);
    }
  }
  release(r);
}

static void cancel_connect(ag_wait *wait) { end_race((race *)(void *)((char *)wait - offsetof(race, waiter))); }

/* Also __close: a task that was cancelled after the race was won leaves the winner here. */
static int race_gc(lua_State *L) {
  race **box = lua_touserdata(L, 1), *r = *box;
  *box = NULL;
  if (r == NULL)
    return 0;
  end_race(r);
  if (r->winner != NULL)
    ag_stream_drop(r->winner);
  release(r);
  return 0;
}

/* Stack: ..., stream's box, race's box. */
static int connected(lua_State *L, int status, lua_KContext context) {
  race *r = (race *)context;
  (void)status;
  ag_stream *s = r->winner;
  if (s == NULL)
    return ag_uv_error(L, r->failure == 0 ? UV_EADDRNOTAVAIL : r->failure, "connect", r->name);
  ag_stream_own(lua_touserdata(L, -2), s);
  r->winner = NULL;
  ag_stream_name(s, r->name);
  if (r->nodelay)
    uv_tcp_nodelay(&s->handle.tcp, 1);
  if (r->keepalive != 0)
    uv_tcp_keepalive(&s->handle.tcp, 1, r->keepalive);
  lua_pushvalue(L, -2);
  return 1;
}

/* Pushes the stream's box and a race to [count] targets. [-0, +2, e] */
static race *new_race(lua_State *L, int count) {
  uv_loop_t *loop = ag_uv_loop_for_handle(L, "connect");
  ag_stream_box(L);
  race **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, RACE);
  lua_toclose(L, -1);
  race *r = calloc(1, sizeof *r + (size_t)count * sizeof *r->targets);
  if (r == NULL)
    luaL_error(L, "not enough memory");
  r->on_close = on_timer_closed;
  uv_timer_init(loop, &r->timer);
  r->timer.data = r;
  r->holders = 2; /* the timer, the userdata */
  r->count = count;
  *box = r;
  return r;
}

static int run_race(lua_State *L, race *r) {
  go_on(r);
  if (r->over)
    return connected(L, LUA_OK, (lua_KContext)r);
  r->waiter.cancel = cancel_connect;
  return ag_suspend(L, &r->waiter, (lua_KContext)r, connected);
}

/* uv.connect(addresses, port, name, stagger, nodelay, keepalive, local_host, local_port): a stream. [addresses] is a
** list of numeric ones in the order to be tried, [stagger] the seconds that an attempt has alone, [keepalive] seconds
** or nil. Raises OSError. */
static int connect_tcp(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  int port = ag_check_port(L, 2);
  const char *name = luaL_checkstring(L, 3);
  double stagger = luaL_checknumber(L, 4);
  lua_Integer keepalive = luaL_optinteger(L, 6, 0);
  const char *local = luaL_optstring(L, 7, NULL);
  int local_port = (int)luaL_optinteger(L, 8, 0);
  lua_settop(L, 8);
  race *r = new_race(L, (int)lua_rawlen(L, 1));
  r->name = name;
  r->stagger = stagger > 0 ? (uint64_t)(stagger * 1000) : 0;
  r->nodelay = lua_toboolean(L, 5);
  r->keepalive = (unsigned)keepalive;
  if (local != NULL && !ag_address_parse(local, local_port, &r->local))
    return luaL_argerror(L, 7, lua_pushfstring(L, "numeric address expected, got '%s'", local));
  for (int i = 0; i < r->count; i++) {
    struct sockaddr_storage address;
    lua_rawgeti(L, 1, i + 1);
    if (lua_type(L, -1) != LUA_TSTRING || !ag_address_parse(lua_tostring(L, -1), port, &address))
      return luaL_argerror(L, 1, "list of numeric addresses expected");
    memcpy(&r->targets[i].address, &address, sizeof r->targets[i].address);
    lua_pop(L, 1);
  }
  return run_race(L, r);
}

/* uv.connect_unix(path): a stream. Raises OSError. */
static int connect_unix(lua_State *L) {
  const char *path = ag_check_path(L, 1);
  lua_settop(L, 1);
  race *r = new_race(L, 1);
  r->name = r->path = path;
  return run_race(L, r);
}

void ag_open_connect(lua_State *L) {
  static const luaL_Reg meta[] = {{"__gc", race_gc}, {"__close", race_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"connect", connect_tcp}, {"connect_unix", connect_unix}, {NULL, NULL}};
  luaL_newmetatable(L, RACE);
  luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
