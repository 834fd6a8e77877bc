/* Pools of workers and their jobs, on the loop's thread: making jobs of functions and values, waiting for them, and
** closing, at any moment. lua/agather/worker.lua gives this its shape for scripts. */
#include "uv/worker.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POOL "agather.WorkerPool"
#define JOB "agather.WorkerJob"

/* ---- jobs ---- */

static void job_free(job *j) {
  ag_message_free(&j->input);
  ag_message_free(&j->output);
  ag_job_paths_drop(j->paths);
  free(j);
}

/* A task waits no longer. */
static void job_uncount(job *j, pool *p) {
  if (!j->counted)
    return;
  j->counted = false;
  if (--p->pending == 0 && !ag_waiting(&p->closer))
    uv_unref((uv_handle_t *)&p->done_signal);
}

/* Takes the job off the queue. Called with the lock held. */
static void job_unqueue(pool *p, job *j) {
  *j->place = j->next;
  if (j->next == NULL)
    p->queue_end = j->place;
  else
    j->next->place = j->place;
  j->next = NULL;
  p->waiting--;
  j->state = JOB_DONE;
  j->among = NULL;
}

/* Nobody wants the job any more. */
static void job_leave(job *j) {
  pool *p = j->among;
  if (p == NULL)
    return;
  job_uncount(j, p);
  pthread_mutex_lock(&p->lock);
  if (j->state == JOB_QUEUED)
    job_unqueue(p, j);
  else if (j->state == JOB_RUNNING)
    ag_worker_stop(j);
  pthread_mutex_unlock(&p->lock);
}

static void job_cancel(ag_wait *wait) { job_leave((job *)((char *)wait - offsetof(job, wait))); }

static job *check_job(lua_State *L) { return *(job **)luaL_checkudata(L, 1, JOB); }

static int job_gc(lua_State *L) {
  job **box = luaL_checkudata(L, 1, JOB);
  job *j = *box;
  *box = NULL;
  if (j == NULL)
    return 0;
  j->owned = false;
  ag_wake(&j->wait); /* at the state's end the loop may go after this, and must find no wait in what is freed here */
  job_leave(j);
  if (j->among == NULL)
    job_free(j);
  return 0;
}

/* ---- pools ---- */

static void pool_free(pool *p) {
  pthread_mutex_destroy(&p->lock);
  pthread_cond_destroy(&p->queued);
  pthread_cond_destroy(&p->left);
  ag_job_paths_drop(p->paths);
  free(p);
}

/* These jobs are the pool's no more: wakes those who wait for them. */
static void let_go(pool *p, job *jobs) {
  while (jobs != NULL) {
    job *j = jobs;
    jobs = j->next;
    j->next = NULL;
    job_uncount(j, p);
    j->among = NULL;
    if (j->owned)
      ag_wake(&j->wait);
    else
      job_free(j);
  }
}

/* Wakes those whose jobs are done. */
static void pool_collect(pool *p) {
  pthread_mutex_lock(&p->lock);
  job *done = p->done;
  p->done = NULL;
  p->done_end = &p->done;
  pthread_mutex_unlock(&p->lock);
  let_go(p, done);
}

/* Stops what runs, drops what is queued, and sends the threads home; wakes those who wait for a job. */
static void pool_shut(pool *p) {
  pthread_mutex_lock(&p->lock);
  bool closing = p->closing;
  p->closing = true;
  job *dropped = p->queue;
  for (job *j = dropped; j != NULL; j = j->next) {
    j->state = JOB_DONE;
    j->closed = true;
  }
  p->queue = NULL;
  p->queue_end = &p->queue;
  p->waiting = 0;
  for (int i = 0; i < p->started; i++)
    if (p->workers[i].job != NULL)
      ag_worker_stop(p->workers[i].job);
  pthread_cond_broadcast(&p->queued);
  pthread_mutex_unlock(&p->lock);
  if (closing)
    return;
  let_go(p, dropped);
}

/* Waits for the threads, which have been sent home. Those that stay are told again and again: a loop that runs in one
** first asks its tasks to end. */
static void pool_join(pool *p) {
  if (p->joined)
    return;
  pthread_mutex_lock(&p->lock);
  while (p->ended < p->started) {
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec += 50000000;
    soon.tv_sec += soon.tv_nsec / 1000000000;
    soon.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&p->left, &p->lock, &soon);
    for (int i = 0; i < p->started; i++)
      if (p->workers[i].job != NULL)
        ag_worker_stop(p->workers[i].job);
  }
  pthread_mutex_unlock(&p->lock);
  for (int i = 0; i < p->started; i++)
    pthread_join(p->workers[i].thread, NULL);
  p->joined = true;
  pool_collect(p);
}

/* The loop closes, or it is the end of the pool. No Lua here. */
static void on_close(uv_handle_t *handle) {
  pool *p = (pool *)((char *)handle - offsetof(pool, done_signal));
  pthread_mutex_lock(&p->lock);
  p->handle_open = false; /* no thread is within uv_async_send, and none will be */
  pthread_mutex_unlock(&p->lock);
  pool_shut(p);
  pool_join(p);
  if (!p->owned)
    pool_free(p);
}

static void pool_close_handle(pool *p) {
  if (p->handle_open && !uv_is_closing((uv_handle_t *)&p->done_signal))
    uv_close((uv_handle_t *)&p->done_signal, on_close);
}

static void on_done(uv_async_t *handle) {
  pool *p = (pool *)((char *)handle - offsetof(pool, done_signal));
  pool_collect(p);
  pthread_mutex_lock(&p->lock);
  bool over = p->closing && p->ended == p->started;
  pthread_mutex_unlock(&p->lock);
  if (over) {
    pool_join(p);
    pool_close_handle(p);
    ag_wake(&p->closer);
  }
}

static pool *check_pool(lua_State *L) { return *(pool **)luaL_checkudata(L, 1, POOL); }

static int pool_gc(lua_State *L) {
  pool **box = luaL_checkudata(L, 1, POOL);
  pool *p = *box;
  *box = NULL;
  if (p == NULL)
    return 0;
  p->owned = false;
  ag_wake(&p->closer);
  if (!p->handle_open) {
    pool_free(p);
  } else if (!uv_is_closing((uv_handle_t *)&p->done_signal)) {
    pool_shut(p);
    uv_async_send(&p->done_signal); /* on_done sees to the rest once the threads have ended, or on_close */
  }
  return 0;
}

/* pool(size): threads come with the jobs, up to [size]. */
static int worker_pool(lua_State *L) {
  lua_Integer size = luaL_checkinteger(L, 1);
  luaL_argcheck(L, size >= 1 && size <= 1024, 1, "size must be from 1 to 1024");
  uv_loop_t *loop = ag_uv_loop_for_handle(L, "worker.Pool");
  pool **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, POOL);
  pool *p = calloc(1, sizeof *p + (size_t)size * sizeof p->workers[0]);
  if (p == NULL)
    return luaL_error(L, "not enough memory");
  int status = uv_async_init(loop, &p->done_signal, on_done);
  if (status != 0) {
    free(p);
    return ag_uv_error(L, status, "worker.Pool", NULL);
  }
  uv_unref((uv_handle_t *)&p->done_signal);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->queued, NULL);
  pthread_cond_init(&p->left, NULL);
  p->on_close = on_close;
  p->done_signal.data = p;
  p->handle_open = p->owned = true;
  p->queue_end = &p->queue;
  p->done_end = &p->done;
  p->size = (int)size;
  *box = p;
  return 1;
}

static void cancel_close(ag_wait *wait) {
  pool *p = (pool *)((char *)wait - offsetof(pool, closer));
  if (p->pending == 0)
    uv_unref((uv_handle_t *)&p->done_signal);
}

static int closed(lua_State *L, int status, lua_KContext context) {
  (void)L, (void)status, (void)context;
  return 0;
}

/* close(pool, wait): stops what runs and waits until the threads have ended: the task does, or else the thread. */
static int worker_close(lua_State *L) {
  pool *p = check_pool(L);
  if (p == NULL || p->joined)
    return 0;
  pool_shut(p);
  pthread_mutex_lock(&p->lock);
  bool over = p->ended == p->started;
  pthread_mutex_unlock(&p->lock);
  if (over || !p->handle_open || !lua_toboolean(L, 2)) {
    pool_join(p);
    pool_close_handle(p);
    ag_wake(&p->closer);
    return 0;
  }
  if (ag_waiting(&p->closer))
    return 0;
  p->closer.cancel = cancel_close;
  uv_ref((uv_handle_t *)&p->done_signal);
  return ag_suspend(L, &p->closer, 0, closed);
}

/* ---- making jobs ---- */

/* The paths on which the script finds modules. Pushes them. [-0, +3, e] */
static job_paths *current_paths(lua_State *L, pool *p) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "package");
  const char *path = "", *cpath = "";
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "path");
    lua_getfield(L, -2, "cpath");
    path = lua_isstring(L, -2) ? lua_tostring(L, -2) : "";
    cpath = lua_isstring(L, -1) ? lua_tostring(L, -1) : "";
  }
  job_paths *paths = p->paths;
  if (paths == NULL || strcmp(paths->path, path) != 0 || strcmp(paths->cpath, cpath) != 0) {
    paths = calloc(1, sizeof *paths);
    if (paths == NULL)
      luaL_error(L, "not enough memory");
    atomic_store(&paths->shares, 1);
    paths->path = strdup(path);
    paths->cpath = strdup(cpath);
    if (paths->path == NULL || paths->cpath == NULL) {
      ag_job_paths_drop(paths);
      luaL_error(L, "not enough memory");
    }
    ag_job_paths_drop(p->paths);
    p->paths = paths;
  }
  return paths;
}

job *ag_worker_job(lua_State *L) {
  pool *p = check_pool(L);
  job **box = lua_newuserdatauv(L, sizeof(void *), 1);
  *box = NULL;
  luaL_setmetatable(L, JOB);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  job *j = calloc(1, sizeof *j);
  if (j == NULL)
    luaL_error(L, "not enough memory");
  *box = j;
  j->owned = true;
  j->wait.cancel = job_cancel;
  int top = lua_gettop(L);
  j->paths = current_paths(L, p);
  atomic_fetch_add(&j->paths->shares, 1);
  lua_settop(L, top);
  return j;
}

/* ---- running them ---- */

/* Gives the job to the pool; an errno where no thread can be had. */
static int pool_enqueue(pool *p, job *j) {
  int status = 0;
  pthread_mutex_lock(&p->lock);
  j->place = p->queue_end;
  *p->queue_end = j;
  p->queue_end = &j->next;
  p->waiting++;
  j->state = JOB_QUEUED;
  j->among = p;
  if (p->waiting > p->idle && p->started < p->size)
    status = ag_worker_start(p);
  if (status != 0 && p->started > 0)
    status = 0; /* those that are there will do it */
  if (status != 0)
    job_unqueue(p, j);
  else
    pthread_cond_signal(&p->queued);
  pthread_mutex_unlock(&p->lock);
  if (status == 0) {
    j->counted = true;
    if (p->pending++ == 0)
      uv_ref((uv_handle_t *)&p->done_signal);
  }
  return status;
}

/* Stack: job, list or nil, first place in it. */
static int take_results(lua_State *L, job *j) {
  ag_copier c;
  ag_copier_begin(&c, L, &j->output);
  int n = (int)ag_message_get_integer(c.message);
  lua_pushboolean(L, true);
  if (lua_istable(L, 2)) {
    lua_Integer first = lua_tointeger(L, 3);
    for (int i = 0; i < n; i++) {
      ag_copier_get(&c);
      lua_rawseti(L, 2, first + i);
    }
    return 1;
  }
  luaL_checkstack(L, n + 10, "too many results");
  for (int i = 0; i < n; i++)
    ag_copier_get(&c);
  return n + 1;
}

static int waited(lua_State *L, int status, lua_KContext context) {
  job *j = (job *)context;
  (void)status;
  if (j->closed || j->state != JOB_DONE || atomic_load(&j->stop))
    return ag_error(L, "RuntimeError", "the worker pool was closed");
  ag_copier c;
  switch (j->outcome) {
  case OUTCOME_RESULTS:
    return take_results(L, j);
  case OUTCOME_RAISED:
    ag_copier_begin(&c, L, &j->output);
    lua_pushboolean(L, false);
    for (int i = 0; i < 3; i++)
      ag_copier_get(&c);
    return 4;
  case OUTCOME_REFUSED:
    return ag_error(L, "RuntimeError", j->output.data);
  default:
    return luaL_error(L, "not enough memory");
  }
}

/* job:wait([list, first]): true and the results, which go into the list where there is one; or false, the error, its
** traceback, and the name of its error class or nil. */
static int job_wait(lua_State *L) {
  job *j = check_job(L);
  lua_settop(L, 3);
  lua_getiuservalue(L, 1, 1);
  pool *p = *(pool **)lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (j->state != JOB_NEW)
    return ag_error(L, "RuntimeError", "the job was waited for before");
  if (p == NULL || p->closing)
    return ag_error(L, "RuntimeError", "the worker pool is closed");
  if (ag_uv_loop(L, "worker") != p->done_signal.loop)
    return ag_error(L, "RuntimeError", "the worker pool belongs to another loop");
  ag_suspend_check(L);
  int status = pool_enqueue(p, j);
  if (status != 0)
    return ag_uv_error(L, uv_translate_sys_error(status), "pthread_create", NULL);
  return ag_suspend(L, &j->wait, (lua_KContext)j, waited);
}

/* How many threads can run at the same time. */
static int worker_parallelism(lua_State *L) {
  lua_pushinteger(L, uv_available_parallelism());
  return 1;
}

void ag_open_worker(lua_State *L) {
  static const luaL_Reg functions[] = {{"pool", worker_pool},
                                       {"close", worker_close},
                                       {"call", ag_worker_call},
                                       {"map", ag_worker_map},
                                       {"wait", job_wait},
                                       {"parallelism", worker_parallelism},
                                       {NULL, NULL}};
  luaL_newmetatable(L, POOL);
  lua_pushcfunction(L, pool_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newmetatable(L, JOB);
  lua_pushcfunction(L, job_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 2);
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "worker");
}
