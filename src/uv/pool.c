/* libuv begins all the threads of its pool with the first work it gets, and aborts where the system refuses one: beyond
** RLIMIT_NPROC, or in a container that may have so many. So as many are begun here first, and ended. What another
** thread or process takes in the moment between is beyond help.
** The threads take no signals, which could come to them while their disposition changes: see ag_signal_end. */
#include "uv/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <uv.h>

enum { DEFAULT_THREADS = 4, MOST_THREADS = 1024, STACK_SIZE = 8 << 20 }; /* as libuv's */

enum { PATIENCE = 10000 }; /* turns of other threads until those that have ended are gone */

static unsigned pool_size(void) {
  const char *text = getenv("UV_THREADPOOL_SIZE");
  int size = text != NULL ? atoi(text) : DEFAULT_THREADS;
  if (size <= 0)
    return 1;
  return size < MOST_THREADS ? (unsigned)size : MOST_THREADS;
}

/* How many threads the system counts, plus a constant; 0 where it does not tell. */
static unsigned long count_threads(void) {
  struct stat s;
  return stat("/proc/self/task", &s) == 0 ? (unsigned long)s.st_nlink : 0;
}

static void wait_for_all(void *gate) {
  uv_mutex_lock(gate);
  uv_mutex_unlock(gate);
}

static int try_threads(uv_thread_t *threads, unsigned wanted) {
  uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = STACK_SIZE};
  unsigned long before = count_threads();
  unsigned count = 0;
  uv_mutex_t gate;
  int status = uv_mutex_init(&gate);
  if (status != 0)
    return status;
  uv_mutex_lock(&gate);
  while (status == 0 && count < wanted) {
    status = uv_thread_create_ex(&threads[count], &options, wait_for_all, &gate);
    count += status == 0;
  }
  uv_mutex_unlock(&gate);
  while (count > 0)
    uv_thread_join(&threads[--count]);
  uv_mutex_destroy(&gate);
  /* A thread that was joined counts for a moment more. */
  for (int turn = 0; turn < PATIENCE && count_threads() > before; turn++)
    sched_yield();
  return status;
}

static int check_threads(void) {
  unsigned size = pool_size();
  uv_thread_t *threads = calloc(size, sizeof *threads);
  if (threads == NULL)
    return UV_ENOMEM;
  int status = try_threads(threads, size);
  free(threads);
  return status;
}

/* The threads that begin inherit the mask. Faults are a thread's own. */
static int submit_first(int (*submit)(void *data), void *data) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
  sigset_t all, mask;
  sigfillset(&all);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
    sigdelset(&all, faults[i]);
  pthread_sigmask(SIG_SETMASK, &all, &mask);
  int status = submit(data);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  return status;
}

int ag_pool_submit(int (*submit)(void *data), void *data) {
  static atomic_bool begun;
  if (atomic_load(&begun))
    return submit(data);
  int status = check_threads();
  if (status == 0)
    status = submit_first(submit, data);
  if (status == 0)
    atomic_store(&begun, true);
  return status;
}
