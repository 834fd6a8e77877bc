/* Reading with Lua's formats, writing with back-pressure, closing. */
#include "uv/stream.h"

#include <stdlib.h>
#include <string.h>

enum { READ_CHUNK = 65536, READ_LIMIT = 1 << 20, HIGH_WATER = 65536 };

typedef struct write_request {
  uv_write_t request;
  stream *s;
  size_t size;
  char data[];
} write_request;

void ag_stream_free_if_unused(stream *s) {
  if (s->closed && !s->owned && !s->looking && s->tcp.data == NULL) {
    uv_freeaddrinfo(s->addresses);
    free(s->data);
    free(s);
  }
}

static void on_close(uv_handle_t *handle) {
  stream *s = (stream *)handle->data;
  handle->data = NULL;
  s->closed = true;
  ag_wake(&s->reader);
  ag_wake(&s->writer);
  ag_stream_free_if_unused(s);
}

void ag_stream_shut(stream *s) {
  if (s->closed)
    return;
  s->closed = true;
  if (!uv_is_closing((uv_handle_t *)&s->tcp))
    uv_close((uv_handle_t *)&s->tcp, on_close);
  ag_wake(&s->reader);
  ag_wake(&s->writer);
}

/* Makes a stream with the metatable [type]; pushes its userdata. */
stream *ag_stream_new(lua_State *L, const char *type, const char *what) {
  uv_loop_t *loop = ag_uv_loop(L, what);
  stream **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, type);
  stream *s = calloc(1, sizeof *s);
  if (s == NULL)
    luaL_error(L, "not enough memory");
  int status = uv_tcp_init(loop, &s->tcp);
  if (status != 0) {
    free(s);
    ag_uv_error(L, status, what, NULL);
  }
  s->on_close = on_close;
  s->tcp.data = s;
  s->owned = true;
  *box = s;
  return s;
}

stream *ag_stream_check(lua_State *L, const char *type) { return *(stream **)luaL_checkudata(L, 1, type); }

stream *ag_stream_check_open(lua_State *L, const char *type, const char *operation) {
  stream *s = ag_stream_check(L, type);
  if (s->closed)
    ag_os_error(L, "EBADF", 9, "the stream is closed", operation, s->address[0] ? s->address : NULL);
  return s;
}

int ag_stream_gc(lua_State *L) {
  stream **box = lua_touserdata(L, 1);
  stream *s = *box;
  *box = NULL;
  if (s == NULL)
    return 0;
  s->owned = false;
  if (!s->closed)
    ag_stream_shut(s);
  else
    ag_stream_free_if_unused(s);
  return 0;
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  stream *s = handle->data;
  (void)suggested;
  if (s->start > 0) {
    memmove(s->data, s->data + s->start, s->end - s->start);
    s->end -= s->start;
    s->start = 0;
  }
  if (s->size - s->end < READ_CHUNK / 16) {
    size_t size = s->size ? s->size * 2 : READ_CHUNK / 16 * 2;
    char *data = realloc(s->data, size);
    if (data == NULL) {
      *buf = uv_buf_init(NULL, 0); /* libuv answers UV_ENOBUFS */
      return;
    }
    s->data = data;
    s->size = size;
  }
  *buf = uv_buf_init(s->data + s->end, (unsigned)(s->size - s->end));
}

static void on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf) {
  stream *s = handle->data;
  (void)buf;
  if (n > 0)
    s->end += (size_t)n;
  else if (n < 0)
    s->status = (int)n;
  if (n < 0 || !ag_waiting(&s->reader) || s->end - s->start >= READ_LIMIT) {
    uv_read_stop(handle);
    s->reading = false;
  }
  ag_wake(&s->reader);
}

static void cancel_read(ag_wait *wait) {
  stream *s = (stream *)(void *)((char *)wait - offsetof(stream, reader));
  if (s->reading && !s->closed)
    uv_read_stop((uv_stream_t *)&s->tcp);
  s->reading = false;
}

enum read_kind { READ_LINE, READ_LINE_KEPT, READ_ALL, READ_SOME, READ_EXACTLY, READ_UNTIL };

/* Stack: stream, kind, n or separator, where to search from. */
static int read_more(lua_State *L, int status, lua_KContext context);

static int wait_read(lua_State *L, stream *s) {
  if (ag_waiting(&s->reader))
    return ag_error(L, "RuntimeError", "read: another task reads from this stream already");
  if (!s->reading) {
    int status = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
    if (status != 0)
      return ag_uv_error(L, status, "read", s->address);
    s->reading = true;
  }
  s->reader.cancel = cancel_read;
  return ag_suspend(L, &s->reader, 0, read_more);
}

static int take(lua_State *L, stream *s, size_t n, size_t skip) {
  lua_pushlstring(L, s->data != NULL ? s->data + s->start : "", n);
  s->start += n + skip;
  if (s->start == s->end)
    s->start = s->end = 0;
  return 1;
}

static int incomplete(lua_State *L, stream *s, const char *what) {
  lua_pushfstring(L, "read %s: the stream ended after %d bytes", what, (int)(s->end - s->start));
  return ag_error(L, "IncompleteReadError", lua_tostring(L, -1));
}

static int read_more(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  stream *s = ag_stream_check_open(L, STREAM, "read");
  size_t have = s->end - s->start;
  const char *data = s->data != NULL ? s->data + s->start : "";
  enum read_kind kind = (enum read_kind)lua_tointeger(L, 2);
  bool over = s->status != 0;
  if (over && s->status != UV_EOF && have == 0)
    return ag_uv_error(L, s->status, "read", s->address);
  switch (kind) {
  case READ_LINE:
  case READ_LINE_KEPT: {
    size_t from = (size_t)lua_tointeger(L, 4);
    const char *found = have > from ? memchr(data + from, '\n', have - from) : NULL;
    if (found != NULL) {
      size_t n = (size_t)(found - data);
      return kind == READ_LINE ? take(L, s, n, 1) : take(L, s, n + 1, 0);
    }
    if (over && have > 0)
      return take(L, s, have, 0);
    break;
  }
  case READ_ALL:
    if (over)
      return take(L, s, have, 0);
    break;
  case READ_SOME: {
    size_t n = (size_t)lua_tointeger(L, 3);
    if (have > 0 || n == 0)
      return take(L, s, have < n ? have : n, 0);
    break;
  }
  case READ_EXACTLY: {
    size_t n = (size_t)lua_tointeger(L, 3);
    if (have >= n)
      return take(L, s, n, 0);
    if (over)
      return incomplete(L, s, "exactly");
    break;
  }
  case READ_UNTIL: {
    size_t n;
    const char *separator = lua_tolstring(L, 3, &n);
    size_t from = (size_t)lua_tointeger(L, 4);
    for (from = from > n ? from - n : 0; from + n <= have; from++)
      if (memcmp(data + from, separator, n) == 0)
        return take(L, s, from + n, 0);
    if (over)
      return incomplete(L, s, "until separator");
    break;
  }
  }
  if (over) { /* the end, and nothing left */
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, (lua_Integer)have);
  lua_replace(L, 4);
  return wait_read(L, s);
}

static int start_read(lua_State *L, enum read_kind kind) {
  lua_settop(L, 2); /* stream, argument */
  lua_pushinteger(L, kind);
  lua_insert(L, 2);
  lua_pushinteger(L, 0);
  return read_more(L, LUA_OK, 0);
}

/* stream:read([format]): "l" (the default), "L", "a", or up to n bytes; nil at the end. */
static int stream_read(lua_State *L) {
  ag_stream_check_open(L, STREAM, "read");
  if (lua_type(L, 2) == LUA_TNUMBER) {
    luaL_argcheck(L, luaL_checkinteger(L, 2) >= 0, 2, "number of bytes must not be negative");
    return start_read(L, READ_SOME);
  }
  const char *format = luaL_optstring(L, 2, "l");
  if (*format == '*')
    format++;
  switch (*format) {
  case 'l':
    return start_read(L, READ_LINE);
  case 'L':
    return start_read(L, READ_LINE_KEPT);
  case 'a':
    return start_read(L, READ_ALL);
  default:
    return luaL_argerror(L, 2, "invalid format (\"l\", \"L\", \"a\" or a number expected)");
  }
}

/* stream:read_exactly(n): n bytes, or IncompleteReadError. */
static int stream_read_exactly(lua_State *L) {
  ag_stream_check_open(L, STREAM, "read");
  luaL_argcheck(L, luaL_checkinteger(L, 2) >= 0, 2, "number of bytes must not be negative");
  return start_read(L, READ_EXACTLY);
}

/* stream:read_until(separator): what comes up to and with it, or IncompleteReadError. */
static int stream_read_until(lua_State *L) {
  ag_stream_check_open(L, STREAM, "read");
  size_t n;
  luaL_checklstring(L, 2, &n);
  luaL_argcheck(L, n > 0, 2, "separator must not be empty");
  return start_read(L, READ_UNTIL);
}

static int next_line(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  return stream_read(L);
}

/* stream:lines([format]): an iterator over read(format). */
static int stream_lines(lua_State *L) {
  ag_stream_check_open(L, STREAM, "read");
  lua_settop(L, 2);
  lua_pushcclosure(L, next_line, 2);
  return 1;
}

/* ---- writing ---- */

static void on_write(uv_write_t *request, int status) {
  write_request *w = (write_request *)request;
  stream *s = w->s;
  s->writing -= w->size;
  if (status != 0 && s->write_status == 0)
    s->write_status = status;
  free(w);
  if (s->writing <= HIGH_WATER || status != 0)
    ag_wake(&s->writer);
}

static void cancel_write(ag_wait *wait) { (void)wait; }

static int written(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  stream *s = ag_stream_check_open(L, STREAM, "write");
  if (s->write_status != 0)
    return ag_uv_error(L, s->write_status, "write", s->address);
  lua_settop(L, 1);
  return 1;
}

/* stream:write(...): writes strings and numbers; waits while too much is on its way. Returns the stream. */
static int stream_write(lua_State *L) {
  stream *s = ag_stream_check_open(L, STREAM, "write");
  int n = lua_gettop(L);
  for (int i = 2; i <= n; i++)
    luaL_checkstring(L, i);
  if (s->write_status != 0)
    return ag_uv_error(L, s->write_status, "write", s->address);
  for (int i = 2; i <= n; i++) {
    size_t size;
    const char *data = lua_tolstring(L, i, &size);
    if (s->writing == 0 && size > 0) {
      uv_buf_t buf = uv_buf_init((char *)data, (unsigned)size);
      int done = uv_try_write((uv_stream_t *)&s->tcp, &buf, 1);
      if (done < 0 && done != UV_EAGAIN)
        return ag_uv_error(L, done, "write", s->address);
      if (done > 0) {
        data += done;
        size -= (size_t)done;
      }
    }
    if (size == 0)
      continue;
    write_request *w = malloc(sizeof *w + size);
    if (w == NULL)
      return luaL_error(L, "not enough memory");
    w->s = s;
    w->size = size;
    memcpy(w->data, data, size);
    uv_buf_t buf = uv_buf_init(w->data, (unsigned)size);
    int status = uv_write(&w->request, (uv_stream_t *)&s->tcp, &buf, 1, on_write);
    if (status != 0) {
      free(w);
      return ag_uv_error(L, status, "write", s->address);
    }
    s->writing += size;
  }
  if (s->writing > HIGH_WATER && !ag_waiting(&s->writer)) {
    s->writer.cancel = cancel_write;
    lua_settop(L, 1);
    return ag_suspend(L, &s->writer, 0, written);
  }
  lua_settop(L, 1);
  return 1;
}

static void on_shutdown(uv_shutdown_t *request, int status) {
  (void)status;
  free(request);
}

/* stream:shutdown(): no more will be written; reading goes on. */
static int stream_shutdown(lua_State *L) {
  stream *s = ag_stream_check_open(L, STREAM, "shutdown");
  uv_shutdown_t *request = malloc(sizeof *request);
  if (request == NULL)
    return luaL_error(L, "not enough memory");
  int status = uv_shutdown(request, (uv_stream_t *)&s->tcp, on_shutdown);
  if (status != 0) {
    free(request);
    return ag_uv_error(L, status, "shutdown", s->address);
  }
  return 0;
}

static void close_after_write(uv_shutdown_t *request, int status) {
  stream *s = request->handle->data;
  (void)status;
  free(request);
  if (s != NULL && !uv_is_closing((uv_handle_t *)&s->tcp))
    uv_close((uv_handle_t *)&s->tcp, on_close);
}

/* stream:close(): what was written is still sent. Twice is harmless. */
static int stream_close(lua_State *L) {
  stream *s = ag_stream_check(L, STREAM);
  if (s->closed)
    return 0;
  if (s->writing > 0) {
    uv_shutdown_t *request = malloc(sizeof *request);
    if (request != NULL && uv_shutdown(request, (uv_stream_t *)&s->tcp, close_after_write) == 0) {
      if (s->reading)
        uv_read_stop((uv_stream_t *)&s->tcp);
      s->reading = false;
      s->closed = true;
      ag_wake(&s->reader);
      ag_wake(&s->writer);
      return 0;
    }
    free(request);
  }
  ag_stream_shut(s);
  return 0;
}

void ag_stream_open(lua_State *L) {
  static const luaL_Reg methods[] = {{"read", stream_read},
                                     {"read_exactly", stream_read_exactly},
                                     {"read_until", stream_read_until},
                                     {"lines", stream_lines},
                                     {"write", stream_write},
                                     {"shutdown", stream_shutdown},
                                     {"close", stream_close},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", ag_stream_gc}, {"__close", stream_close}, {NULL, NULL}};
  luaL_newmetatable(L, STREAM);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__index");
  lua_remove(L, -2);
}
