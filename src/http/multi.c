/* curl's multi socket interface on libuv.
**
** curl says which sockets it waits for and when it wants to be called; libuv's callbacks call it then, and after each
** call what has finished is taken out. All calls of curl_multi_* come from libuv's callbacks or from Lua, never from
** within a callback of curl.
**
** Starting and dropping a transfer costs curl some 20 to 100 us, so when hundreds come at once they are worked off over
** turns of the loop, some milliseconds each; so are sockets that are ready. */
#include "http/multi.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "noreturn.h"
#include "uv/share.h"

enum {
  TURN_NS = 2000000,     /* time that curl may take in one turn of the loop, if that can be helped */
  MAX_ADDED = 32,        /* jobs given to curl before it has looked at them */
  MAX_CONNECTIONS = 512, /* that stay open when nothing uses them */
  MAX_FD = 1 << 22
};

/* A socket that libuv watches. In [watchers] at its descriptor until curl closes that; the memory lives until libuv
** has closed the poll handle. */
typedef struct watcher {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_poll_t poll;
  http_multi *multi;
  int fd;
  int events;     /* what libuv watches for */
  bool wanted;    /* curl waits for it, so the program does */
  bool connected; /* then curl tells us when it closes it; before that it does not */
  bool is_late;   /* on [late]: ready, and its turn has not come; [flags] say for what */
  int flags;
  TAILQ_ENTRY(watcher) link;
} watcher;

TAILQ_HEAD(watcher_list, watcher);

TAILQ_HEAD(job_list, http_job);

/* The sum of [queued], [running] and [dropped] jobs is [jobs]; [curl] is NULL only without jobs. */
struct http_multi {
  uv_close_cb on_close; /* first, as above */
  uv_loop_t *loop;
  uv_timer_t timer; /* the one that curl asked for */
  uv_timer_t sweep; /* the next deadline of a job, or earlier */
  uv_idle_t worker; /* active while jobs are queued or dropped, or sockets late */
  uv_prepare_t turn;
  uint64_t sweep_at, turn_end;
  bool turn_begins;
  CURLM *curl;
  struct job_list queued, running, dropped;
  struct watcher_list late;
  size_t jobs;
  int added; /* jobs given to curl since it was last called */
  watcher **watchers;
  int watchers_size;
  size_t refs; /* libuv handles that are not closed, and holders */
  bool closed;
  bool trim;  /* close idle connections once no job is there */
  bool woken; /* a task has become ready in this phase of libuv's loop */
};

void http_multi_ref(http_multi *m) { m->refs++; }

void http_multi_unref(http_multi *m) {
  if (--m->refs > 0)
    return;
  free(m->watchers);
  free(m);
}

bool http_multi_closed(const http_multi *m) { return m->closed; }

void http_multi_wake(http_multi *m, ag_wait *wait) {
  if (!ag_waiting(wait))
    return;
  m->woken = true;
  ag_wake(wait);
}

uint64_t http_multi_now(const http_multi *m) { return uv_now(m->loop); }

static bool out_of_time(const http_multi *m) { return uv_hrtime() > m->turn_end; }

/* ---- Finished jobs ---- */

static void unlist(http_job *job) {
  http_multi *m = job->multi;
  switch (job->state) {
  case HTTP_QUEUED:
    TAILQ_REMOVE(&m->queued, job, link);
    break;
  case HTTP_RUNNING:
    TAILQ_REMOVE(&m->running, job, link);
    break;
  case HTTP_DROPPED:
    TAILQ_REMOVE(&m->dropped, job, link);
    break;
  case HTTP_IDLE:
    return;
  }
  job->state = HTTP_IDLE;
  m->jobs--;
}

/* Takes out what curl has finished. */
static void drain(http_multi *m) {
  CURLMsg *message;
  int left;
  while (m->curl != NULL && (message = curl_multi_info_read(m->curl, &left)) != NULL) {
    if (message->msg != CURLMSG_DONE)
      continue;
    CURL *easy = message->easy_handle;
    CURLcode code = message->data.result;
    http_job *job = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&job);
    curl_multi_remove_handle(m->curl, easy); /* [message] is gone with it */
    bool dropped = job->state == HTTP_DROPPED;
    unlist(job);
    if (dropped)
      job->gone(job);
    else
      job->ended(job, code, HTTP_CURL);
  }
  if (m->trim)
    http_multi_trim(m);
}

static void call_curl(http_multi *m, curl_socket_t fd, int flags) {
  int running;
  m->added = 0;
  curl_multi_socket_action(m->curl, fd, flags, &running);
  drain(m);
}

/* ---- Sockets ---- */

static void on_watcher_closed(uv_handle_t *handle) {
  watcher *w = handle->data;
  http_multi *m = w->multi;
  if (w->fd < m->watchers_size && m->watchers[w->fd] == w)
    m->watchers[w->fd] = NULL;
  free(w);
  http_multi_unref(m);
}

static void not_late(watcher *w) {
  if (w->is_late)
    TAILQ_REMOVE(&w->multi->late, w, link);
  w->is_late = false;
  w->flags = 0;
}

/* Stops watching for good. The descriptor may be closed right after. */
static void forget(watcher *w) {
  not_late(w);
  w->multi->watchers[w->fd] = NULL;
  w->wanted = false;
  if (!uv_is_closing((uv_handle_t *)&w->poll))
    uv_close((uv_handle_t *)&w->poll, on_watcher_closed);
}

static watcher *watcher_at(const http_multi *m, curl_socket_t fd) {
  return fd >= 0 && fd < m->watchers_size ? m->watchers[fd] : NULL;
}

static watcher *watch(http_multi *m, curl_socket_t fd) {
  if (fd < 0 || fd >= MAX_FD)
    return NULL;
  if (fd >= m->watchers_size) {
    int size = m->watchers_size != 0 ? m->watchers_size : 64;
    while (size <= fd)
      size *= 2;
    watcher **watchers = realloc(m->watchers, (size_t)size * sizeof(void *));
    if (watchers == NULL)
      return NULL;
    memset(watchers + m->watchers_size, 0, (size_t)(size - m->watchers_size) * sizeof(void *));
    m->watchers = watchers;
    m->watchers_size = size;
  }
  watcher *w = calloc(1, sizeof *w);
  if (w == NULL)
    return NULL;
  if (uv_poll_init(m->loop, &w->poll, fd) != 0) {
    free(w);
    return NULL;
  }
  w->on_close = on_watcher_closed;
  w->poll.data = w;
  w->multi = m;
  w->fd = fd;
  uv_unref((uv_handle_t *)&w->poll);
  m->watchers[fd] = w;
  http_multi_ref(m);
  return w;
}

static void on_worker(uv_idle_t *worker);

static void on_socket(uv_poll_t *poll, int status, int events) {
  watcher *w = poll->data;
  http_multi *m = w->multi;
  if (status < 0)
    w->events = 0; /* libuv has stopped it */
  if (!w->wanted || m->curl == NULL) {
    /* An idle connection: its peer has closed it, which curl finds out when it looks at it next. */
    uv_poll_stop(poll);
    w->events = 0;
    return;
  }
  if (m->turn_begins)
    m->turn_end = uv_hrtime() + TURN_NS;
  m->turn_begins = false;
  int flags = status < 0 ? CURL_CSELECT_ERR : 0;
  if (events & UV_READABLE)
    flags |= CURL_CSELECT_IN;
  if (events & UV_WRITABLE)
    flags |= CURL_CSELECT_OUT;
  if (!out_of_time(m) && TAILQ_EMPTY(&m->late)) {
    call_curl(m, w->fd, flags);
    return;
  }
  /* Others want a turn. In the order they came, so that busy sockets do not keep others from theirs. */
  w->flags |= flags;
  if (!w->is_late)
    TAILQ_INSERT_TAIL(&m->late, w, link);
  w->is_late = true;
  uv_idle_start(&m->worker, on_worker);
}

static void want(watcher *w, int events) {
  if (w->events != events && uv_poll_start(&w->poll, events, on_socket) == 0)
    w->events = events;
  w->wanted = true;
  uv_ref((uv_handle_t *)&w->poll);
}

/* CURLMOPT_SOCKETFUNCTION. A connection that becomes idle stays in libuv's set, unreferenced: most are used again at
** once, and each change of the set is a system call. */
static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *data, void *unused) {
  (void)easy, (void)unused;
  http_multi *m = data;
  watcher *w = watcher_at(m, fd);
  if (m->closed)
    return 0;
  if (what == CURL_POLL_REMOVE) {
    if (w == NULL)
      return 0;
    w->wanted = false;
    not_late(w);
    uv_unref((uv_handle_t *)&w->poll);
    if (!w->connected)
      forget(w);
    return 0;
  }
  if (w == NULL && (w = watch(m, fd)) == NULL)
    return -1;
  w->connected = w->connected || what == CURL_POLL_IN;
  want(w, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0));
  return 0;
}

/* CURLOPT_OPENSOCKETFUNCTION. One that had the same number was closed behind our back, as curl does it while it
** connects; to curl both are one, so what it wants of the old it will not say again. */
static curl_socket_t open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address) {
  (void)purpose;
  http_multi *m = data;
  if (m->closed)
    return CURL_SOCKET_BAD;
  int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
  if (fd < 0)
    return CURL_SOCKET_BAD;
  watcher *old = watcher_at(m, fd);
  int events = old != NULL && old->wanted ? old->events : 0;
  if (old != NULL)
    forget(old);
  watcher *w = watch(m, fd);
  if (w == NULL) {
    close(fd);
    errno = ENOMEM;
    return CURL_SOCKET_BAD;
  }
  if (events != 0)
    want(w, events);
  return fd;
}

/* CURLOPT_CLOSESOCKETFUNCTION, for sockets that were connected. */
static int close_socket(void *data, curl_socket_t fd) {
  watcher *w = watcher_at(data, fd);
  if (w != NULL)
    forget(w);
  return close(fd);
}

bool http_multi_adopt(http_multi *m, CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, m);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, m);
  return curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket) == CURLE_OK;
}

/* ---- curl's timer ---- */

/* libuv calls timers before it waits, and would wait although they made a task ready: an active idle handle makes it
** only look. */
static void dont_sleep_on(http_multi *m) {
  if (m->woken)
    uv_idle_start(&m->worker, on_worker);
}

static void on_timer(uv_timer_t *timer) {
  http_multi *m = timer->data;
  m->woken = false;
  if (m->curl != NULL)
    call_curl(m, CURL_SOCKET_TIMEOUT, 0);
  dont_sleep_on(m);
}

/* CURLMOPT_TIMERFUNCTION: a new time takes the place of the old one; 0 is the next look at libuv, never at once. */
static int timer_wanted(CURLM *curl, long milliseconds, void *data) {
  (void)curl;
  http_multi *m = data;
  if (m->closed)
    return 0;
  if (milliseconds < 0) {
    uv_timer_stop(&m->timer);
    return 0;
  }
  uv_update_time(m->loop);
  uv_timer_start(&m->timer, on_timer, (uint64_t)milliseconds, 0);
  return 0;
}

/* ---- Deadlines ---- */

/* The earliest deadline of a job, or 0. */
static uint64_t deadline(const http_job *job) {
  uint64_t at = job->total_at;
  if (!job->connected) {
    if (job->connect_at != 0 && (at == 0 || job->connect_at < at))
      at = job->connect_at;
  } else if (job->read_ms != 0 && !job->stalled) {
    uint64_t read_at = job->moved + job->read_ms;
    if (at == 0 || read_at < at)
      at = read_at;
  }
  return at;
}

static void on_sweep(uv_timer_t *timer);

static void sweep_before(http_multi *m, uint64_t at) {
  if (at == 0 || (m->sweep_at != 0 && m->sweep_at <= at))
    return;
  uint64_t now = uv_now(m->loop);
  m->sweep_at = at;
  uv_timer_start(&m->sweep, on_sweep, at > now ? at - now : 0, 0);
}

void http_multi_moved(http_job *job) {
  job->moved = uv_now(job->multi->loop);
  sweep_before(job->multi, deadline(job));
}

static http_end which_timeout(const http_job *job, uint64_t now) {
  if (job->total_at != 0 && job->total_at <= now)
    return HTTP_TIMEOUT_TOTAL;
  return job->connected ? HTTP_TIMEOUT_READ : HTTP_TIMEOUT_CONNECT;
}

static void drop_later(http_job *job) {
  http_multi *m = job->multi;
  unlist(job);
  job->state = HTTP_DROPPED;
  TAILQ_INSERT_TAIL(&m->dropped, job, link);
  m->jobs++;
}

static uint64_t sweep_list(struct job_list *list, uint64_t now, uint64_t next) {
  for (http_job *job = TAILQ_FIRST(list), *following; job != NULL; job = following) {
    following = TAILQ_NEXT(job, link);
    uint64_t at = deadline(job);
    if (at == 0)
      continue;
    if (at > now) {
      next = next == 0 || at < next ? at : next;
      continue;
    }
    http_end why = which_timeout(job, now);
    if (job->state == HTTP_QUEUED) {
      unlist(job);
    } else {
      drop_later(job);
      uv_idle_start(&job->multi->worker, on_worker);
    }
    job->ended(job, CURLE_OPERATION_TIMEDOUT, why);
  }
  return next;
}

static void on_sweep(uv_timer_t *timer) {
  http_multi *m = timer->data;
  uint64_t now = uv_now(m->loop);
  m->sweep_at = 0;
  m->woken = false;
  uint64_t next = sweep_list(&m->queued, now, 0);
  sweep_before(m, sweep_list(&m->running, now, next));
  dont_sleep_on(m);
}

/* ---- Starting and dropping ---- */

static void give_to_curl(http_job *job) {
  http_multi *m = job->multi;
  unlist(job);
  job->state = HTTP_RUNNING;
  TAILQ_INSERT_TAIL(&m->running, job, link);
  m->jobs++;
  m->added++;
  if (curl_multi_add_handle(m->curl, job->easy) == CURLM_OK)
    return;
  unlist(job);
  job->ended(job, CURLE_OUT_OF_MEMORY, HTTP_CURL);
}

static void work_off_dropped(http_multi *m) {
  http_job *job;
  while ((job = TAILQ_FIRST(&m->dropped)) != NULL && !out_of_time(m)) {
    curl_multi_remove_handle(m->curl, job->easy);
    unlist(job);
    job->gone(job);
  }
  if (m->trim)
    http_multi_trim(m);
}

static void work_off_late(http_multi *m) {
  watcher *w;
  while ((w = TAILQ_FIRST(&m->late)) != NULL && !out_of_time(m)) {
    int flags = w->flags;
    not_late(w);
    call_curl(m, w->fd, flags);
  }
}

static void on_worker(uv_idle_t *worker) {
  http_multi *m = worker->data;
  m->woken = false;
  m->turn_end = uv_hrtime() + TURN_NS; /* libuv calls this before on_turn */
  work_off_late(m);
  m->turn_end = uv_hrtime() + TURN_NS; /* neither keeps the other from its turn */
  work_off_dropped(m);
  http_job *job;
  while ((job = TAILQ_FIRST(&m->queued)) != NULL && m->added < MAX_ADDED && !out_of_time(m))
    give_to_curl(job);
  if (TAILQ_EMPTY(&m->late) && TAILQ_EMPTY(&m->dropped) && TAILQ_EMPTY(&m->queued) && !m->woken)
    uv_idle_stop(worker);
}

static void on_turn(uv_prepare_t *turn) { ((http_multi *)turn->data)->turn_begins = true; }

static CURLM *new_curl(http_multi *m) {
  CURLM *curl = curl_multi_init();
  if (curl == NULL)
    return NULL;
  curl_multi_setopt(curl, CURLMOPT_SOCKETFUNCTION, socket_wanted);
  curl_multi_setopt(curl, CURLMOPT_SOCKETDATA, m);
  curl_multi_setopt(curl, CURLMOPT_TIMERFUNCTION, timer_wanted);
  curl_multi_setopt(curl, CURLMOPT_TIMERDATA, m);
  curl_multi_setopt(curl, CURLMOPT_MAXCONNECTS, (long)MAX_CONNECTIONS);
  return curl;
}

void http_multi_add(http_multi *m, http_job *job, uint64_t total, uint64_t connect, uint64_t read) {
  job->multi = m;
  uv_update_time(m->loop);
  uint64_t now = uv_now(m->loop);
  job->total_at = total != 0 ? now + total : 0;
  job->connect_at = connect != 0 ? now + connect : 0;
  job->read_ms = read;
  job->moved = now;
  m->trim = false;
  if (m->curl == NULL && (m->curl = new_curl(m)) == NULL) {
    job->ended(job, CURLE_OUT_OF_MEMORY, HTTP_CURL);
    return;
  }
  curl_easy_setopt(job->easy, CURLOPT_PRIVATE, job);
  sweep_before(m, deadline(job));
  job->state = HTTP_QUEUED;
  TAILQ_INSERT_TAIL(&m->queued, job, link);
  m->jobs++;
  if (m->added < MAX_ADDED && TAILQ_FIRST(&m->queued) == job)
    give_to_curl(job);
  else
    uv_idle_start(&m->worker, on_worker);
}

bool http_multi_drop(http_job *job) {
  if (job->state == HTTP_DROPPED)
    return false;
  if (job->state != HTTP_RUNNING) {
    unlist(job);
    return true;
  }
  drop_later(job);
  uv_idle_start(&job->multi->worker, on_worker);
  return false;
}

CURLcode http_multi_pause(http_job *job, int mask) {
  if (job->state != HTTP_RUNNING)
    return CURLE_OK;
  return curl_easy_pause(job->easy, mask);
}

void http_multi_trim(http_multi *m) {
  m->trim = !m->closed && m->curl != NULL && m->jobs > 0;
  if (m->closed || m->curl == NULL || m->jobs > 0)
    return;
  curl_multi_cleanup(m->curl);
  m->curl = NULL;
  m->added = 0;
  uv_timer_stop(&m->timer);
}

/* ---- The life of a multi ---- */

static void end_all(http_multi *m, struct job_list *list) {
  http_job *job;
  while ((job = TAILQ_FIRST(list)) != NULL) {
    http_job_state state = job->state;
    if (state != HTTP_QUEUED)
      curl_multi_remove_handle(m->curl, job->easy);
    unlist(job);
    if (state == HTTP_DROPPED)
      job->gone(job);
    else
      job->ended(job, CURLE_ABORTED_BY_CALLBACK, HTTP_CLOSED);
  }
}

/* The loop closes: called as the close callback of each of the four handles. */
static void on_loop_closed(uv_handle_t *handle) {
  http_multi *m = handle->data;
  if (!m->closed) {
    m->closed = true;
    end_all(m, &m->queued);
    end_all(m, &m->running);
    end_all(m, &m->dropped);
    if (m->curl != NULL)
      curl_multi_cleanup(m->curl);
    m->curl = NULL;
  }
  http_multi_unref(m);
}

static http_multi *new_multi(uv_loop_t *loop) {
  http_multi *m = calloc(1, sizeof *m);
  if (m == NULL)
    return NULL;
  TAILQ_INIT(&m->late);
  TAILQ_INIT(&m->queued);
  TAILQ_INIT(&m->running);
  TAILQ_INIT(&m->dropped);
  m->on_close = on_loop_closed;
  m->loop = loop;
  m->refs = 4;
  /* None of these can fail in libuv. */
  uv_timer_init(loop, &m->timer);
  uv_timer_init(loop, &m->sweep);
  uv_idle_init(loop, &m->worker);
  uv_prepare_init(loop, &m->turn);
  m->timer.data = m->sweep.data = m->worker.data = m->turn.data = m;
  uv_prepare_start(&m->turn, on_turn);
  uv_unref((uv_handle_t *)&m->turn);
  uv_unref((uv_handle_t *)&m->sweep);
  m->turn_end = uv_hrtime() + TURN_NS;
  return m;
}

/* A userdata in the registry holds the multi of a loop; it may be of an earlier loop at the same address. */
static int box_gc(lua_State *L) {
  http_multi **box = lua_touserdata(L, 1);
  if (*box != NULL)
    http_multi_unref(*box);
  *box = NULL;
  return 0;
}

static const char boxes_key = 0;

http_multi *http_multi_of(lua_State *L, const char *what) {
  uv_loop_t *loop = ag_uv_share(L)->loop(L, what);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &boxes_key) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &boxes_key);
  }
  if (lua_rawgetp(L, -1, loop) == LUA_TNIL) {
    lua_pop(L, 1);
    *(http_multi **)lua_newuserdatauv(L, sizeof(http_multi *), 0) = NULL;
    if (luaL_newmetatable(L, "agather.http.Multi")) {
      lua_pushcfunction(L, box_gc);
      lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, -3, loop);
  }
  http_multi **box = lua_touserdata(L, -1);
  lua_pop(L, 2);
  if (*box != NULL && (*box)->closed) {
    http_multi_unref(*box);
    *box = NULL;
  }
  if (*box == NULL) {
    *box = new_multi(loop);
    if (*box == NULL)
      luaL_error(L, "not enough memory");
    http_multi_ref(*box);
  }
  return *box;
}
