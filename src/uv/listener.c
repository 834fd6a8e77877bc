/* Listeners: accepting connections on TCP and Unix sockets. The descriptor is accepted by the task that asks, so
** running out of descriptors is an error of accept() and the connections wait in the system until there are some
** again. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uv/address.h"
#include "uv/bind.h"
#include "uv/stream.h"

#define LISTENER "agather.Listener"

typedef struct listener {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_poll_t poll;
  ag_wait acceptor;
  int fd;
  bool polling, closed, owned;
  bool nodelay;
  unsigned keepalive; /* seconds, or 0 */
  char *name;
  ag_socket_file *file; /* of a Unix socket, or NULL */
} listener;

/* ---- life ---- */

static void free_if_unused(listener *s) {
  if (s->owned || s->poll.data != NULL)
    return;
  free(s->name);
  free(s->file);
  free(s);
}

static void close_socket(listener *s) {
  s->closed = true;
  if (s->file != NULL)
    ag_unlink_socket(s->file);
  close(s->fd);
  ag_wake(&s->acceptor);
}

static void on_close(uv_handle_t *handle) {
  listener *s = handle->data;
  handle->data = NULL;
  if (!s->closed) /* it was the loop that closed */
    close_socket(s);
  free_if_unused(s);
}

static void drop(listener *s) {
  if (s->closed || uv_is_closing((uv_handle_t *)&s->poll))
    return;
  uv_close((uv_handle_t *)&s->poll, on_close);
  close_socket(s);
}

static int listener_gc(lua_State *L) {
  listener **box = lua_touserdata(L, 1), *s = *box;
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

static listener *check_open(lua_State *L, const char *operation) {
  listener *s = *(listener **)luaL_checkudata(L, 1, LISTENER);
  if (s == NULL || s->closed)
    ag_os_error(L, "EBADF", 9, "the listener is closed", operation, s != NULL ? s->name : NULL);
  return s;
}

/* Takes the listening descriptor [fd], and [file] or NULL, into the box at the top, which stays; gives both back when
** that fails. */
static listener *own_socket(lua_State *L, uv_loop_t *loop, int fd, const char *name, ag_socket_file *file) {
  listener **box = lua_touserdata(L, -1);
  listener *s = calloc(1, sizeof *s);
  int status = s == NULL ? UV_ENOMEM : uv_poll_init(loop, &s->poll, fd);
  if (status != 0) {
    if (file != NULL)
      ag_unlink_socket(file);
    free(file);
    close(fd);
    free(s);
    if (status == UV_ENOMEM)
      luaL_error(L, "not enough memory");
    ag_uv_error(L, status, "listen", name);
  }
  s->on_close = on_close;
  s->poll.data = s;
  s->fd = fd;
  s->owned = true;
  s->file = file;
  s->name = strdup(name);
  *box = s;
  return s;
}

static void new_box(lua_State *L) {
  listener **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, LISTENER);
}

/* uv.listen(host, port, backlog, reuseport, nodelay, keepalive): a listener. Raises OSError. */
static int listen_tcp(lua_State *L) {
  const char *host = luaL_checkstring(L, 1);
  int port = ag_check_port(L, 2);
  int backlog = (int)luaL_checkinteger(L, 3);
  bool reuseport = lua_toboolean(L, 4), nodelay = lua_toboolean(L, 5);
  unsigned keepalive = (unsigned)luaL_optinteger(L, 6, 0);
  struct sockaddr_storage address;
  char name[80];
  if (!ag_address_parse(host, port, &address))
    return luaL_argerror(L, 1, lua_pushfstring(L, "numeric address expected, got '%s'", host));
  ag_address_text((struct sockaddr *)&address, name, sizeof name);
  uv_loop_t *loop = ag_uv_loop_for_handle(L, "listen");
  new_box(L);
  int fd = ag_bind_tcp((struct sockaddr *)&address, backlog, reuseport);
  if (fd < 0)
    return ag_uv_error(L, fd, "listen", name);
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size) == 0) /* which port 0 became */
    ag_address_text((struct sockaddr *)&address, name, sizeof name);
  listener *s = own_socket(L, loop, fd, name, NULL);
  s->nodelay = nodelay;
  s->keepalive = keepalive;
  return 1;
}

/* uv.listen_unix(path, backlog, mode, replace): a listener. Raises OSError. */
static int listen_unix(lua_State *L) {
  const char *path = ag_check_path(L, 1);
  int backlog = (int)luaL_checkinteger(L, 2);
  mode_t mode = (mode_t)luaL_checkinteger(L, 3);
  bool replace = lua_toboolean(L, 4);
  uv_loop_t *loop = ag_uv_loop_for_handle(L, "listen");
  new_box(L);
  ag_socket_file *file = malloc(sizeof *file);
  if (file == NULL)
    return luaL_error(L, "not enough memory");
  int fd = ag_bind_unix(path, backlog, mode, replace, file);
  if (fd < 0) {
    free(file);
    return ag_uv_error(L, fd, "listen", path);
  }
  own_socket(L, loop, fd, path, file);
  return 1;
}

/* ---- accepting ---- */

static void on_ready(uv_poll_t *poll, int status, int events) {
  listener *s = poll->data;
  (void)status, (void)events; /* an error shows in accept */
  if (!ag_waiting(&s->acceptor)) {
    uv_poll_stop(poll);
    s->polling = false;
  }
  ag_wake(&s->acceptor);
}

static void cancel_accept(ag_wait *wait) {
  listener *s = (listener *)(void *)((char *)wait - offsetof(listener, acceptor));
  if (s->polling && !s->closed)
    uv_poll_stop(&s->poll);
  s->polling = false;
}

/* Fills the stream's box at the top with the connection [fd], which it closes when that fails. */
static int take_connection(lua_State *L, listener *s, int fd, const struct sockaddr *address) {
  ag_stream *peer;
  bool tcp = s->file == NULL;
  int status = ag_stream_create(s->poll.loop, tcp ? UV_TCP : UV_NAMED_PIPE, &peer);
  if (status == 0) {
    status = tcp ? uv_tcp_open(&peer->handle.tcp, fd) : uv_pipe_open(&peer->handle.pipe, fd);
    if (status != 0)
      ag_stream_drop(peer);
  }
  if (status != 0) {
    close(fd);
    return status == UV_ENOMEM ? luaL_error(L, "not enough memory") : ag_uv_error(L, status, "accept", s->name);
  }
  ag_stream_own(lua_touserdata(L, -1), peer);
  if (tcp) {
    char name[80];
    ag_address_text(address, name, sizeof name);
    ag_stream_name(peer, name);
    if (s->nodelay)
      uv_tcp_nodelay(&peer->handle.tcp, 1);
    if (s->keepalive != 0)
      uv_tcp_keepalive(&peer->handle.tcp, 1, s->keepalive);
  } else if (s->name != NULL) {
    ag_stream_name(peer, s->name);
  }
  return 1;
}

/* Whether accept told an error of the connection, which is gone, and not of the listener: accept(2) has the list. */
static bool is_of_connection(int number) {
  switch (number) {
  case EINTR:
  case ECONNABORTED:
  case EPERM: /* a firewall's */
  case EPROTO:
  case ENETDOWN:
  case ENETUNREACH:
  case ENONET:
  case ENOPROTOOPT:
  case EHOSTDOWN:
  case EHOSTUNREACH:
    return true;
  default:
    return false;
  }
}

/* Stack: listener, the stream's box. */
static int accepting(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  listener *s = check_open(L, "accept");
  ag_uv_loop_for_handle(L, "accept");
  struct sockaddr_storage address;
  int fd;
  do {
    socklen_t size = sizeof address;
    fd = accept4(s->fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (fd < 0 && is_of_connection(errno));
  if (fd >= 0)
    return take_connection(L, s, fd, (struct sockaddr *)&address);
  if (errno != EAGAIN && errno != EWOULDBLOCK)
    return ag_uv_error(L, -errno, "accept", s->name);
  if (ag_waiting(&s->acceptor))
    return ag_error(L, "RuntimeError", "accept: another task accepts already");
  if (!s->polling) {
    int status = uv_poll_start(&s->poll, UV_READABLE, on_ready);
    if (status != 0)
      return ag_uv_error(L, status, "accept", s->name);
    s->polling = true;
  }
  s->acceptor.cancel = cancel_accept;
  return ag_suspend(L, &s->acceptor, 0, accepting);
}

/* listener:accept(): the next connection. Raises OSError: with EMFILE the connection waits, and another accept may
** get it. */
static int listener_accept(lua_State *L) {
  check_open(L, "accept");
  lua_settop(L, 1);
  ag_stream_box(L);
  return accepting(L, LUA_OK, 0);
}

/* listener:local_address(): host and port, or the path of a Unix socket. */
static int listener_local_address(lua_State *L) {
  listener *s = check_open(L, "local_address");
  return ag_push_socket_address(L, s->fd, false, s->name);
}

/* listener:close(): whoever accepts gets an OSError (EBADF). Twice is harmless. */
static int listener_close(lua_State *L) {
  listener *s = *(listener **)luaL_checkudata(L, 1, LISTENER);
  if (s != NULL)
    drop(s);
  return 0;
}

static int listener_tostring(lua_State *L) {
  listener *s = *(listener **)luaL_checkudata(L, 1, LISTENER);
  lua_pushfstring(L, "agather.Listener (%s%s)", s == NULL || s->closed ? "closed " : "",
                  s != NULL && s->name != NULL ? s->name : "");
  return 1;
}

void ag_open_listener(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"accept", listener_accept}, {"local_address", listener_local_address}, {"close", listener_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__gc", listener_gc}, {"__close", listener_close}, {"__tostring", listener_tostring}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"listen", listen_tcp}, {"listen_unix", listen_unix}, {NULL, NULL}};
  luaL_newmetatable(L, LISTENER);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
