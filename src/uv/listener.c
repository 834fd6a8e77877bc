/* Listening on TCP and Unix sockets, and accepting. */
#include <stdlib.h>
#include <string.h>

#include "uv/address.h"
#include "uv/stream.h"

#define LISTENER "agather.Listener"

typedef struct listener {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  union {
    uv_handle_t any;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } handle;
  ag_wait acceptor;
  char *name;
  int pending; /* connections to be accepted */
  int status;  /* what accepting failed with, until it is told */
  bool nodelay, closed, owned;
} listener;

static void free_if_unused(listener *s) {
  if (s->owned || s->handle.any.data != NULL)
    return;
  free(s->name);
  free(s);
}

static void on_close(uv_handle_t *handle) {
  listener *s = handle->data;
  handle->data = NULL;
  s->closed = true;
  ag_wake(&s->acceptor);
  free_if_unused(s);
}

static void drop(listener *s) {
  if (s->closed)
    return;
  s->closed = true;
  if (!uv_is_closing(&s->handle.any))
    uv_close(&s->handle.any, on_close);
  ag_wake(&s->acceptor);
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

static listener *new_listener(lua_State *L, uv_handle_type type, const char *name) {
  uv_loop_t *loop = ag_uv_loop(L, "listen");
  listener **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, LISTENER);
  listener *s = calloc(1, sizeof *s);
  if (s == NULL)
    luaL_error(L, "not enough memory");
  int status = type == UV_TCP ? uv_tcp_init(loop, &s->handle.tcp) : uv_pipe_init(loop, &s->handle.pipe, 0);
  if (status != 0) {
    free(s);
    ag_uv_error(L, status, "listen", name);
  }
  s->on_close = on_close;
  s->handle.any.data = s;
  s->owned = true;
  *box = s;
  s->name = strdup(name);
  return s;
}

static void on_connection(uv_stream_t *handle, int status) {
  listener *s = handle->data;
  if (status != 0)
    s->status = status;
  else
    s->pending++;
  ag_wake(&s->acceptor);
}

/* uv.listen(host, port, backlog, nodelay): a listener. Raises OSError. */
static int uv_listen_tcp(lua_State *L) {
  const char *host = luaL_checkstring(L, 1);
  int port = ag_check_port(L, 2);
  int backlog = (int)luaL_checkinteger(L, 3);
  bool nodelay = lua_toboolean(L, 4);
  struct sockaddr_storage address;
  char name[80];
  if (!ag_address_parse(host, port, &address))
    return luaL_argerror(L, 1, lua_pushfstring(L, "numeric address expected, got '%s'", host));
  ag_address_text((struct sockaddr *)&address, name, sizeof name);
  listener *s = new_listener(L, UV_TCP, name);
  s->nodelay = nodelay;
  int status = uv_tcp_bind(&s->handle.tcp, (struct sockaddr *)&address, 0);
  if (status == 0)
    status = uv_listen(&s->handle.stream, backlog, on_connection);
  if (status != 0)
    return ag_uv_error(L, status, "listen", name);
  return 1;
}

static void cancel_accept(ag_wait *wait) { (void)wait; }

static int accepting(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  listener *s = check_open(L, "accept");
  if (s->pending > 0) {
    ag_stream *peer = ag_stream_new(L, s->handle.any.type, "accept");
    s->pending--;
    int status = uv_accept(&s->handle.stream, &peer->handle.stream);
    if (status != 0)
      return ag_uv_error(L, status, "accept", s->name);
    struct sockaddr_storage storage;
    int size = sizeof storage;
    char name[80];
    if (peer->handle.any.type != UV_TCP)
      return 1;
    if (s->nodelay)
      uv_tcp_nodelay(&peer->handle.tcp, 1);
    if (uv_tcp_getpeername(&peer->handle.tcp, (struct sockaddr *)&storage, &size) == 0) {
      ag_address_text((struct sockaddr *)&storage, name, sizeof name);
      ag_stream_name(peer, name);
    }
    return 1;
  }
  if (s->status != 0) {
    int status = s->status;
    s->status = 0;
    return ag_uv_error(L, status, "accept", s->name);
  }
  if (ag_waiting(&s->acceptor))
    return ag_error(L, "RuntimeError", "accept: another task accepts already");
  s->acceptor.cancel = cancel_accept;
  return ag_suspend(L, &s->acceptor, 0, accepting);
}

/* listener:accept(): the next connection. */
static int listener_accept(lua_State *L) {
  lua_settop(L, 1);
  return accepting(L, LUA_OK, 0);
}

static int listener_local_address(lua_State *L) {
  listener *s = check_open(L, "local_address");
  return ag_push_handle_address(L, &s->handle.any, false, s->name);
}

static int listener_close(lua_State *L) {
  listener *s = *(listener **)luaL_checkudata(L, 1, LISTENER);
  if (s != NULL)
    drop(s);
  return 0;
}

void ag_open_listener(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"accept", listener_accept}, {"local_address", listener_local_address}, {"close", listener_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", listener_gc}, {"__close", listener_close}, {NULL, NULL}};
  luaL_newmetatable(L, LISTENER);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, uv_listen_tcp);
  lua_setfield(L, -2, "listen");
}
