/* UDP. The queue of what came is the system's: it is bounded (receive_buffer), and what found no place in it is counted
** by the system, too. A task that receives takes one datagram from it; nothing is kept here. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uv/address.h"
#include "uv/waitlist.h"

#define UDP "agather.UDP"

typedef struct udp {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_poll_t poll;
  ag_wait receiver;
  ag_waitlist senders; /* who waits for room in the system */
  int fd, family;
  int events; /* that are polled */
  bool connected, closed, owned;
} udp;

/* ---- life ---- */

static void free_if_unused(udp *s) {
  if (!s->owned && s->poll.data == NULL)
    free(s);
}

static void close_socket(udp *s) {
  s->closed = true;
  close(s->fd);
  ag_wake(&s->receiver);
  ag_waitlist_wake(&s->senders, 0);
}

static void on_close(uv_handle_t *handle) {
  udp *s = handle->data;
  handle->data = NULL;
  if (!s->closed) /* it was the loop that closed */
    close_socket(s);
  free_if_unused(s);
}

static void drop(udp *s) {
  if (s->closed || uv_is_closing((uv_handle_t *)&s->poll))
    return;
  uv_close((uv_handle_t *)&s->poll, on_close);
  close_socket(s);
}

static int udp_gc(lua_State *L) {
  udp **box = lua_touserdata(L, 1), *s = *box;
  *box = NULL;
  if (s == NULL)
    return 0;
  s->owned = false;
  if (!s->closed)
    drop(s);
  else
    free_if_unused(s);
  return 0;
}

static udp *check_open(lua_State *L, const char *operation) {
  udp *s = *(udp **)luaL_checkudata(L, 1, UDP);
  if (s == NULL || s->closed)
    ag_os_error(L, "EBADF", 9, "the socket is closed", operation, NULL);
  return s;
}

/* ---- waiting ---- */

static void on_ready(uv_poll_t *poll, int status, int events);

/* Polls for what somebody waits for. */
static int update_poll(udp *s) {
  int events = (ag_waiting(&s->receiver) ? UV_READABLE : 0) | (s->senders.first != NULL ? UV_WRITABLE : 0);
  if (events == s->events)
    return 0;
  int status = events == 0 ? uv_poll_stop(&s->poll) : uv_poll_start(&s->poll, events, on_ready);
  if (status == 0)
    s->events = events;
  return status;
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  udp *s = poll->data;
  bool stale = (events & UV_READABLE) && !ag_waiting(&s->receiver); /* keep polling for one who comes back at once */
  if (status != 0 || (events & UV_READABLE))
    ag_wake(&s->receiver);
  if (status != 0 || (events & UV_WRITABLE))
    ag_waitlist_wake(&s->senders, 0);
  if (status != 0 || stale || (events & UV_WRITABLE))
    update_poll(s);
}

static void cancel_receive(ag_wait *wait) {
  udp *s = (udp *)(void *)((char *)wait - offsetof(udp, receiver));
  if (!s->closed)
    update_poll(s);
}

/* ---- receiving and sending ---- */

static int receive(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  udp *s = check_open(L, "recv");
  ag_shared *shared = ag_uv_shared(s->poll.loop);
  struct sockaddr_storage from;
  ssize_t n;
  do {
    socklen_t size = sizeof from;
    from.ss_family = AF_UNSPEC;
    n = recvfrom(s->fd, shared->scratch, shared->scratch_size, 0, (struct sockaddr *)&from, &size);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) {
    lua_pushlstring(L, shared->scratch, (size_t)n);
    return 1 + ag_push_address(L, (struct sockaddr *)&from);
  }
  if (errno != EAGAIN && errno != EWOULDBLOCK)
    return ag_uv_error(L, -errno, "recv", NULL);
  if (ag_waiting(&s->receiver))
    return ag_error(L, "RuntimeError", "recv: another task receives from this socket already");
  if (!(s->events & UV_READABLE)) {
    int status = uv_poll_start(&s->poll, s->events | UV_READABLE, on_ready);
    if (status != 0)
      return ag_uv_error(L, status, "recv", NULL);
    s->events |= UV_READABLE;
  }
  s->receiver.cancel = cancel_receive;
  return ag_suspend(L, &s->receiver, 0, receive);
}

/* socket:recv(): the next datagram, and the host and port that it came from. Raises OSError: on a connected socket
** also ECONNREFUSED, where nobody listens at the other side. */
static int udp_recv(lua_State *L) {
  check_open(L, "recv");
  lua_settop(L, 1);
  return receive(L, LUA_OK, 0);
}

/* Stack: socket, data, host, port. */
static int send_now(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  udp *s = check_open(L, "send");
  lua_settop(L, 4);
  size_t size;
  const char *data = lua_tolstring(L, 2, &size);
  struct sockaddr_storage to;
  socklen_t to_size = 0;
  if (!lua_isnil(L, 3)) {
    ag_address_parse(lua_tostring(L, 3), (int)lua_tointeger(L, 4), &to);
    to_size = to.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
  }
  ssize_t n;
  do
    n = sendto(s->fd, data, size, MSG_NOSIGNAL, to_size > 0 ? (struct sockaddr *)&to : NULL, to_size);
  while (n < 0 && errno == EINTR);
  if (n >= 0)
    return 0;
  if (errno != EAGAIN && errno != EWOULDBLOCK) {
    int number = errno;
    char name[80] = "";
    if (to_size > 0)
      ag_address_text((struct sockaddr *)&to, name, sizeof name);
    return ag_uv_error(L, -number, "send", name[0] != '\0' ? name : NULL);
  }
  ag_waitlist_prepare(L);
  check_open(L, "send");
  if (!(s->events & UV_WRITABLE)) {
    int status = uv_poll_start(&s->poll, s->events | UV_WRITABLE, on_ready);
    if (status != 0)
      return ag_uv_error(L, status, "send", NULL);
    s->events |= UV_WRITABLE;
  }
  return ag_waitlist_suspend(L, &s->senders, 0, 0, send_now);
}

/* socket:send(data [, host, port]): sends a datagram; waits where the system has no room. The host is a numeric address
** and can be left out on a connected socket. Raises OSError. */
static int udp_send(lua_State *L) {
  udp *s = check_open(L, "send");
  struct sockaddr_storage to;
  luaL_checkstring(L, 2);
  lua_settop(L, 4);
  if (lua_isnil(L, 3)) {
    luaL_argcheck(L, s->connected, 3, "the socket is not connected: host and port expected");
  } else {
    int port = ag_check_port(L, 4);
    const char *host = ag_check_host(L, 3);
    if (!ag_address_parse(host, port, &to))
      return luaL_argerror(L, 3, lua_pushfstring(L, "numeric address expected, got '%s'", host));
    luaL_argcheck(L, to.ss_family == s->family, 3, "address is of another family than the socket");
  }
  return send_now(L, LUA_OK, 0);
}

/* ---- the rest ---- */

/* socket:local_address(), socket:peer_address(): host and port; peer_address of a connected one. */
static int udp_local_address(lua_State *L) {
  return ag_push_socket_address(L, check_open(L, "local_address")->fd, false, NULL);
}

static int udp_peer_address(lua_State *L) {
  return ag_push_socket_address(L, check_open(L, "peer_address")->fd, true, NULL);
}

/* socket:dropped(): how many datagrams came and found the queue full. */
static int udp_dropped(lua_State *L) {
  udp *s = check_open(L, "dropped");
  uint32_t values[SK_MEMINFO_VARS] = {0};
  socklen_t size = sizeof values;
  if (getsockopt(s->fd, SOL_SOCKET, SO_MEMINFO, values, &size) != 0)
    return ag_uv_error(L, -errno, "dropped", NULL);
  lua_pushinteger(L, values[SK_MEMINFO_DROPS]);
  return 1;
}

/* socket:close(): whoever receives or sends gets an OSError (EBADF). Twice is harmless. */
static int udp_close(lua_State *L) {
  udp *s = *(udp **)luaL_checkudata(L, 1, UDP);
  if (s != NULL)
    drop(s);
  return 0;
}

/* ---- opening ---- */

/* Sets up the new socket; 0 or a negative error number. */
static int set_up(int fd, const struct sockaddr_storage *local, const struct sockaddr_storage *remote, bool reuseport,
                  bool broadcast, int receive_buffer) {
  int on = 1;
  socklen_t size = local->ss_family == AF_INET6 || remote->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                                                 : sizeof(struct sockaddr_in);
  if ((reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
      (broadcast && setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) != 0) ||
      (receive_buffer > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer) != 0) ||
      (local->ss_family != AF_UNSPEC && bind(fd, (const struct sockaddr *)local, size) != 0) ||
      (remote->ss_family != AF_UNSPEC && connect(fd, (const struct sockaddr *)remote, size) != 0))
    return -errno;
  return 0;
}

/* The optional address at [arg] and its port after it. */
static void check_address(lua_State *L, int arg, struct sockaddr_storage *address) {
  memset(address, 0, sizeof *address);
  if (lua_isnoneornil(L, arg))
    return;
  const char *host = luaL_checkstring(L, arg);
  if (!ag_address_parse(host, ag_check_port(L, arg + 1), address))
    luaL_argerror(L, arg, lua_pushfstring(L, "numeric address expected, got '%s'", host));
}

/* uv.udp(ipv6, local_host, local_port, remote_host, remote_port, reuseport, broadcast, receive_buffer): a socket.
** Raises OSError. */
static int open_udp(lua_State *L) {
  struct sockaddr_storage local, remote;
  check_address(L, 2, &local);
  check_address(L, 4, &remote);
  int family = lua_toboolean(L, 1) ? AF_INET6 : AF_INET;
  char name[80] = "";
  if (remote.ss_family != AF_UNSPEC || local.ss_family != AF_UNSPEC)
    ag_address_text((struct sockaddr *)(remote.ss_family != AF_UNSPEC ? &remote : &local), name, sizeof name);
  uv_loop_t *loop = ag_uv_loop_for_handle(L, "udp");
  udp **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, UDP);
  udp *s = calloc(1, sizeof *s);
  if (s == NULL)
    return luaL_error(L, "not enough memory");
  int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int status =
      fd < 0 ? -errno
             : set_up(fd, &local, &remote, lua_toboolean(L, 6), lua_toboolean(L, 7), (int)luaL_optinteger(L, 8, 0));
  if (status == 0)
    status = uv_poll_init(loop, &s->poll, fd);
  if (status != 0) {
    free(s);
    if (fd >= 0)
      close(fd);
    return ag_uv_error(L, status, "udp", name[0] != '\0' ? name : NULL);
  }
  s->on_close = on_close;
  s->poll.data = s;
  s->fd = fd;
  s->family = family;
  s->connected = remote.ss_family != AF_UNSPEC;
  s->owned = true;
  *box = s;
  return 1;
}

void ag_open_udp(lua_State *L) {
  static const luaL_Reg methods[] = {{"recv", udp_recv},
                                     {"send", udp_send},
                                     {"local_address", udp_local_address},
                                     {"peer_address", udp_peer_address},
                                     {"dropped", udp_dropped},
                                     {"close", udp_close},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", udp_gc}, {"__close", udp_close}, {NULL, NULL}};
  luaL_newmetatable(L, UDP);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, open_udp);
  lua_setfield(L, -2, "udp");
}
