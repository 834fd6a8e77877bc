/* Streams: bytes that come and go over a libuv handle, which is a TCP socket, a Unix socket or a pipe. Knows the
** reactor and agather.h; what opens them is elsewhere (connect.c, listener.c).
** The memory of a handle outlives its userdata: libuv gives it back in the close callback.
** One task may read at a time. Any number may write: what one call writes stays together. */
#ifndef AG_UV_STREAM_H
#define AG_UV_STREAM_H

#include "uv/reader.h"
#include "uv/uv.h"
#include "uv/waitlist.h"

#define AG_STREAM "agather.Stream"

typedef struct ag_stream {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  union {
    uv_handle_t any;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe; /* also what a process reads or writes */
  } handle;
  ag_reader in;
  ag_wait reader;
  ag_waitlist writers;      /* who waits for what was written to go */
  char *name;               /* for errors, such as "127.0.0.1:80"; may be NULL */
  unsigned high, low;       /* marks of bytes on their way: over high a writer waits until low */
  int write_status;         /* what ended writing */
  struct ag_linger *linger; /* closed by the script, and sending the rest */
  bool reading, shut;
  bool crowded; /* data came and the reader had not yet taken what is there */
  bool closed;  /* for the script; the handle may still be open */
  bool hung_up; /* shut, and a pipe that goes one way: the handle is closed, for the script it is open */
  bool owned;   /* a userdata refers to it */
} ag_stream;

/* A stream without a userdata whose handle is an unconnected UV_TCP or UV_NAMED_PIPE. A libuv status; without memory
** UV_ENOMEM. */
int ag_stream_create(uv_loop_t *loop, uv_handle_type type, ag_stream **stream);
/* Pushes a userdata that can hold a stream and holds none yet. [-0, +1, m] */
ag_stream **ag_stream_box(lua_State *L);
/* Lets the userdata own the stream. */
void ag_stream_own(ag_stream **box, ag_stream *s);
/* The two in one; [operation] is for the error. Raises. [-0, +1, e] */
ag_stream *ag_stream_new(lua_State *L, uv_handle_type type, const char *operation);
/* Names it in errors; a copy is kept. Without memory it has no name. */
void ag_stream_name(ag_stream *s, const char *name);

/* The stream at index 1; raises an argument error. */
ag_stream *ag_stream_check(lua_State *L);
/* The same; raises an OSError when it is closed. */
ag_stream *ag_stream_check_open(lua_State *L, const char *operation);
/* The same where it was checked before a wait: only whether it is open. */
ag_stream *ag_stream_still_open(lua_State *L, const char *operation);
/* Adds methods to the table on top; within them checks are fast. The metatable must be there. [-0, +0, m] */
void ag_stream_set_methods(lua_State *L, const luaL_Reg *methods);
/* Closes the handle now, drops what was not written, and wakes who waits; again is harmless. */
void ag_stream_drop(ag_stream *s);
/* Closes it when what was written has been sent, or the peer has not read for too long. */
void ag_stream_finish(ag_stream *s);

/* Closes the handle of one that was shut and cannot be read; the script's stream stays as it is. */
void ag_stream_hang_up(ag_stream *s);

/* Its parts: each adds methods to the table on top. */
void ag_stream_write_methods(lua_State *L);
void ag_address_methods(lua_State *L);
/* What the parts need of each other. */
void ag_stream_wake_writers(ag_stream *s);
void ag_stream_end_linger(ag_stream *s);
int ag_stream_close(lua_State *L);

#endif
