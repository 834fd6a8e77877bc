/* Tasks: a future and a coroutine in one userdata. A coro is that userdata before it is scheduled: function and
** arguments sit in user values, and no Lua thread exists until the first step. */
#ifndef AG_TASK_H
#define AG_TASK_H

#include "core/future.h"

enum ag_wait_kind { AG_WAIT_NONE, AG_WAIT_FUTURE, AG_WAIT_SLEEP, AG_WAIT_OPERATION };

/* Coros awaited inline run on the awaiter's thread, but C allows only some 190 calls in each other: below this many
** the next one gets a thread of its own, which the loop resumes flat. */
enum { AG_INLINE_MAX = 16 };

/* A thread of a task that waits for the one above it to return. */
typedef struct ag_frame {
  struct ag_frame *below;
  ag_thread thread;
  uint8_t depth;
} ag_frame;

struct ag_task {
  ag_future future;
  ag_timer timer;          /* its node for the ready queue, a wait list or the heap */
  uint32_t cancel_epoch;   /* the last cancellation that came by */
  ag_thread thread;        /* L is NULL before the first step */
  union {
    ag_future *waiting;    /* what it waits for; it stands at index 1 of the frame that waits */
    ag_wait *operation;    /* of a builtin: AG_WAIT_OPERATION */
  };
  uint32_t id;             /* Task-<id> */
  uint32_t cancels;        /* requests not taken back */
  bool must_cancel : 1;    /* the next step throws */
  bool started : 1;        /* the coro was awaited or scheduled */
  bool parked : 1;         /* it yielded to wait, not by a stray coroutine.yield */
  bool failed : 1;         /* the body left with an error */
  bool entering : 1;       /* it yielded to go on in the topmost frame's thread */
  bool raising : 1;        /* an error passes from a thread to the one below */
  uint8_t wait;            /* enum ag_wait_kind */
  uint8_t depth;           /* coros awaited inline on this thread */
  ag_frame *frames;        /* threads below the one that runs */
};

/* Makes a coro of the function and [nargs] arguments on top and pushes it. [-(nargs+1), +1, m] */
ag_task *ag_coro_new(lua_State *L, ag_state *S, int nargs);
/* Schedules the coro at [index] as a task of [loop]. [-0, +0, m] */
void ag_task_schedule(lua_State *L, ag_loop *loop, int index);
/* Turns the awaitable at [index] into a future in place, scheduling it; raises an argument error. [-0, +0, m] */
ag_future *ag_ensure_future(lua_State *L, ag_loop *loop, int index, int arg);
/* Raises unless the calling function may wait in the current task; returns the task. */
ag_task *ag_task_check(lua_State *L, ag_state *S, const char *what);
/* Yields; the continuation [k] must begin with ag_task_resumed. Use as `return ag_task_park(...)`. */
int ag_task_park(lua_State *L, ag_task *task, uint8_t wait, lua_KFunction k);
/* First call of a continuation: throws what waits to be thrown. */
void ag_task_resumed(lua_State *L, ag_state *S);
/* Waits for the future at index 1. Use as `return ag_await_future(L, S)`. */
int ag_await_future(lua_State *L, ag_state *S);
void ag_task_step(ag_loop *loop, lua_State *L, ag_node *node);
/* Keeps the CancelledError on top to be thrown at the next step. [-1, +0, m] */
void ag_task_throw(lua_State *L, ag_state *S, ag_task *task);
void ag_task_push_name(lua_State *L, ag_state *S, ag_task *task, int index);
void ag_task_open_module(lua_State *L, ag_state *S);

#endif
