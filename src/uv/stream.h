/* Streams: bytes that come and go over a libuv handle. Knows the reactor and agather.h; what opens them is in tcp.c.
** The memory of a handle outlives its userdata: libuv gives it back in the close callback.
** One task may read and one may write at a time. */
#ifndef AG_UV_STREAM_H
#define AG_UV_STREAM_H

#include "uv/uv.h"

#define STREAM "agather.Stream"
#define LISTENER "agather.Listener"

typedef struct stream {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_tcp_t tcp;
  char *data;
  size_t start, end, size; /* bytes read and not consumed: data[start, end) */
  int status;              /* what ended reading: UV_EOF or an error; 0 while open */
  int write_status;
  size_t writing; /* bytes given to libuv and not written */
  int backlog;    /* listener: connections to be accepted */
  bool reading, closed, owned;
  ag_wait reader, writer;
  uv_connect_t connect;
  uv_getaddrinfo_t lookup;
  struct addrinfo *addresses, *next;
  int connect_status; /* 1: under way */
  int port;
  bool looking;
  char address[80];
} stream;

/* Makes a stream with the metatable [type] and pushes its userdata; [what] names the operation in errors. */
stream *ag_stream_new(lua_State *L, const char *type, const char *what);
/* The stream at index 1; raises an argument error. */
stream *ag_stream_check(lua_State *L, const char *type);
/* The same; raises an OSError when it is closed. */
stream *ag_stream_check_open(lua_State *L, const char *type, const char *operation);
/* Closes the handle and wakes who waits; again is harmless. */
void ag_stream_shut(stream *s);
/* Frees the memory once the handle is closed, no look-up runs and no userdata refers to it. */
void ag_stream_free_if_unused(stream *s);
/* __gc of the userdata of streams and listeners. */
int ag_stream_gc(lua_State *L);
/* Makes the metatable STREAM with the methods that read, write and close, and leaves its methods on the stack. */
void ag_stream_open(lua_State *L);

#endif
