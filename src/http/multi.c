/* curl's multi socket interface on libuv.
**
** curl says which sockets it waits for and when it wants to be called; libuv's callbacks call it then, and after each
** call what has finished is taken out. All calls of curl_multi_* come from libuv's callbacks or from Lua, never from
** within a callback of curl.
**
** Starting and dropping a transfer costs curl some 20 to 100 us, so when hundreds come at once they are worked off over
** turns of the loop, some milliseconds each; so are sockets that are ready. */
#include "http/multi.h"

#include <lauxlib.h>
#include <stddef.h>
#include <stdlib.h>
#include <uv.h>

#include "http/socket.h"
#include "noreturn.h"
#include "uv/share.h"

enum {
  MAX_ADDED = 32,       /* jobs given to curl before it has looked at them */
  MAX_CONNECTIONS = 512 /* that stay open when nothing uses them */
};

TAILQ_HEAD(job_list, http_job);

/* The sum of [queued], [running] and [dropped] jobs is [jobs]; [curl] is NULL only without jobs. */
struct http_multi {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_loop_t *loop;
  uv_timer_t timer; /* the one that curl asked for */
  uv_timer_t sweep; /* the next deadline of a job, or earlier */
  uv_idle_t worker; /* active while jobs are queued or dropped, or sockets late */
  uv_prepare_t turn;
  uint64_t sweep_at;
  CURLM *curl;
  http_sockets sockets;
  struct job_list queued, running, dropped;
  size_t jobs;
  int added;   /* jobs given to curl since it was last called */
  size_t refs; /* libuv handles that are not closed, and holders */
  bool closed;
  bool trim;  /* close idle connections once no job is there */
  bool woken; /* a task has become ready in this phase of libuv's loop */
};

void http_multi_ref(http_multi *m) { m->refs++; }

void http_multi_unref(http_multi *m) {
  if (--m->refs > 0)
    return;
  http_sockets_clear(&m->sockets);
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

static CURLM *new_curl(http_multi *m);

/* curl lacked memory, and does not say what it has lost: a socket that it cannot watch, or all of them for good. Who
** runs gets the error, and curl is made anew for those who are queued. */
static void begin_anew(http_multi *m) {
  http_job *job;
  while ((job = TAILQ_FIRST(&m->running)) != NULL) {
    curl_multi_remove_handle(m->curl, job->easy);
    unlist(job);
    job->ended(job, CURLE_OUT_OF_MEMORY, HTTP_CURL);
  }
  while ((job = TAILQ_FIRST(&m->dropped)) != NULL) {
    curl_multi_remove_handle(m->curl, job->easy);
    unlist(job);
    job->gone(job);
  }
  curl_multi_cleanup(m->curl);
  uv_timer_stop(&m->timer);
  m->added = 0;
  m->trim = false;
  m->curl = m->jobs > 0 ? new_curl(m) : NULL;
  while (m->curl == NULL && (job = TAILQ_FIRST(&m->queued)) != NULL) {
    unlist(job);
    job->ended(job, CURLE_OUT_OF_MEMORY, HTTP_CURL);
  }
}

static void call_curl(http_multi *m, curl_socket_t fd, int flags) {
  int running;
  m->added = 0;
  CURLMcode code = curl_multi_socket_action(m->curl, fd, flags, &running);
  drain(m);
  if (code != CURLM_OK && m->curl != NULL)
    begin_anew(m);
}

static void on_worker(uv_idle_t *worker);

/* ---- what the sockets ask for ---- */

static http_multi *multi_of(http_sockets *sockets) {
  return (http_multi *)(void *)((char *)sockets - offsetof(http_multi, sockets));
}

static void socket_ready(http_sockets *sockets, curl_socket_t fd, int flags) {
  if (multi_of(sockets)->curl != NULL)
    call_curl(multi_of(sockets), fd, flags);
}

static void sockets_late(http_sockets *sockets) { uv_idle_start(&multi_of(sockets)->worker, on_worker); }

static void socket_holds(http_sockets *sockets) { http_multi_ref(multi_of(sockets)); }

static void socket_lets_go(http_sockets *sockets) { http_multi_unref(multi_of(sockets)); }

bool http_multi_adopt(http_multi *m, CURL *easy) { return http_sockets_adopt(&m->sockets, easy); }

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
  while ((job = TAILQ_FIRST(&m->dropped)) != NULL && !http_sockets_out_of_time(&m->sockets)) {
    curl_multi_remove_handle(m->curl, job->easy);
    unlist(job);
    job->gone(job);
  }
  if (m->trim)
    http_multi_trim(m);
}

static void on_worker(uv_idle_t *worker) {
  http_multi *m = worker->data;
  m->woken = false;
  http_sockets_turn(&m->sockets);
  http_sockets_catch_up(&m->sockets);
  http_sockets_turn(&m->sockets); /* neither keeps the other from its turn */
  work_off_dropped(m);
  http_job *job;
  while ((job = TAILQ_FIRST(&m->queued)) != NULL && m->added < MAX_ADDED && !http_sockets_out_of_time(&m->sockets))
    give_to_curl(job);
  if (TAILQ_EMPTY(&m->sockets.late) && TAILQ_EMPTY(&m->dropped) && TAILQ_EMPTY(&m->queued) && !m->woken)
    uv_idle_stop(worker);
}

static void on_turn(uv_prepare_t *turn) { http_sockets_turn_next(&((http_multi *)turn->data)->sockets); }

static CURLM *new_curl(http_multi *m) {
  CURLM *curl = http_sockets_new_multi();
  if (curl == NULL)
    return NULL;
  http_sockets_serve(&m->sockets, curl);
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
    m->closed = m->sockets.closed = true;
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
  m->sockets.ready = socket_ready;
  m->sockets.has_late = sockets_late;
  m->sockets.hold = socket_holds;
  m->sockets.let_go = socket_lets_go;
  http_sockets_init(&m->sockets, loop);
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
    luaL_newmetatable(L, "agather.http.Multi");
    lua_pushcfunction(L, box_gc);
    lua_setfield(L, -2, "__gc"); /* each time: there may not have been memory for it before */
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
