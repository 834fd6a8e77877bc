/* Addresses of sockets, and the two methods that tell them. */
#include "uv/address.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "uv/stream.h"

/* Room for an address of IPv6, a % and the name of an interface. */
enum { HOST_SIZE = INET6_ADDRSTRLEN + UV_IF_NAMESIZE + 2 };

/* An address of a link is nothing without its interface. */
static void append_scope(unsigned scope, char *host, size_t size) {
  size_t n = strlen(host), room = size - n - 1;
  host[n] = '%';
  if (uv_if_indextoname(scope, host + n + 1, &room) != 0)
    host[n] = '\0';
}

/* Writes the host and returns the port. */
static int split(const struct sockaddr *address, char *host, size_t size) {
  if (address->sa_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    uv_ip6_name(in6, host, size);
    if (in6->sin6_scope_id != 0)
      append_scope(in6->sin6_scope_id, host, size);
    return ntohs(in6->sin6_port);
  }
  uv_ip4_name((const struct sockaddr_in *)address, host, size);
  return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

void ag_address_text(const struct sockaddr *address, char *text, size_t size) {
  char host[HOST_SIZE] = "";
  int port = split(address, host, sizeof host);
  snprintf(text, size, address->sa_family == AF_INET6 ? "[%s]:%d" : "%s:%d", host, port);
}

int ag_push_address(lua_State *L, const struct sockaddr *address) {
  char host[HOST_SIZE] = "";
  int port = split(address, host, sizeof host);
  lua_pushstring(L, host);
  lua_pushinteger(L, port);
  return 2;
}

bool ag_address_parse(const char *host, int port, struct sockaddr_storage *address) {
  memset(address, 0, sizeof *address);
  return uv_ip4_addr(host, port, (struct sockaddr_in *)address) == 0 ||
         uv_ip6_addr(host, port, (struct sockaddr_in6 *)address) == 0;
}

const char *ag_check_host(lua_State *L, int arg) {
  size_t n;
  const char *host = luaL_checklstring(L, arg, &n);
  luaL_argcheck(L, strlen(host) == n, arg, "host name contains a zero byte");
  luaL_argcheck(L, n > 0 && n <= 253, arg, "host name must have 1 to 253 bytes");
  return host;
}

int ag_check_port(lua_State *L, int arg) {
  lua_Integer port = luaL_checkinteger(L, arg);
  luaL_argcheck(L, port >= 0 && port <= 65535, arg, "port must be from 0 to 65535");
  return (int)port;
}

const char *ag_check_path(lua_State *L, int arg) {
  size_t n;
  const char *path = luaL_checklstring(L, arg, &n);
  luaL_argcheck(L, n > 0, arg, "path must not be empty");
  luaL_argcheck(L, strlen(path) == n, arg, "path contains a zero byte");
  luaL_argcheck(L, n < sizeof((struct sockaddr_un *)0)->sun_path, arg,
                "path of a socket must have less than 108 bytes");
  return path;
}

/* uv.family(host): "ipv4", "ipv6", or nil where it is not a numeric address. */
static int uv_family(lua_State *L) {
  struct sockaddr_storage address;
  if (ag_address_parse(luaL_checkstring(L, 1), 0, &address))
    lua_pushstring(L, address.ss_family == AF_INET6 ? "ipv6" : "ipv4");
  else
    lua_pushnil(L);
  return 1;
}

void ag_open_address(lua_State *L) {
  lua_pushcfunction(L, uv_family);
  lua_setfield(L, -2, "family");
}

int ag_push_socket_address(lua_State *L, int fd, bool peer, const char *name) {
  union {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_storage storage;
  } address;
  socklen_t size = sizeof address;
  memset(&address, 0, sizeof address);
  if ((peer ? getpeername(fd, &address.any, &size) : getsockname(fd, &address.any, &size)) != 0)
    return ag_uv_error(L, -errno, peer ? "peer_address" : "local_address", name);
  if (address.any.sa_family == AF_INET || address.any.sa_family == AF_INET6)
    return ag_push_address(L, &address.any);
  lua_pushstring(L, address.local.sun_path); /* empty where it has none */
  return 1;
}

static int push_stream_address(lua_State *L, bool peer) {
  const char *operation = peer ? "peer_address" : "local_address";
  ag_stream *s = ag_stream_check_open(L, operation);
  uv_os_fd_t fd;
  int status = uv_fileno(&s->handle.any, &fd);
  return status != 0 ? ag_uv_error(L, status, operation, s->name) : ag_push_socket_address(L, fd, peer, s->name);
}

/* stream:peer_address(), stream:local_address(): host and port; of a Unix socket its path, which may be empty. */
static int peer_address(lua_State *L) { return push_stream_address(L, true); }
static int local_address(lua_State *L) { return push_stream_address(L, false); }

void ag_address_methods(lua_State *L) {
  static const luaL_Reg methods[] = {{"peer_address", peer_address}, {"local_address", local_address}, {NULL, NULL}};
  ag_stream_set_methods(L, methods);
}
