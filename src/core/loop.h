/* The loop: the ready queue, the timers and the clock. Runs nodes; does not know what they are. */
#ifndef AG_LOOP_H
#define AG_LOOP_H

#include "core/poller.h"
#include "core/remote.h"
#include "core/state.h"
#include "core/timer.h"

struct ag_loop {
  ag_state *S;
  ag_link among;   /* in S->loops while not closed */
  ag_link every;   /* in S->every until it is finalized */
  uint32_t id;     /* futures name their loop by it */
  ag_link ready;   /* runs in the next iteration */
  ag_link current; /* what is left of this iteration */
  ag_timers timers;
  ag_poller *poller;
  ag_task *task;    /* the task that runs now, or NULL */
  ag_node *runs;    /* the node that runs now while it is a pending task's, or NULL: nothing may hold another then */
  bool solo;        /* a step within another one, or a callback: its thread runs nothing else */
  lua_State *here;  /* the thread that the running task is in: its own, or a generator's (see generator.c) */
  lua_State *base;  /* the thread that runs the iteration, and its callbacks, or NULL */
  bool inner_stuck; /* some thread between cannot yield */
  int eager;        /* steps begun within others by eager_start */
  bool is_virtual, debug, stopping, running, closed;
  double virtual_now;
  double looked;                /* when the poller was last asked while tasks were ready */
  double slice_end;             /* when ag_step_for returns, on the loop's clock; 0: no such limit */
  volatile int interrupts;      /* SIGINTs not yet answered */
  bool interrupted;             /* the main task was cancelled because of one */
  bool insisted;                /* one was raised where the code was busy */
  int main;                     /* a slot of its own for the main task of run, or 0 */
  const bool *until;            /* ends the innermost ag_loop_run */
  uint8_t met;                  /* bits of the companions that have been joined */
  bool has_io;                  /* the poller is not the built-in one */
  bool suspects;                /* something failed that nobody waits for: look whether it is reachable */
  bool promises;                /* some handle was promised (see handle.h) */
  bool sink_told;               /* the sink was called for the report at hand */
  double collected, collection; /* when the last such collection ended, how long it took; seconds */
  int handler;                  /* slot of the exception handler, or 0 */
  int slot;                     /* keeps the loop's userdata while it runs */
  size_t tasks;                 /* pending tasks */

  /* Other threads and the host. */
  ag_remote *remote;  /* the mailbox, which knows the poller too */
  size_t outside;     /* operations that other threads may still answer, and what holds the loop (ag_loop_hold) */
  ag_link ops;        /* the operations among them: see op.c */
  ag_error_sink sink; /* or NULL: see report.c */
  void *sink_data;

#ifdef AGATHER_SHUFFLE
  uint64_t shuffle; /* state of the random numbers, 0: no shuffling; see shuffle.h */
#endif
};

/* Seconds of the clock that nobody sets. */
double ag_monotonic(void);
/* The loop's time in seconds, which may be virtual. */
double ag_loop_time(const ag_loop *loop);
/* Whether the error object or value at [index] comes of a SIGINT that was raised in running code. If it ends another
** [task] than main's, whose error run raises, or a callback (NULL), the loop raises as well, as asyncio's does. */
bool ag_loop_interrupted(lua_State *L, ag_loop *loop, int index, const ag_task *task);
/* Whether the time of ag_step_for is over. */
static inline bool ag_loop_out_of_time(const ag_loop *loop) {
  return loop->slice_end != 0 && ag_loop_time(loop) >= loop->slice_end;
}
/* Makes a loop and pushes it. [-0, +1, m] */
ag_loop *ag_loop_new(lua_State *L, ag_state *S, bool is_virtual, bool debug);
/* The loop that is not closed and has this id, or NULL. */
ag_loop *ag_loop_find(ag_state *S, uint32_t id);
/* The running loop; raises "no running event loop" naming [what]. */
ag_loop *ag_loop_check(lua_State *L, ag_state *S, const char *what);
/* Runs until [*until] becomes true at the end of an iteration (NULL: for ever), or loop:stop was called.
** False: nothing can ever happen again. Raises KeyboardInterrupt. */
bool ag_loop_run(lua_State *L, ag_loop *loop, const bool *until);
/* Iterations while something is ready, or just [once]; blocks first when [block] and nothing is ready.
** False: nothing can ever happen again. */
bool ag_loop_iterate(lua_State *L, ag_loop *loop, bool block, bool once);
void ag_loop_close(lua_State *L, ag_loop *loop);
/* Whether the poller, a thread or the host may still bring something. */
static inline bool ag_loop_expects(const ag_loop *loop) {
  return loop->outside > 0 || ag_remote_has_mail(loop->remote) || loop->poller->alive(loop->poller);
}
/* [loop] is the running one from here to ag_loop_leave. */
static inline void ag_loop_enter(ag_loop *loop) {
  loop->S->running = loop;
  loop->running = true;
}
static inline void ag_loop_leave(ag_loop *loop) {
  if (loop->S->running == loop)
    loop->S->running = NULL;
  loop->running = false;
}

/* ---- loop_methods.c ---- */

void ag_loop_open_module(lua_State *L, ag_state *S);
/* The loop at index 1; raises unless it is one. */
ag_loop *ag_loop_check_self(lua_State *L);
/* The same, and it must be open. */
ag_loop *ag_loop_check_open(lua_State *L);
/* Raises that the loop is closed: it was when asked for, or a finalizer has closed it since. */
AG_NORETURN void ag_loop_closed(lua_State *L, ag_state *S);
/* Queues [node] at the end of the ready queue. Never fails. */
static inline void ag_loop_ready(ag_loop *loop, ag_node *node) { ag_list_append(&loop->ready, &node->link); }

#endif
