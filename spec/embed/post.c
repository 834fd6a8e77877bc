/* Four threads and a loop: nothing that they give it is lost, dropped twice or run twice.
**   post resolve COUNT   tasks await COUNT operations that the threads answer
**   post io COUNT        the same on the poller that brings input and output
**   post close ROUNDS    the loop closes while the threads post and answer
**   post poller ROUNDS   the loop gets another poller while the threads post
** Prints what it counted; fails loudly where the counts differ. */
#define _GNU_SOURCE
#include <agather.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 4, TASKS = 256, BATCH = 16, OPS = 16, AHEAD = 200 };

static lua_State *L;
static ag_loop *loop;

static void must(bool ok, const char *what) {
  if (ok)
    return;
  printf("FAILED: %s\n", what);
  exit(1);
}

static void must_status(ag_status status, const char *what) {
  if (status >= AG_OK)
    return;
  printf("FAILED: %s: status %d, %s\n", what, status, status == AG_ERROR ? luaL_tolstring(L, -1, NULL) : "");
  exit(1);
}

static void start_threads(pthread_t *threads, void *(*body)(void *), void *data, size_t size) {
  for (int i = 0; i < THREADS; i++)
    must(pthread_create(&threads[i], NULL, body, (char *)data + (size_t)i * size) == 0, "no thread");
}

static void join_threads(pthread_t *threads) {
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
}

/* ---- resolve ---- */

typedef struct job {
  ag_op *op;
  lua_Integer n;
} job;

static struct {
  pthread_mutex_t lock;
  pthread_cond_t ready;
  job jobs[TASKS]; /* a ring: no more than TASKS are under way */
  unsigned first, count;
  bool ended;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .ready = PTHREAD_COND_INITIALIZER};

static int push_double(lua_State *S, void *data) {
  lua_pushinteger(S, 2 * (lua_Integer)(intptr_t)data);
  return 1;
}

static void *answer_jobs(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&queue.lock);
    while (queue.count == 0 && !queue.ended)
      pthread_cond_wait(&queue.ready, &queue.lock);
    job jobs[BATCH];
    int n = 0;
    for (; n < BATCH && queue.count > 0; queue.count--, queue.first = (queue.first + 1) % TASKS)
      jobs[n++] = queue.jobs[queue.first];
    pthread_mutex_unlock(&queue.lock);
    if (n == 0)
      return NULL;
    for (int i = 0; i < n; i++) {
      must(ag_op_resolve(jobs[i].op, push_double, NULL, (void *)(intptr_t)jobs[i].n) == AG_OK, "an answer was refused");
      ag_op_unref(jobs[i].op);
    }
  }
}

/* compute(n): a future of 2 * n, from another thread. */
static int compute(lua_State *S) {
  job j = {NULL, luaL_checkinteger(S, 1)};
  if (ag_op_create(S, ag_running_loop(S, "compute"), NULL, NULL, &j.op) != AG_OK)
    return lua_error(S);
  pthread_mutex_lock(&queue.lock);
  queue.jobs[(queue.first + queue.count++) % TASKS] = j;
  if (queue.count % BATCH == 1)
    pthread_cond_signal(&queue.ready);
  pthread_mutex_unlock(&queue.lock);
  return 1;
}

static const char resolving[] = "local compute, count, tasks, io = ... "
                                "local listener <close> = io and require('agather').net.listen('127.0.0.1', 0) or nil "
                                "local agather, done, left = require 'agather.core', 0, tasks "
                                "local all = agather.future() "
                                "for task = 1, tasks do agather.spawn(function() "
                                "  for n = task, count, tasks do "
                                "    if agather.await(compute(n)) ~= 2 * n then error('wrong answer') end "
                                "    done = done + 1 "
                                "  end "
                                "  left = left - 1 "
                                "  if left == 0 then all:set_result(done) end "
                                "end) end "
                                "return agather.await(all)";

static void resolve(long count, bool io) {
  pthread_t threads[THREADS];
  start_threads(threads, answer_jobs, &queue, 0);
  must(luaL_loadstring(L, resolving) == LUA_OK, "the script");
  lua_pushcfunction(L, compute);
  lua_pushinteger(L, count);
  lua_pushinteger(L, TASKS);
  lua_pushboolean(L, io);
  must_status(ag_spawn(L, loop, 4), "spawn");
  must_status(ag_run_until(L, loop, -1), "run");
  must_status(ag_future_outcome(L, -1), "the main task");
  must(lua_tointeger(L, -1) == count, "futures were lost");
  pthread_mutex_lock(&queue.lock);
  queue.ended = true;
  pthread_cond_broadcast(&queue.ready);
  pthread_mutex_unlock(&queue.lock);
  join_threads(threads);
  must(ag_loop_destroy(L, loop) == AG_OK, "destroy");
  printf("%ld answered\n", count);
}

/* ---- close ---- */

static atomic_long posted, ran, dropped, released, unwanted;

static void count_run(lua_State *S, void *data) {
  (void)S, (void)data;
  ran++;
}

static void count_drop(void *data) {
  (void)data;
  dropped++;
}

static void count_release(void *data) {
  (void)data;
  released++;
}

static void count_unwanted(ag_op *op, void *data) {
  (void)data;
  unwanted += !ag_op_wanted(op);
}

/* Posts, but no more than a few ahead of the loop: posting is much faster than running. */
static ag_status post(ag_remote *remote) {
  while (posted - ran - dropped > AHEAD)
    sched_yield();
  posted++;
  return ag_post(remote, count_run, count_drop, NULL);
}

typedef struct poster {
  ag_remote *remote;
  ag_op *ops[OPS];
  long answers;
} poster;

/* Posts until the loop is closed; answers its operations on the way, each twice. */
static void *post_until_closed(void *data) {
  poster *p = data;
  int next = 0;
  for (ag_status status = AG_OK; status == AG_OK || next < OPS;) {
    status = post(p->remote);
    if (next == OPS)
      continue;
    for (int i = 0; i < 2; i++, p->answers++)
      ag_op_resolve(p->ops[next], push_double, count_release, NULL);
    ag_op_unref(p->ops[next++]);
  }
  ag_remote_unref(p->remote);
  return NULL;
}

static void close_while_posting(long rounds) {
  long answers = 0;
  for (long round = 0; round < rounds; round++) {
    static poster posters[THREADS];
    for (int i = 0; i < THREADS; i++) {
      posters[i] = (poster){.remote = ag_loop_remote(loop)};
      for (int k = 0; k < OPS; k++) {
        must_status(ag_op_create(L, loop, count_unwanted, NULL, &posters[i].ops[k]), "an operation");
        long before = unwanted;
        if ((i + k) % 3 == 0) { /* nobody wants this one */
          must_status(ag_future_cancel(L, -1, NULL), "cancel");
          must(unwanted == before + 1, "the C side does not know that an answer is unwanted");
        }
        lua_pop(L, 1);
      }
    }
    pthread_t threads[THREADS];
    start_threads(threads, post_until_closed, posters, sizeof *posters);
    for (long i = 0; i < round % 8; i++)
      must_status(ag_step(L, loop), "step");
    must(ag_loop_destroy(L, loop) == AG_OK, "destroy");
    join_threads(threads);
    for (int i = 0; i < THREADS; i++)
      answers += posters[i].answers;
    must_status(ag_loop_create(L, &loop), "a loop");
  }
  must(ag_loop_destroy(L, loop) == AG_OK, "destroy");
  must(posted == ran + dropped, "a post was lost, or ran twice");
  must(answers == released, "an answer was lost, or released twice");
  printf("%ld posts, %ld answers\n", posted, answers);
}

/* ---- poller ---- */

typedef struct pipe_poller {
  ag_poller base;
  int pipe[2];
} pipe_poller;

static void pipe_wait(ag_poller *poller, double timeout) {
  pipe_poller *p = (pipe_poller *)poller;
  struct pollfd fd = {p->pipe[0], POLLIN, 0};
  char buffer[64];
  if (poll(&fd, 1, timeout < 0 ? -1 : (int)(timeout * 1000)) > 0)
    while (read(p->pipe[0], buffer, sizeof buffer) > 0) {
    }
}

static void pipe_wake(ag_poller *poller) {
  ssize_t n = write(((pipe_poller *)poller)->pipe[1], "", 1);
  must(n == 1 || errno == EAGAIN, "woke a poller that is closed");
}

static bool pipe_alive(ag_poller *poller) {
  (void)poller;
  return false;
}

static void pipe_close(ag_poller *poller) {
  pipe_poller *p = (pipe_poller *)poller;
  close(p->pipe[0]);
  close(p->pipe[1]);
  memset(p, 0xee, sizeof *p);
  free(p);
}

static ag_poller *new_poller(void) {
  pipe_poller *p = malloc(sizeof *p);
  must(p != NULL && pipe2(p->pipe, O_NONBLOCK | O_CLOEXEC) == 0, "a pipe");
  p->base = (ag_poller){pipe_wait, pipe_wake, pipe_alive, NULL, pipe_close, NULL};
  return &p->base;
}

enum { PER_ROUND = 50 };
static long rounds_to_post;

static void *post_rounds(void *data) {
  ag_remote *remote = *(ag_remote **)data;
  for (long i = 0; i < rounds_to_post * PER_ROUND; i++) {
    must(post(remote) == AG_OK, "a post was refused");
    ag_remote_wakeup(remote);
  }
  ag_remote_unref(remote);
  return NULL;
}

static void replace_poller(long rounds) {
  ag_remote *remotes[THREADS];
  for (int i = 0; i < THREADS; i++)
    remotes[i] = ag_loop_remote(loop);
  pthread_t threads[THREADS];
  rounds_to_post = rounds;
  start_threads(threads, post_rounds, remotes, sizeof *remotes);
  long all = rounds * PER_ROUND * THREADS;
  long replaced = 0;
  ag_loop_hold(loop);
  for (; ran < all; replaced++) {
    ag_loop_set_poller(loop, new_poller());
    must_status(ag_step(L, loop), "step");
  }
  ag_loop_release(loop);
  join_threads(threads);
  must(ag_step(L, loop) != AG_REENTRANT && !ag_alive(loop), "the loop should have nothing left");
  must(ag_loop_destroy(L, loop) == AG_OK && dropped == 0, "a post was dropped");
  must(replaced > 1, "the poller was never replaced");
  printf("%ld posts\n", ran);
}

int main(int argc, char **argv) {
  long count = argc == 3 ? atol(argv[2]) : 0;
  if (count <= 0) {
    fprintf(stderr, "usage: post resolve|io|close|poller COUNT\n");
    return 2;
  }
  L = luaL_newstate();
  luaL_openlibs(L);
  must_status(ag_open(L), "open");
  must_status(ag_loop_create(L, &loop), "a loop");
  if (strcmp(argv[1], "resolve") == 0 || strcmp(argv[1], "io") == 0)
    resolve(count, argv[1][0] == 'i');
  else if (strcmp(argv[1], "close") == 0)
    close_while_posting(count);
  else
    replace_poller(count);
  lua_close(L);
  return 0;
}
