/* Sockets that listen: made, bound and given their options. Knows the system and nothing of Lua. */
#ifndef AG_UV_BIND_H
#define AG_UV_BIND_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

/* The file of a Unix socket that was made here. */
typedef struct ag_socket_file {
  dev_t device;
  ino_t inode;
  char path[108];
} ag_socket_file;

/* Each gives a descriptor that listens, or a negative error number. */
int ag_bind_tcp(const struct sockaddr *address, int backlog, bool reuseport);
/* The socket's file gets [mode]. With [replace] a socket that nobody listens on any more gives way. */
int ag_bind_unix(const char *path, int backlog, mode_t mode, bool replace, ag_socket_file *file);
/* Removes the file if it still is the one that was made. */
void ag_unlink_socket(const ag_socket_file *file);

#endif
