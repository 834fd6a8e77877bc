/* TCP: connecting, listening, accepting, addresses. */
#include <stdlib.h>
#include <string.h>

#include "uv/stream.h"

static void format_address(stream *s, const struct sockaddr *address) {
  char host[64] = "";
  int port = 0;
  if (address->sa_family == AF_INET6) {
    uv_ip6_name((const struct sockaddr_in6 *)address, host, sizeof host);
    port = ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
  } else {
    uv_ip4_name((const struct sockaddr_in *)address, host, sizeof host);
    port = ntohs(((const struct sockaddr_in *)address)->sin_port);
  }
  snprintf(s->address, sizeof s->address, "%s:%d", host, port);
}

/* ---- connecting ---- */

static void on_connect(uv_connect_t *request, int status);

/* Tries the next address of the look-up. */
static void connect_next(stream *s) {
  while (s->next != NULL) {
    struct addrinfo *a = s->next;
    s->next = a->ai_next;
    s->connect.data = s;
    int status = uv_tcp_connect(&s->connect, &s->tcp, a->ai_addr, on_connect);
    if (status == 0)
      return;
    s->connect_status = status;
  }
  if (s->connect_status == 1)
    s->connect_status = UV_EADDRNOTAVAIL;
  ag_wake(&s->reader);
}

static void on_connect(uv_connect_t *request, int status) {
  stream *s = request->data;
  if (status == UV_ECANCELED)
    return;
  s->connect_status = status;
  if (status == 0)
    uv_tcp_nodelay(&s->tcp, 1);
  ag_wake(&s->reader);
}

static void on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *result) {
  stream *s = request->data;
  s->looking = false;
  s->addresses = s->next = result;
  if (s->closed) {
    ag_stream_free_if_unused(s);
  } else if (status != 0) {
    s->connect_status = status;
    ag_wake(&s->reader);
  } else {
    connect_next(s);
  }
}

static void cancel_connect(ag_wait *wait) {
  stream *s = (stream *)(void *)((char *)wait - offsetof(stream, reader));
  ag_stream_shut(s);
}

static int connected(lua_State *L, int status, lua_KContext context) {
  stream *s = (stream *)context;
  (void)status;
  if (s->closed)
    return ag_os_error(L, "ECANCELED", 125, "the loop closed", "connect", s->address);
  if (s->connect_status != 0) {
    int failure = s->connect_status;
    if (s->next != NULL) { /* another address: a socket that failed cannot be used again */
      struct addrinfo *addresses = s->addresses, *next = s->next;
      char address[sizeof s->address];
      memcpy(address, s->address, sizeof address);
      s->addresses = NULL;
      ag_stream_shut(s);
      stream *again = ag_stream_new(L, STREAM, "connect");
      memcpy(again->address, address, sizeof address);
      again->addresses = addresses;
      again->next = next;
      again->connect_status = 1;
      again->reader.cancel = cancel_connect;
      connect_next(again);
      if (again->connect_status != 1)
        return connected(L, LUA_OK, (lua_KContext)again);
      return ag_suspend(L, &again->reader, (lua_KContext)again, connected);
    }
    ag_stream_shut(s);
    return ag_uv_error(L, failure, "connect", s->address);
  }
  return 1;
}

static void check_name(lua_State *L, int arg) {
  size_t n;
  const char *name = luaL_checklstring(L, arg, &n);
  luaL_argcheck(L, strlen(name) == n, arg, "host name contains a zero byte");
  luaL_argcheck(L, n > 0 && n <= 253, arg, "host name must have 1 to 253 bytes");
}

static int check_port(lua_State *L, int arg) {
  lua_Integer port = luaL_checkinteger(L, arg);
  luaL_argcheck(L, port >= 0 && port <= 65535, arg, "port must be from 0 to 65535");
  return (int)port;
}

/* connect(host, port): a stream. Raises OSError. */
static int net_connect(lua_State *L) {
  check_name(L, 1);
  int port = check_port(L, 2);
  const char *host = lua_tostring(L, 1);
  stream *s = ag_stream_new(L, STREAM, "connect");
  snprintf(s->address, sizeof s->address, "%.70s:%d", host, port);
  char service[8];
  snprintf(service, sizeof service, "%d", port);
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  s->lookup.data = s;
  s->connect_status = 1;
  int status = uv_getaddrinfo(s->tcp.loop, &s->lookup, on_lookup, host, service, &hints);
  if (status != 0)
    return ag_uv_error(L, status, "connect", s->address);
  s->looking = true;
  s->reader.cancel = cancel_connect;
  return ag_suspend(L, &s->reader, (lua_KContext)s, connected);
}

/* ---- addresses ---- */

static int push_address(lua_State *L, int status, const struct sockaddr_storage *storage, stream *s) {
  if (status != 0)
    return ag_uv_error(L, status, "address", s->address);
  stream copy;
  format_address(&copy, (const struct sockaddr *)storage);
  char *colon = strrchr(copy.address, ':');
  lua_pushlstring(L, copy.address, (size_t)(colon - copy.address));
  lua_pushinteger(L, atoi(colon + 1));
  return 2;
}

static int peer_address(lua_State *L) {
  stream *s = ag_stream_check_open(L, STREAM, "peer_address");
  struct sockaddr_storage storage;
  int size = sizeof storage;
  return push_address(L, uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&storage, &size), &storage, s);
}

static int local_address_of(lua_State *L, const char *type) {
  stream *s = ag_stream_check_open(L, type, "local_address");
  struct sockaddr_storage storage;
  int size = sizeof storage;
  return push_address(L, uv_tcp_getsockname(&s->tcp, (struct sockaddr *)&storage, &size), &storage, s);
}

static int stream_local_address(lua_State *L) { return local_address_of(L, STREAM); }

/* ---- listening ---- */

static void on_connection(uv_stream_t *handle, int status) {
  stream *s = handle->data;
  if (status != 0)
    s->status = status;
  else
    s->backlog++;
  ag_wake(&s->reader);
}

/* listen(host, port): a listener. Raises OSError. The host is a numeric address, or "localhost". */
static int net_listen(lua_State *L) {
  check_name(L, 1);
  const char *host = lua_tostring(L, 1);
  int port = check_port(L, 2);
  struct sockaddr_storage storage;
  if (strcmp(host, "localhost") == 0)
    host = "127.0.0.1";
  if (uv_ip4_addr(host, port, (struct sockaddr_in *)&storage) != 0 &&
      uv_ip6_addr(host, port, (struct sockaddr_in6 *)&storage) != 0)
    return luaL_argerror(L, 1, lua_pushfstring(L, "numeric address expected, got '%s'", host));
  stream *s = ag_stream_new(L, LISTENER, "listen");
  snprintf(s->address, sizeof s->address, "%.70s:%d", host, port);
  int status = uv_tcp_bind(&s->tcp, (struct sockaddr *)&storage, 0);
  if (status == 0)
    status = uv_listen((uv_stream_t *)&s->tcp, 511, on_connection);
  if (status != 0)
    return ag_uv_error(L, status, "listen", s->address);
  return 1;
}

static void cancel_accept(ag_wait *wait) { (void)wait; }

static int accepting(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  stream *s = ag_stream_check_open(L, LISTENER, "accept");
  if (s->backlog > 0) {
    stream *peer = ag_stream_new(L, STREAM, "accept");
    s->backlog--;
    int status = uv_accept((uv_stream_t *)&s->tcp, (uv_stream_t *)&peer->tcp);
    if (status != 0)
      return ag_uv_error(L, status, "accept", s->address);
    uv_tcp_nodelay(&peer->tcp, 1);
    struct sockaddr_storage storage;
    int size = sizeof storage;
    if (uv_tcp_getpeername(&peer->tcp, (struct sockaddr *)&storage, &size) == 0)
      format_address(peer, (struct sockaddr *)&storage);
    return 1;
  }
  if (s->status != 0) {
    int status = s->status;
    s->status = 0;
    return ag_uv_error(L, status, "accept", s->address);
  }
  if (ag_waiting(&s->reader))
    return ag_error(L, "RuntimeError", "accept: another task accepts already");
  s->reader.cancel = cancel_accept;
  return ag_suspend(L, &s->reader, 0, accepting);
}

/* listener:accept(): the next connection. */
static int listener_accept(lua_State *L) {
  lua_settop(L, 1);
  return accepting(L, LUA_OK, 0);
}

static int listener_local_address(lua_State *L) { return local_address_of(L, LISTENER); }

static int listener_close(lua_State *L) {
  ag_stream_shut(ag_stream_check(L, LISTENER));
  return 0;
}

void ag_open_tcp(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"peer_address", peer_address}, {"local_address", stream_local_address}, {NULL, NULL}};
  static const luaL_Reg listener_methods[] = {
      {"accept", listener_accept}, {"local_address", listener_local_address}, {"close", listener_close}, {NULL, NULL}};
  static const luaL_Reg listener_meta[] = {{"__gc", ag_stream_gc}, {"__close", listener_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"connect", net_connect}, {"listen", net_listen}, {NULL, NULL}};
  ag_stream_open(L);
  luaL_setfuncs(L, methods, 0);
  luaL_newmetatable(L, LISTENER);
  luaL_setfuncs(L, listener_meta, 0);
  luaL_newlib(L, listener_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
  luaL_setfuncs(L, functions, 0);
}
