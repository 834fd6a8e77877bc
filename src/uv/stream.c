/* How a stream lives and how it is read. Data goes from the system into the loop's one scratch buffer and from there
** into a block of its size, so a stream that has nothing to be read has no buffer. */
#include "uv/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { HIGH_WATER = 65536, BULK = 16384 };

/* ---- life ---- */

static void free_if_unused(ag_stream *s) {
  if (s->owned || s->handle.any.data != NULL)
    return;
  free(s->name);
  free(s);
}

static void on_close(uv_handle_t *handle) {
  ag_stream *s = handle->data;
  ag_stream_end_linger(s);
  handle->data = NULL;
  s->closed = s->closed || !s->hung_up;
  ag_reader_clear(&s->in);
  ag_wake(&s->reader);
  ag_stream_wake_writers(s);
  free_if_unused(s);
}

void ag_stream_drop(ag_stream *s) {
  s->closed = true;
  ag_stream_end_linger(s);
  if (s->handle.any.data != NULL && !uv_is_closing(&s->handle.any))
    uv_close(&s->handle.any, on_close);
  ag_wake(&s->reader);
  ag_stream_wake_writers(s);
}

void ag_stream_hang_up(ag_stream *s) {
  if (uv_is_closing(&s->handle.any))
    return;
  s->hung_up = true;
  uv_close(&s->handle.any, on_close);
}

int ag_stream_create(uv_loop_t *loop, uv_handle_type type, ag_stream **stream) {
  ag_stream *s = calloc(1, sizeof *s);
  if (s == NULL)
    return UV_ENOMEM;
  int status = type == UV_TCP ? uv_tcp_init(loop, &s->handle.tcp) : uv_pipe_init(loop, &s->handle.pipe, 0);
  if (status != 0) {
    free(s);
    return status;
  }
  s->on_close = on_close;
  s->handle.any.data = s;
  s->high = HIGH_WATER;
  s->low = HIGH_WATER / 4;
  ag_reader_init(&s->in, &ag_uv_shared(loop)->blocks);
  *stream = s;
  return 0;
}

ag_stream **ag_stream_box(lua_State *L) {
  ag_stream **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, AG_STREAM);
  return box;
}

void ag_stream_own(ag_stream **box, ag_stream *s) {
  s->owned = true;
  *box = s;
}

ag_stream *ag_stream_new(lua_State *L, uv_handle_type type, const char *operation) {
  uv_loop_t *loop = ag_uv_loop_for_handle(L, operation);
  ag_stream **box = ag_stream_box(L);
  ag_stream *s;
  int status = ag_stream_create(loop, type, &s);
  if (status == UV_ENOMEM)
    luaL_error(L, "not enough memory");
  if (status != 0)
    ag_uv_error(L, status, operation, NULL);
  ag_stream_own(box, s);
  return s;
}

void ag_stream_name(ag_stream *s, const char *name) {
  free(s->name);
  s->name = strdup(name);
}

/* Reached several times for each message: the metatable's address is the first upvalue of the methods. */
static ag_stream **check_box(lua_State *L) {
  if (lua_getmetatable(L, 1)) {
    bool right = lua_topointer(L, -1) == lua_touserdata(L, lua_upvalueindex(1));
    lua_pop(L, 1);
    if (right)
      return lua_touserdata(L, 1);
  }
  return luaL_checkudata(L, 1, AG_STREAM);
}

static int fail_closed(lua_State *L, const ag_stream *s, const char *operation) {
  return ag_os_error(L, "EBADF", 9, "the stream is closed", operation, s != NULL ? s->name : NULL);
}

ag_stream *ag_stream_check(lua_State *L) {
  ag_stream *s = *check_box(L);
  if (s == NULL) /* its userdata was finalized */
    fail_closed(L, s, "stream");
  return s;
}

ag_stream *ag_stream_check_open(lua_State *L, const char *operation) {
  ag_stream *s = *check_box(L);
  if (s == NULL || s->closed)
    fail_closed(L, s, operation);
  return s;
}

ag_stream *ag_stream_still_open(lua_State *L, const char *operation) {
  ag_stream *s = *(ag_stream **)lua_touserdata(L, 1);
  if (s == NULL || s->closed)
    fail_closed(L, s, operation);
  return s;
}

void ag_stream_set_methods(lua_State *L, const luaL_Reg *methods) {
  luaL_getmetatable(L, AG_STREAM);
  lua_pushlightuserdata(L, (void *)lua_topointer(L, -1));
  lua_remove(L, -2);
  luaL_setfuncs(L, methods, 1);
}

static int stream_gc(lua_State *L) {
  ag_stream **box = lua_touserdata(L, 1);
  ag_stream *s = *box;
  *box = NULL;
  if (s == NULL)
    return 0;
  s->owned = false;
  ag_stream_finish(s); /* nobody has closed it: what was written is sent all the same */
  free_if_unused(s);
  return 0;
}

static int stream_tostring(lua_State *L) {
  ag_stream *s = *(ag_stream **)luaL_checkudata(L, 1, AG_STREAM);
  const char *state = s == NULL || s->closed ? "closed " : "";
  lua_pushfstring(L, "agather.Stream (%s%s)", state, s != NULL && s->name != NULL ? s->name : "pipe");
  return 1;
}

/* ---- reading ---- */

/* Makes room in the reader itself for much of what it wants, and no more than [most]. */
static bool bulk_room(ag_reader *in, size_t most) {
  size_t missing = in->wanted - ag_reader_held(in);
  return in->size - in->end >= BULK || ag_reader_room(in, missing < most ? missing : most) != NULL;
}

/* Where little is expected the scratch buffer is read into, so that a stream keeps no more than it got. A reader that
** was woken and has not run yet takes what is there first: there is no room until then. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  ag_stream *s = handle->data;
  ag_reader *in = &s->in;
  ag_shared *shared = ag_uv_shared(handle->loop);
  size_t held = ag_reader_held(in);
  (void)suggested;
  if (held > 0 && !ag_waiting(&s->reader))
    *buf = uv_buf_init(NULL, 0);
  else if (held > 0 && in->wanted > held && in->wanted - held > BULK && bulk_room(in, shared->scratch_size))
    *buf = uv_buf_init(in->data + in->end, (unsigned)(in->size - in->end));
  else
    *buf = uv_buf_init(shared->scratch, (unsigned)shared->scratch_size);
}

/* Takes [n] bytes from the scratch buffer: copies few, and takes the buffer over where they fill most of it. */
static bool take_scratch(ag_reader *in, ag_shared *shared, size_t n) {
  size_t size = AG_LARGE_BLOCK;
  if (n >= shared->scratch_size / 2 && ag_reader_held(in) == 0) {
    char *fresh = ag_block_new(&shared->blocks, &size);
    if (fresh != NULL) {
      ag_reader_give(in, shared->scratch, shared->scratch_size, n);
      shared->scratch = fresh;
      shared->scratch_size = size;
      return true;
    }
  }
  return ag_reader_add(in, shared->scratch, n);
}

/* Nobody reads: the system keeps what comes. */
static void stop_reading(ag_stream *s) {
  if (s->reading && !s->closed)
    uv_read_stop(&s->handle.stream);
  s->reading = false;
}

/* What the end of reading is. libuv takes also a reset for the end, where data came before it in the same look: so the
** system is asked again. A write that failed may have had its answer. */
static int end_status(ag_stream *s, ssize_t n) {
  uv_os_fd_t fd;
  char byte;
  if (n != UV_EOF)
    return (int)n;
  if (s->write_status == UV_ECONNRESET || s->write_status == UV_ETIMEDOUT)
    return s->write_status;
  if (uv_fileno(&s->handle.any, &fd) == 0 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
      (errno == ECONNRESET || errno == ETIMEDOUT))
    return -errno;
  return AG_READ_END;
}

static void on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf) {
  ag_stream *s = handle->data;
  ag_reader *in = &s->in;
  ag_shared *shared = ag_uv_shared(handle->loop);
  if (n == UV_ENOBUFS &&
      buf->len == 0) { /* on_alloc had no room: once is no reason to stop, which takes system calls */
    if (s->crowded)
      stop_reading(s);
    s->crowded = true;
    return;
  }
  if (n > 0 && buf->base != shared->scratch)
    in->end += (size_t)n;
  else if (n > 0 && !take_scratch(in, shared, (size_t)n))
    in->status = UV_ENOMEM; /* what came is lost, so the stream is */
  else if (n < 0)
    in->status = end_status(s, n);
  if (in->status != 0 || !ag_waiting(&s->reader))
    stop_reading(s);
  if (in->status != 0 || ag_reader_held(in) >= in->wanted)
    ag_wake(&s->reader);
}

static void cancel_read(ag_wait *wait) {
  ag_stream *s = (ag_stream *)(void *)((char *)wait - offsetof(ag_stream, reader));
  stop_reading(s);
}

/* Stack: stream, argument, and after a wait: where to search from. The context is the kind. */
static int read_more(lua_State *L, int status, lua_KContext context) {
  ag_stream *s = ag_stream_still_open(L, "read");
  size_t searched = status == LUA_OK ? 0 : (size_t)lua_tointeger(L, 3);
  switch (ag_reader_take(L, &s->in, (ag_read_kind)context, 2, &searched)) {
  case AG_TAKEN:
    return 1;
  case AG_BROKEN:
    return ag_uv_error(L, s->in.status, "read", s->name);
  case AG_NEEDS_MORE:
    break;
  }
  if (ag_waiting(&s->reader))
    return ag_error(L, "RuntimeError", "read: another task reads from this stream already");
  if (!s->reading) {
    int failure = uv_read_start(&s->handle.stream, on_alloc, on_read);
    if (failure != 0)
      return ag_uv_error(L, failure, "read", s->name);
    s->reading = true;
  }
  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)searched);
  s->crowded = false;
  s->reader.cancel = cancel_read;
  return ag_suspend(L, &s->reader, context, read_more);
}

static int start_read(lua_State *L, ag_read_kind kind) {
  lua_settop(L, 2);
  return read_more(L, LUA_OK, kind);
}

/* stream:read([format]): "l" (the default), "L", "a", or up to n bytes; nil at the end. */
static int stream_read(lua_State *L) {
  ag_stream_check(L);
  return start_read(L, ag_read_format(L, 2));
}

/* stream:read_exactly(n): n bytes, or IncompleteReadError. */
static int stream_read_exactly(lua_State *L) {
  ag_stream_check(L);
  ag_check_count(L, 2);
  return start_read(L, AG_READ_EXACTLY);
}

/* stream:read_until(separator): what comes up to and with it, or IncompleteReadError. */
static int stream_read_until(lua_State *L) {
  ag_stream_check(L);
  ag_check_separator(L, 2);
  return start_read(L, AG_READ_UNTIL);
}

static int next_line(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  return stream_read(L);
}

/* stream:lines([format]): an iterator over read(format). */
static int stream_lines(lua_State *L) {
  ag_stream_check_open(L, "lines");
  lua_settop(L, 2);
  ag_read_format(L, 2);
  lua_pushcclosure(L, next_line, 2);
  return 1;
}

/* stream:set_limits{line=, all=}: most bytes of a line or up to a separator (64 KiB), and of "a" and read_exactly. */
static int stream_set_limits(lua_State *L) {
  ag_check_limits(L, 2, &ag_stream_check(L)->in);
  return 0;
}

/* uv.stream_name(stream): what errors call it, also when it is closed; or nil. */
static int stream_name(lua_State *L) {
  ag_stream *s = *(ag_stream **)luaL_checkudata(L, 1, AG_STREAM);
  lua_pushstring(L, s != NULL ? s->name : NULL);
  return 1;
}

/* uv.stream_lingers(stream): whether it is closed, and still sends what was written. */
static int stream_lingers(lua_State *L) {
  ag_stream *s = *(ag_stream **)luaL_checkudata(L, 1, AG_STREAM);
  lua_pushboolean(L, s != NULL && s->linger != NULL);
  return 1;
}

void ag_open_stream(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"read", stream_read},   {"read_exactly", stream_read_exactly}, {"read_until", stream_read_until},
      {"lines", stream_lines}, {"set_limits", stream_set_limits},     {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__gc", stream_gc}, {"__close", ag_stream_close}, {"__tostring", stream_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, AG_STREAM);
  luaL_setfuncs(L, meta, 0);
  luaL_getsubtable(L, -1, "__index"); /* opened again it stays: it has methods in Lua, too */
  ag_stream_set_methods(L, methods);
  ag_stream_write_methods(L);
  ag_address_methods(L);
  lua_setfield(L, -3, "stream_methods"); /* lua/agather/stream.lua adds those that are in Lua */
  lua_pop(L, 1);
  lua_pushcfunction(L, stream_name);
  lua_setfield(L, -2, "stream_name");
  lua_pushcfunction(L, stream_lingers);
  lua_setfield(L, -2, "stream_lingers");
}
