/* TCP streams and listeners. Knows the reactor and agather.h. The memory of a handle outlives its userdata: libuv
** gives it back in the close callback.
** One task may read and one may write at a time. */
#include <stdlib.h>
#include <string.h>

#include "uv/uv.h"

enum { READ_CHUNK = 65536, READ_LIMIT = 1 << 20, HIGH_WATER = 65536 };

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

typedef struct write_request {
  uv_write_t request;
  stream *s;
  size_t size;
  char data[];
} write_request;

#define STREAM "agather.Stream"
#define LISTENER "agather.Listener"

static void free_if_unused(stream *s) {
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
  free_if_unused(s);
}

static void close_stream(stream *s) {
  if (s->closed)
    return;
  s->closed = true;
  if (!uv_is_closing((uv_handle_t *)&s->tcp))
    uv_close((uv_handle_t *)&s->tcp, on_close);
  ag_wake(&s->reader);
  ag_wake(&s->writer);
}

/* Makes a stream with the metatable [type]; pushes its userdata. */
static stream *new_stream(lua_State *L, const char *type, const char *what) {
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

static stream *check(lua_State *L, const char *type) { return *(stream **)luaL_checkudata(L, 1, type); }

static stream *check_open(lua_State *L, const char *type, const char *operation) {
  stream *s = check(L, type);
  if (s->closed)
    ag_os_error(L, "EBADF", 9, "the stream is closed", operation, s->address[0] ? s->address : NULL);
  return s;
}

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
    free_if_unused(s);
  } else if (status != 0) {
    s->connect_status = status;
    ag_wake(&s->reader);
  } else {
    connect_next(s);
  }
}

static void cancel_connect(ag_wait *wait) {
  stream *s = (stream *)(void *)((char *)wait - offsetof(stream, reader));
  close_stream(s);
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
      close_stream(s);
      stream *again = new_stream(L, STREAM, "connect");
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
    close_stream(s);
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
  stream *s = new_stream(L, STREAM, "connect");
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
  stream *s = check_open(L, STREAM, "read");
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
  check_open(L, STREAM, "read");
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
  check_open(L, STREAM, "read");
  luaL_argcheck(L, luaL_checkinteger(L, 2) >= 0, 2, "number of bytes must not be negative");
  return start_read(L, READ_EXACTLY);
}

/* stream:read_until(separator): what comes up to and with it, or IncompleteReadError. */
static int stream_read_until(lua_State *L) {
  check_open(L, STREAM, "read");
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
  check_open(L, STREAM, "read");
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
  stream *s = check_open(L, STREAM, "write");
  if (s->write_status != 0)
    return ag_uv_error(L, s->write_status, "write", s->address);
  lua_settop(L, 1);
  return 1;
}

/* stream:write(...): writes strings and numbers; waits while too much is on its way. Returns the stream. */
static int stream_write(lua_State *L) {
  stream *s = check_open(L, STREAM, "write");
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
  stream *s = check_open(L, STREAM, "shutdown");
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
  stream *s = check(L, STREAM);
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
  close_stream(s);
  return 0;
}

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
  stream *s = check_open(L, STREAM, "peer_address");
  struct sockaddr_storage storage;
  int size = sizeof storage;
  return push_address(L, uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&storage, &size), &storage, s);
}

static int local_address_of(lua_State *L, const char *type) {
  stream *s = check_open(L, type, "local_address");
  struct sockaddr_storage storage;
  int size = sizeof storage;
  return push_address(L, uv_tcp_getsockname(&s->tcp, (struct sockaddr *)&storage, &size), &storage, s);
}

static int stream_local_address(lua_State *L) { return local_address_of(L, STREAM); }

static int box_gc(lua_State *L) {
  stream **box = lua_touserdata(L, 1);
  stream *s = *box;
  *box = NULL;
  if (s == NULL)
    return 0;
  s->owned = false;
  if (!s->closed)
    close_stream(s);
  else
    free_if_unused(s);
  return 0;
}

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
  stream *s = new_stream(L, LISTENER, "listen");
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
  stream *s = check_open(L, LISTENER, "accept");
  if (s->backlog > 0) {
    stream *peer = new_stream(L, STREAM, "accept");
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
  close_stream(check(L, LISTENER));
  return 0;
}

void ag_uv_open_streams(lua_State *L) {
  static const luaL_Reg methods[] = {{"read", stream_read},
                                     {"read_exactly", stream_read_exactly},
                                     {"read_until", stream_read_until},
                                     {"lines", stream_lines},
                                     {"write", stream_write},
                                     {"shutdown", stream_shutdown},
                                     {"close", stream_close},
                                     {"peer_address", peer_address},
                                     {"local_address", stream_local_address},
                                     {NULL, NULL}};
  static const luaL_Reg listener_methods[] = {
      {"accept", listener_accept}, {"local_address", listener_local_address}, {"close", listener_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", box_gc}, {"__close", stream_close}, {NULL, NULL}};
  static const luaL_Reg listener_meta[] = {{"__gc", box_gc}, {"__close", listener_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"connect", net_connect}, {"listen", net_listen}, {NULL, NULL}};
  luaL_newmetatable(L, STREAM);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newmetatable(L, LISTENER);
  luaL_setfuncs(L, listener_meta, 0);
  luaL_newlib(L, listener_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
  luaL_setfuncs(L, functions, 0);
}

__attribute__((visibility("default"))) int luaopen_agather_uv(lua_State *L);

int luaopen_agather_uv(lua_State *L) {
  lua_newtable(L);
  ag_uv_open_streams(L);
  return 1;
}
