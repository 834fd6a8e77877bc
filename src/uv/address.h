/* Addresses of sockets: text and port there and back. */
#ifndef AG_UV_ADDRESS_H
#define AG_UV_ADDRESS_H

#include "uv/uv.h"

/* "127.0.0.1:80", "[::1]:80". */
void ag_address_text(const struct sockaddr *address, char *text, size_t size);
/* Pushes host and port. [-0, +2, m] */
int ag_push_address(lua_State *L, const struct sockaddr *address);
/* A numeric host (for IPv6 also with %scope) and a port; false when it is none. */
bool ag_address_parse(const char *host, int port, struct sockaddr_storage *address);
/* Check a host name and a port. Raise argument errors. */
const char *ag_check_host(lua_State *L, int arg);
int ag_check_port(lua_State *L, int arg);
/* Checks the path of a Unix socket. Raises an argument error. */
const char *ag_check_path(lua_State *L, int arg);
/* Pushes where a socket is bound, or with [peer] what it is connected to: host and port, or the path of a Unix socket.
** Raises an OSError with the address [name]. [-0, +1|2, e] */
int ag_push_socket_address(lua_State *L, int fd, bool peer, const char *name);

#endif
