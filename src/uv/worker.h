/* Workers: functions that run in Lua states of their own on threads of their own, neither libuv's nor the loop's.
** worker.c has the loop's side (pools, jobs, who waits) and worker_input.c what jobs are sent; worker_thread.c has the
** threads, worker_state.c their states, and worker_stop.c what stops a job in the middle.
** The pool's lock guards the queue, the list of what is done, and which job a thread has; the rest of a job belongs to
** the loop's thread before it is queued and after it is done, and to the worker in between. */
#ifndef AG_UV_WORKER_H
#define AG_UV_WORKER_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "uv/message.h"
#include "uv/uv.h"

typedef struct pool pool;
typedef struct worker worker;

/* What a job's input begins with. */
enum job_kind { JOB_CALL, JOB_MAP }; /* one call with all values; or a call for each value and its place */
enum job_function { FUNCTION_DUMPED, FUNCTION_NAMED };
enum job_upvalue { UPVALUE_PLAIN, UPVALUE_GLOBALS, UPVALUE_ITSELF };

enum job_state { JOB_NEW, JOB_QUEUED, JOB_RUNNING, JOB_DONE };

/* What a job's output holds. */
enum job_outcome {
  OUTCOME_RESULTS,  /* number of values, values */
  OUTCOME_RAISED,   /* value, traceback, name of the error class or nil */
  OUTCOME_REFUSED,  /* text: a result cannot be copied */
  OUTCOME_NO_MEMORY /* nothing */
};

/* Where workers find modules; jobs share it and never change it. */
typedef struct job_paths {
  atomic_int shares;
  char *path, *cpath;
} job_paths;

typedef struct job {
  ag_wait wait;              /* the task that waits, loop's thread only */
  pool *among;               /* NULL before it is queued and after it is done */
  struct job *next, **place; /* in the queue or the list of what is done; what points to it in the queue */
  enum job_state state;
  bool owned;     /* a userdata refers to it */
  bool counted;   /* among the pool's pending */
  bool closed;    /* the pool was closed before it was done */
  worker *worker; /* while it runs */
  atomic_bool stop;
  job_paths *paths;
  ag_message input, output;
  enum job_outcome outcome;
  bool spoiled; /* the state is not to be used again */
} job;

struct worker {
  pool *among;
  pthread_t thread;
  job *job;                        /* changed under the lock */
  lua_State *L;                    /* NULL until the first job */
  lua_State *volatile current;     /* the coroutine that runs; changed by this thread alone */
  void *volatile loops;            /* for ag_interrupt, where the state has agather too */
  volatile sig_atomic_t listening; /* whether [current] may be stopped */
  job_paths *paths;                /* those the state knows */
  int kept;                        /* KB that the state held after its last collection */
};

struct pool {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_async_t done_signal;
  /* the loop's thread only */
  bool owned, joined;
  int pending; /* jobs with a task that waits */
  ag_wait closer;
  job_paths *paths; /* those of the last job */
  pthread_mutex_t lock;
  pthread_cond_t queued, left; /* a job, a thread */
  /* under the lock */
  bool handle_open, closing;
  job *queue, **queue_end, *done, **done_end;
  int size, waiting, started, idle, ended; /* jobs in the queue, threads */
  worker workers[];
};

/* Pushes the userdata of a new job for the pool at 1. [-0, +1, e] */
job *ag_worker_job(lua_State *L);
/* call(pool, function or module, name, ...): a job; or nil, the number of the argument that cannot be copied (the
** function's is 1), and why. */
int ag_worker_call(lua_State *L);
/* map(pool, function or module, name, list, first, last): the same for a call with each of some items and its place;
** the number is that of the item. */
int ag_worker_map(lua_State *L);

/* Starts a thread for the pool, which has room for one; returns an errno. Called with the lock held. */
int ag_worker_start(pool *pool);
/* Makes the function of a job that runs leave at its next instruction. Called with the lock held. */
void ag_worker_stop(job *job);

/* Runs the job in the worker's state, which it makes if there is none. Fills output, outcome and spoiled. */
void ag_worker_perform(worker *w, job *job);
/* The worker on whose thread this is, or NULL. Safe in a signal handler. */
worker *ag_worker_self(void);
/* Whether what the worker runs is to leave. */
bool ag_worker_stopping(const worker *w);
/* Arms the hooks that stop what the worker runs, if it is to stop. In a signal handler on its thread. */
void ag_worker_interrupted(worker *w);
/* Gives a new state those of Lua's functions that can be stopped in the middle. [-0, +0, m] */
void ag_worker_guard(lua_State *L);
void ag_worker_close_state(worker *w);

void ag_job_paths_drop(job_paths *paths);

#endif
