/* How a stream is written, shut and closed. What the system does not take at once is copied and sent from the loop;
** over the high-water mark the writer waits until no more than the low one is on its way. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "uv/stream.h"

/* Strings of one call that go to the system in one piece; more are joined first. */
enum { PIECES = 16, LINGER_MILLISECONDS = 30000 };

typedef struct write_request {
  uv_write_t request;
  size_t size; /* of the block */
  char data[];
} write_request;

/* ---- who waits ---- */

void ag_stream_wake_writers(ag_stream *s) { ag_waitlist_wake(&s->writers, 0); }

static int written(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  ag_stream *s = ag_stream_still_open(L, "write");
  if (s->write_status != 0)
    return ag_uv_error(L, s->write_status, "write", s->name);
  lua_settop(L, 1);
  return 1;
}

/* Waits until no more than [until] bytes are on their way. */
static int wait_written(lua_State *L, ag_stream *s, size_t until) {
  lua_settop(L, 1);
  ag_waitlist_prepare(L);
  if (s->closed || s->write_status != 0 || uv_stream_get_write_queue_size(&s->handle.stream) <= until)
    return written(L, LUA_OK, 0);
  return ag_waitlist_suspend(L, &s->writers, until, 0, written);
}

/* ---- writing ---- */

static void on_write(uv_write_t *request, int status) {
  write_request *w = (write_request *)request;
  ag_stream *s = request->handle->data;
  ag_block_free(s->in.blocks, w, w->size);
  if (status != 0 && s->write_status == 0)
    s->write_status = status;
  size_t left = uv_stream_get_write_queue_size(&s->handle.stream);
  ag_waitlist_wake(&s->writers, status != 0 ? 0 : left);
  if (s->linger != NULL && (status != 0 || left == 0))
    ag_stream_drop(s);
}

/* Gives libuv a copy of what was not taken of the [n] pieces. */
static int write_later(ag_stream *s, const uv_buf_t *pieces, int n) {
  size_t left = 0;
  for (int i = 0; i < n; i++)
    left += pieces[i].len;
  if (left == 0)
    return 0;
  size_t size = sizeof(write_request) + left;
  write_request *w = ag_block_new(s->in.blocks, &size);
  if (w == NULL)
    return UV_ENOMEM;
  w->size = size;
  char *end = w->data;
  for (int i = 0; i < n; i++) {
    memcpy(end, pieces[i].base, pieces[i].len);
    end += pieces[i].len;
  }
  uv_buf_t buf = uv_buf_init(w->data, 0);
  buf.len = left;
  int status = uv_write(&w->request, &s->handle.stream, &buf, 1, on_write);
  if (status != 0)
    ag_block_free(s->in.blocks, w, size);
  return status;
}

static int write_pieces(ag_stream *s, uv_buf_t *pieces, int n) {
  while (n > 0 && pieces->len == 0)
    pieces++, n--;
  int done = 0;
  if (n > 0 && uv_stream_get_write_queue_size(&s->handle.stream) == 0) {
    done = uv_try_write(&s->handle.stream, pieces, (unsigned)n);
    if (done < 0 && done != UV_EAGAIN)
      return s->write_status = done;
    for (size_t taken = done > 0 ? (size_t)done : 0; taken > 0; pieces++, n--) {
      if (taken < pieces->len) {
        pieces->base += taken;
        pieces->len -= taken;
        break;
      }
      taken -= pieces->len;
    }
  }
  int status = write_later(s, pieces, n);
  if (status != 0 && done > 0) /* half a message is gone: what came after it would mean nothing */
    s->write_status = status;
  return status;
}

/* stream:write(...): writes strings and numbers; waits while too much is on its way. Returns the stream. */
static int stream_write(lua_State *L) {
  ag_stream_check_open(L, "write");
  int n = lua_gettop(L) - 1;
  for (int i = 2; i <= n + 1; i++)
    luaL_checkstring(L, i);
  if (n > PIECES) {
    luaL_Buffer joined;
    luaL_buffinit(L, &joined);
    for (int i = 2; i <= n + 1; i++) {
      lua_pushvalue(L, i);
      luaL_addvalue(&joined);
    }
    luaL_pushresult(&joined);
    lua_replace(L, 2);
    n = 1;
  }
  uv_buf_t pieces[PIECES];
  for (int i = 0; i < n; i++) {
    size_t size;
    pieces[i].base = (char *)lua_tolstring(L, i + 2, &size);
    pieces[i].len = size;
  }
  ag_stream *s = ag_stream_still_open(L, "write"); /* what makes strings may run a finalizer */
  if (s->shut)
    return ag_os_error(L, "EPIPE", 32, "the stream is shut down for writing", "write", s->name);
  if (s->write_status != 0)
    return ag_uv_error(L, s->write_status, "write", s->name);
  int status = write_pieces(s, pieces, n);
  if (status == UV_ENOMEM)
    return luaL_error(L, "not enough memory");
  if (status != 0)
    return ag_uv_error(L, status, "write", s->name);
  if (uv_stream_get_write_queue_size(&s->handle.stream) > s->high)
    return wait_written(L, s, s->low);
  lua_settop(L, 1);
  return 1;
}

/* stream:flush(): waits until the system has all that was written. Returns the stream. */
static int stream_flush(lua_State *L) {
  ag_stream *s = ag_stream_check_open(L, "flush");
  if (s->write_status == 0 && uv_stream_get_write_queue_size(&s->handle.stream) > 0)
    return wait_written(L, s, 0);
  return written(L, LUA_OK, 0);
}

static unsigned check_mark(lua_State *L, const char *name, unsigned otherwise) {
  unsigned mark = otherwise;
  if (lua_getfield(L, 2, name) != LUA_TNIL) {
    if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0 || lua_tointeger(L, -1) > INT_MAX)
      luaL_argerror(
          L, 2, lua_pushfstring(L, "option '%s' must be a number of bytes, got %s", name, luaL_tolstring(L, -1, NULL)));
    mark = (unsigned)lua_tointeger(L, -1);
  }
  lua_pop(L, 1);
  return mark;
}

/* stream:set_write_buffer_limits{high=, low=}: low is a quarter of high unless given. */
static int stream_set_write_buffer_limits(lua_State *L) {
  ag_stream *s = ag_stream_check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, 2) != 0; lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    if (strcmp(name, "high") != 0 && strcmp(name, "low") != 0) {
      lua_pushvalue(L, -2);
      return luaL_argerror(L, 2, lua_pushfstring(L, "unknown option '%s'", luaL_tolstring(L, -1, NULL)));
    }
  }
  unsigned high = check_mark(L, "high", s->high), low = check_mark(L, "low", high / 4);
  luaL_argcheck(L, low <= high, 2, "low must not be more than high");
  s->high = high;
  s->low = low;
  return 0;
}

/* ---- shutting and closing ---- */

/* All was sent. The pipe to a child is no socket and cannot be shut: its reader sees the end when it is closed. */
static void on_shutdown(uv_shutdown_t *request, int status) {
  ag_stream *s = request->handle->data;
  free(request);
  if (status == UV_ENOTSOCK)
    ag_stream_hang_up(s);
}

/* stream:shutdown(): no more will be written; what was is still sent, and reading goes on. Twice is harmless. */
static int stream_shutdown(lua_State *L) {
  ag_stream *s = ag_stream_check_open(L, "shutdown");
  if (s->shut)
    return 0;
  uv_shutdown_t *request = malloc(sizeof *request);
  if (request == NULL)
    return luaL_error(L, "not enough memory");
  int status = uv_shutdown(request, &s->handle.stream, on_shutdown);
  if (status != 0)
    free(request);
  if (status != 0 && status != UV_ENOTCONN) /* the other side may be gone already */
    return ag_uv_error(L, status, "shutdown", s->name);
  s->shut = true;
  return 0;
}

/* Ends the wait for a peer that does not read what was written before the close. */
typedef struct ag_linger {
  uv_close_cb on_close; /* first, as in ag_stream */
  uv_timer_t timer;
  ag_stream *s; /* NULL when it has closed */
} ag_linger;

static void on_linger_close(uv_handle_t *handle) {
  ag_linger *l = handle->data;
  if (l->s != NULL) /* the loop closed the timer before the stream */
    ag_stream_end_linger(l->s);
  free(l);
}

static void on_linger(uv_timer_t *timer) { ag_stream_drop(((ag_linger *)timer->data)->s); }

/* Leaves the handle open until all is sent, or for LINGER_MILLISECONDS; false without memory. */
static bool start_linger(ag_stream *s) {
  uv_loop_t *loop = s->handle.any.loop;
  ag_linger *l = malloc(sizeof *l);
  if (l == NULL)
    return false;
  l->on_close = on_linger_close;
  l->s = s;
  uv_timer_init(loop, &l->timer);
  l->timer.data = l;
  uv_timer_start(&l->timer, on_linger, LINGER_MILLISECONDS, 0);
  ag_uv_shared(loop)->lingering++;
  s->linger = l;
  return true;
}

void ag_stream_end_linger(ag_stream *s) {
  ag_linger *l = s->linger;
  if (l == NULL)
    return;
  s->linger = NULL;
  l->s = NULL;
  ag_uv_shared(s->handle.any.loop)->lingering--;
  if (!uv_is_closing((uv_handle_t *)&l->timer))
    uv_close((uv_handle_t *)&l->timer, on_linger_close);
}

void ag_stream_finish(ag_stream *s) {
  if (s->closed)
    return;
  if (s->handle.any.data == NULL || uv_is_closing(&s->handle.any) ||
      uv_stream_get_write_queue_size(&s->handle.stream) == 0 || !start_linger(s)) {
    ag_stream_drop(s);
    return;
  }
  s->closed = true;
  if (s->reading)
    uv_read_stop(&s->handle.stream);
  s->reading = false;
  ag_wake(&s->reader);
  ag_stream_wake_writers(s);
}

/* stream:close(): what was written is still sent. Twice is harmless. */
int ag_stream_close(lua_State *L) {
  ag_stream *s = *(ag_stream **)luaL_checkudata(L, 1, AG_STREAM);
  if (s != NULL)
    ag_stream_finish(s);
  return 0;
}

/* stream:abort(): closes at once, also what close() has left to be sent; a TCP peer sees a reset. */
static int stream_abort(lua_State *L) {
  ag_stream *s = *(ag_stream **)luaL_checkudata(L, 1, AG_STREAM);
  if (s == NULL)
    return 0;
  if (s->handle.any.data != NULL && !uv_is_closing(&s->handle.any) && s->handle.any.type == UV_TCP) {
    struct linger reset = {1, 0};
    uv_os_fd_t fd;
    if (uv_fileno(&s->handle.any, &fd) == 0)
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  }
  ag_stream_drop(s);
  return 0;
}

void ag_stream_write_methods(lua_State *L) {
  static const luaL_Reg methods[] = {{"write", stream_write},
                                     {"flush", stream_flush},
                                     {"set_write_buffer_limits", stream_set_write_buffer_limits},
                                     {"shutdown", stream_shutdown},
                                     {"close", ag_stream_close},
                                     {"abort", stream_abort},
                                     {NULL, NULL}};
  ag_stream_set_methods(L, methods);
}
