/* Transfers: what curl calls while one runs, and what a task may wait for: its end, its head, more of its body, and
** that it wants more to send. The callbacks never touch Lua; they fill buffers and wake the task. */
#include "http/transfer.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum {
  HIGH_WATER = 256 * 1024, /* a body that is read while it comes: bytes kept before the peer has to wait */
  MAX_HEAD = 256 * 1024    /* bytes of all the heads of a response */
};

/* ---- buffers ---- */

static size_t buffer_length(const buffer *b) { return b->end - b->start; }

static void buffer_free(buffer *b) {
  free(b->data);
  *b = (buffer){0};
}

bool http_buffer_add(buffer *b, const char *data, size_t n) {
  if (n == 0)
    return true;
  if (b->end + n > b->size) {
    size_t size = b->size != 0 ? b->size : 1024;
    while (size < b->end + n)
      size *= 2;
    char *grown = realloc(b->data, size);
    if (grown == NULL)
      return false;
    b->data = grown;
    b->size = size;
  }
  memcpy(b->data + b->end, data, n);
  b->end += n;
  return true;
}

static void push_buffer(lua_State *L, buffer *b) {
  lua_pushlstring(L, b->data != NULL ? b->data + b->start : "", buffer_length(b));
  buffer_free(b);
}

/* ---- what curl calls ---- */

/* [state] of a job that was dropped is no longer running: curl is told to stop. */
static bool goes_on(const transfer *t) { return t->job.state == HTTP_RUNNING && t->refusal == REFUSED_NOT; }

static size_t refuse(transfer *t, http_refusal why) {
  t->refusal = why;
  return 0;
}

static void moved(transfer *t) { t->job.moved = http_multi_now(t->multi); }

static void tell_head(transfer *t) {
  if (t->head_done)
    return;
  t->head_done = true;
  if (t->stream)
    http_multi_wake(t->multi, &t->wait);
}

static long status_of(const char *line, size_t n) {
  const char *space = memchr(line, ' ', n);
  if (space == NULL || line + n - space < 4)
    return 0;
  return (space[1] - '0') * 100 + (space[2] - '0') * 10 + (space[3] - '0');
}

/* A line of a head, or of what follows the body, which is left out. */
static size_t on_header(char *line, size_t one, size_t n, void *data) {
  transfer *t = data;
  (void)one;
  if (!goes_on(t))
    return 0;
  moved(t);
  bool first = n >= 5 && memcmp(line, "HTTP/", 5) == 0;
  if (t->head_done && !first)
    return n;
  if (first) { /* after a 1xx, or after a 401 that curl answers itself */
    t->head_start = t->head.end;
    t->head_done = t->head_whole = false;
  }
  if (t->head.end + n > MAX_HEAD)
    return refuse(t, REFUSED_HEAD);
  if (!http_buffer_add(&t->head, line, n))
    return refuse(t, REFUSED_MEMORY);
  bool empty = line[0] == '\r' || line[0] == '\n';
  t->head_whole = empty;
  if (empty && !t->may_retry_auth && status_of(t->head.data + t->head_start, t->head.end - t->head_start) >= 200)
    tell_head(t);
  return n;
}

static size_t on_body(char *bytes, size_t one, size_t n, void *data) {
  transfer *t = data;
  (void)one;
  if (!goes_on(t))
    return 0;
  moved(t);
  tell_head(t);
  if (t->stream && buffer_length(&t->body) >= HIGH_WATER) {
    t->body_paused = t->job.stalled = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  if (t->max_body >= 0 && t->seen + (curl_off_t)n > t->max_body)
    return refuse(t, REFUSED_BODY);
  if (!http_buffer_add(&t->body, bytes, n))
    return refuse(t, REFUSED_MEMORY);
  t->seen += (curl_off_t)n;
  if (t->stream)
    http_multi_wake(t->multi, &t->wait);
  return n;
}

static size_t on_upload(char *into, size_t one, size_t n, void *data) {
  transfer *t = data;
  n *= one;
  if (t->job.state != HTTP_RUNNING)
    return CURL_READFUNC_ABORT;
  moved(t);
  size_t have = buffer_length(&t->upload);
  if (have == 0 && t->upload_over)
    return 0;
  if (have == 0) {
    t->upload_paused = t->job.stalled = true;
    http_multi_wake(t->multi, &t->wait);
    return CURL_READFUNC_PAUSE;
  }
  if (n > have)
    n = have;
  memcpy(into, t->upload.data + t->upload.start, n);
  t->upload.start += n;
  if (t->upload.start == t->upload.end)
    t->upload.start = t->upload.end = 0;
  return n;
}

/* The connection stands, the request goes out. */
static int on_connected(void *data, char *peer, char *local, int peer_port, int local_port) {
  (void)peer, (void)local, (void)peer_port, (void)local_port;
  transfer *t = data;
  t->job.connected = true;
  http_multi_moved(&t->job);
  return CURL_PREREQFUNC_OK;
}

/* Called often while bytes move: what goes out of a long string is seen nowhere else. */
static int on_progress(void *data, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up) {
  (void)down_total, (void)down, (void)up_total;
  transfer *t = data;
  if (up > 0 && t->head.end == 0)
    moved(t);
  return 0;
}

void http_transfer_prepare(transfer *t) {
  CURL *easy = t->job.easy;
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_READDATA, t);
  curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
  curl_easy_setopt(easy, CURLOPT_XFERINFODATA, t);
  curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
}

/* ---- its life ---- */

/* Frees what only curl used. The job is idle. */
static void clear_curl(transfer *t) {
  if (t->job.easy != NULL)
    curl_easy_cleanup(t->job.easy);
  t->job.easy = NULL;
  curl_slist_free_all(t->headers);
  curl_slist_free_all(t->resolve);
  t->headers = t->resolve = NULL;
  http_share_unref(t->share);
  t->share = NULL;
  buffer_free(&t->upload);
}

static void free_if_unused(transfer *t) {
  if (t->owned || t->job.state != HTTP_IDLE)
    return;
  clear_curl(t);
  buffer_free(&t->head);
  buffer_free(&t->body);
  if (t->multi != NULL)
    http_multi_unref(t->multi);
  free(t);
}

static void on_ended(http_job *job, CURLcode code, http_end why) {
  transfer *t = (transfer *)job;
  t->ended = true;
  t->code = code;
  t->why = why;
  if (code != CURLE_OK && why == HTTP_CURL)
    curl_easy_getinfo(job->easy, CURLINFO_OS_ERRNO, &t->os_error);
  if (job->state == HTTP_IDLE)
    clear_curl(t);
  http_multi_wake(t->multi, &t->wait);
  free_if_unused(t);
}

static void on_gone(http_job *job) {
  transfer *t = (transfer *)job;
  clear_curl(t);
  free_if_unused(t);
}

static void stop(transfer *t) {
  if (!t->ended && t->started) {
    t->ended = true;
    t->code = CURLE_ABORTED_BY_CALLBACK;
    t->why = HTTP_CLOSED;
    if (http_multi_drop(&t->job))
      clear_curl(t);
  }
  http_multi_wake(t->multi, &t->wait);
}

static transfer *check_transfer(lua_State *L) {
  transfer *t = *(transfer **)luaL_checkudata(L, 1, TRANSFER);
  if (t == NULL || t->closed)
    ag_os_error(L, "EBADF", 9, "the response is closed", "http", NULL);
  return t;
}

/* transfer:close(): ends it where it is; again is harmless. A task that waits is woken and finds it closed, so the
** memory stays until the userdata, which is on its stack, is collected. */
static int transfer_close(lua_State *L) {
  transfer *t = *(transfer **)luaL_checkudata(L, 1, TRANSFER);
  if (t == NULL) /* a state that closes has collected it, and closes the variables of its threads then */
    return 0;
  t->closed = true;
  stop(t);
  buffer_free(&t->head);
  buffer_free(&t->body);
  return 0;
}

static int transfer_gc(lua_State *L) {
  transfer **box = lua_touserdata(L, 1);
  transfer *t = *box;
  *box = NULL;
  if (t == NULL)
    return 0;
  t->owned = false;
  stop(t);
  free_if_unused(t);
  return 0;
}

/* start(request): a transfer that runs. The fields of [request] are those of http_request_set. */
static int curl_start(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  http_multi *m = http_multi_of(L, "http");
  transfer **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, TRANSFER);
  transfer *t = calloc(1, sizeof *t);
  if (t == NULL)
    return luaL_error(L, "not enough memory");
  *box = t;
  t->owned = true;
  t->multi = m;
  http_multi_ref(m);
  t->job.ended = on_ended;
  t->job.gone = on_gone;
  t->job.easy = curl_easy_init();
  if (t->job.easy == NULL || !http_multi_adopt(m, t->job.easy))
    return luaL_error(L, "not enough memory");
  http_transfer_prepare(t);
  http_request_set(L, 1, t);
  static const char *const names[] = {"timeout_total", "timeout_connect", "timeout_read"};
  uint64_t limits[3];
  for (int i = 0; i < 3; i++) {
    lua_getfield(L, 1, names[i]);
    double ms = lua_tonumber(L, -1) * 1000;
    limits[i] = ms <= 0 ? 0 : ms < 1 ? 1 : ms > 1e15 ? 0 : (uint64_t)ms;
    lua_pop(L, 1);
  }
  t->started = true;
  http_multi_add(m, &t->job, limits[0], limits[1], limits[2]);
  return 1;
}

/* trim(): closes the idle connections of the running loop once nothing is under way. */
static int curl_trim(lua_State *L) {
  http_multi_trim(http_multi_of(L, "http"));
  return 0;
}

/* ---- waiting ---- */

/* A cancelled wait leaves the transfer as it is: who holds it closes it. */
static void cancel_wait(ag_wait *wait) { (void)wait; }

static int suspend(lua_State *L, transfer *t, lua_KFunction k) {
  if (ag_waiting(&t->wait))
    return ag_error(L, "RuntimeError", "http: another task waits for this response already");
  t->wait.cancel = cancel_wait;
  return ag_suspend(L, &t->wait, 0, k);
}

static int waited(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  transfer *t = check_transfer(L);
  if (t->ended)
    lua_pushliteral(L, "ended");
  else if (t->upload_paused)
    lua_pushliteral(L, "upload");
  else if (t->head_done && t->stream)
    lua_pushliteral(L, "head");
  else
    return suspend(L, t, waited);
  return 1;
}

/* transfer:wait(): waits until it has "ended", wants more to "upload", or (a stream) has its "head". */
static int transfer_wait(lua_State *L) {
  lua_settop(L, 1);
  return waited(L, LUA_OK, 0);
}

static void go_on(transfer *t) {
  t->job.stalled = t->body_paused || t->upload_paused;
  http_multi_moved(&t->job);
  int mask = (t->body_paused ? CURLPAUSE_RECV : 0) | (t->upload_paused ? CURLPAUSE_SEND : 0);
  CURLcode code = http_multi_pause(&t->job, mask);
  if (code == CURLE_OK || t->ended)
    return;
  stop(t);
  t->code = code;
  t->why = HTTP_CURL;
}

static int body_came(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  transfer *t = check_transfer(L);
  if (buffer_length(&t->body) > 0) {
    lua_pushlstring(L, t->body.data + t->body.start, buffer_length(&t->body));
    t->body.start = t->body.end = 0;
    if (t->body_paused) {
      t->body_paused = false;
      go_on(t);
    }
    return 1;
  }
  if (t->ended) {
    lua_pushnil(L);
    return 1;
  }
  if (t->upload_paused) {
    lua_pushboolean(L, 0);
    return 1;
  }
  return suspend(L, t, body_came);
}

/* transfer:read(): what has come of the body, after a wait if that is nothing; nil when it has ended; false when curl
** wants more to upload first. */
static int transfer_read(lua_State *L) {
  lua_settop(L, 1);
  return body_came(L, LUA_OK, 0);
}

/* transfer:feed(bytes | nil): more to upload; nil: that was all. */
static int transfer_feed(lua_State *L) {
  transfer *t = check_transfer(L);
  size_t n;
  const char *bytes = luaL_optlstring(L, 2, NULL, &n);
  if (t->ended)
    return 0;
  if (bytes == NULL)
    t->upload_over = true;
  else if (!http_buffer_add(&t->upload, bytes, n))
    return luaL_error(L, "not enough memory");
  if (t->upload_paused && (bytes == NULL || n > 0)) {
    t->upload_paused = false;
    go_on(t);
  }
  return 0;
}

/* ---- what came ---- */

/* transfer:head(): the lines of the last head, with the status line; nil when the connection ended within it. */
static int transfer_head(lua_State *L) {
  transfer *t = check_transfer(L);
  if (!t->head_whole)
    lua_pushnil(L);
  else
    lua_pushlstring(L, t->head.data != NULL ? t->head.data + t->head_start : "", t->head.end - t->head_start);
  return 1;
}

/* transfer:body(): what has come of the body; it is taken out. */
static int transfer_body(lua_State *L) {
  push_buffer(L, &check_transfer(L)->body);
  return 1;
}

static const char *kind_of(const transfer *t) {
  switch (t->refusal) {
  case REFUSED_BODY:
    return "body";
  case REFUSED_HEAD:
    return "head";
  case REFUSED_MEMORY:
    return "memory";
  case REFUSED_NOT:
    break;
  }
  switch (t->why) {
  case HTTP_TIMEOUT_TOTAL:
    return "total";
  case HTTP_TIMEOUT_CONNECT:
    return "connecting";
  case HTTP_TIMEOUT_READ:
    return "read";
  case HTTP_CLOSED:
    return "closed";
  case HTTP_CURL:
    break;
  }
  switch (t->code) {
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_CONNECT:
  case CURLE_INTERFACE_FAILED:
  case CURLE_PROXY:
  case CURLE_OPERATION_TIMEDOUT: /* the system's ETIMEDOUT, or curl's own limit, which is longer than ours */
    return "connect";
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_CRL_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_INVALIDCERTSTATUS:
  case CURLE_SSL_CLIENTCERT:
    return "tls";
  case CURLE_OUT_OF_MEMORY:
    return "memory";
  default:
    return "protocol";
  }
}

/* transfer:failure(): nil when it ended well; else what failed, the cause in curl's words, and the system's error by
** name and number, where one is behind it. */
static int transfer_failure(lua_State *L) {
  const transfer *t = check_transfer(L);
  if (!t->ended || t->code == CURLE_OK) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushstring(L, kind_of(t));
  lua_pushstring(L, t->error[0] != '\0' ? t->error : curl_easy_strerror(t->code));
  if (t->os_error == 0)
    return 2;
  char name[64];
  lua_pushstring(L, uv_err_name_r(-(int)t->os_error, name, sizeof name));
  lua_pushinteger(L, t->os_error);
  return 4;
}

void http_open_transfer(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"wait", transfer_wait}, {"read", transfer_read},       {"feed", transfer_feed},   {"head", transfer_head},
      {"body", transfer_body}, {"failure", transfer_failure}, {"close", transfer_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", transfer_gc}, {"__close", transfer_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"start", curl_start}, {"trim", curl_trim}, {NULL, NULL}};
  luaL_newmetatable(L, TRANSFER);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
