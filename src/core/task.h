/* Tasks: a future and a coroutine in one userdata. A coro is that userdata before it is scheduled: function and
** arguments sit in user values, and no Lua thread exists until the first step.
**   coro.c   coros and what may stand for one     step.c   runs tasks on threads
**   await.c  waiting for futures, coros inline    throw.c  errors on their way into tasks
**   task.c   what scripts call */
#ifndef AG_TASK_H
#define AG_TASK_H

#include "core/future.h"

enum ag_wait_kind { AG_WAIT_NONE, AG_WAIT_FUTURE, AG_WAIT_SLEEP, AG_WAIT_OPERATION, AG_WAIT_TURN };

/* A thread of a task that waits for the one above it to return. */
typedef struct ag_frame {
  struct ag_frame *below;
  ag_thread thread;
  uint8_t depth;
} ag_frame;

/* Invariant: the node is on at most one list, or in the heap; a task that runs is on none. */
struct ag_task {
  ag_future future;
  ag_timer timer;        /* its node for the ready queue, a wait list or the heap */
  uint32_t cancel_epoch; /* the last cancellation that came by */
  ag_thread thread;      /* L is NULL before the first step and after the last */
  union {
    ag_future *waiting; /* AG_WAIT_FUTURE: kept alive by its slot */
    ag_wait *operation; /* AG_WAIT_OPERATION: of a builtin */
    const char *what;   /* AG_WAIT_TURN: "Lock" and the like */
  };
  ag_link turn_link;    /* on the wait list of a lock, queue, ... (see waiters.h), from the wait until it runs */
  uint32_t id;          /* Task-<id> */
  uint32_t cancels;     /* requests not taken back */
  bool must_cancel : 1; /* the next step throws */
  bool delivering : 1;  /* what it waited for was cancelled: a later cancellation does not change the error */
  bool started : 1;     /* the coro was awaited or scheduled */
  bool parked : 1;      /* it yielded to wait, not by a stray coroutine.yield */
  bool stray : 1;       /* it rests in a stray coroutine.yield */
  bool bad_yield : 1;   /* ... which had values: an error is to be thrown there */
  bool failed : 1;      /* the body of a frame left with an error */
  bool entering : 1;    /* it yielded to go on in the topmost frame's thread */
  bool raising : 1;     /* an error passes from a thread to the one below */
  bool eager : 1;       /* it ended in its eager start */
  bool hijacked : 1;    /* a script resumed its thread by hand */
  uint8_t wait;         /* enum ag_wait_kind */
  uint8_t turn;         /* enum ag_turn */
  uint8_t depth;        /* coros awaited inline on this thread */
  ag_frame *frames;     /* threads below the one that runs */
};

/* ---- coro.c ---- */

/* Makes a coro of the function and [nargs] arguments on top and pushes it. [-(nargs+1), +1, m] */
ag_task *ag_coro_new(lua_State *L, ag_state *S, int nargs);
/* The coro at [index] or NULL; [used] tells whether it was started. Never raises. */
ag_task *ag_coro_to(lua_State *L, ag_state *S, int index, bool *used);
/* Marks the coro at [index] as started: it is a task from now on, or was awaited inline. [-0, +0, -] */
void ag_coro_start(lua_State *L, ag_state *S, int index, bool as_task);
/* Makes a task of the function and [nargs] arguments on top, schedules and pushes it. [-(nargs+1), +1, m] */
ag_task *ag_task_spawn(lua_State *L, ag_loop *loop, int nargs);
/* Turns the awaitable at [index] into a future in place, scheduling it; raises an argument error. [-0, +0, m] */
ag_future *ag_ensure_future(lua_State *L, ag_loop *loop, int index, int arg);
/* Whether the value at [index] may be awaited, or scheduled: also functions and threads. Never raises. */
bool ag_awaitable(lua_State *L, ag_state *S, int index);
/* Replaces the value at [index] whose metatable has __await by a function that calls that; false: it has none. */
bool ag_await_method(lua_State *L, int index);
/* Whether the thread at [index] was not started. */
bool ag_thread_fresh(lua_State *L, int index);
/* Moves the function of the thread at [index] that was not started into its place. Raises an argument error. */
void ag_thread_function(lua_State *L, int index, int arg);
void ag_coro_open_module(lua_State *L, ag_state *S);

/* ---- step.c ---- */

/* Runs the task of [node] until it waits or ends; what the ready queue calls. */
void ag_task_step(ag_loop *loop, lua_State *L, ag_node *node);
/* The same for the usual case, a task of the outermost loop that waited and has nothing odd about it; false: it has,
** ag_task_step must see to it. Leaves the stack of L as it was. */
bool ag_task_go_on(ag_loop *loop, lua_State *L, ag_node *node);
/* Ends a task whose step could not be made for want of memory; the error is on top. [-1, +0, -] */
void ag_task_lost(lua_State *L, ag_loop *loop, ag_task *task);
/* Ends the pending task at [index] without running it on: the loop closes. [-0, +0, m] */
void ag_task_abandon(lua_State *L, ag_state *S, int index);
/* Takes the task off whatever it waits for. */
void ag_task_detach(ag_state *S, ag_task *task);
/* The calling thread was resumed by hand: its task is taken off what it waits for; raises. */
AG_NORETURN int ag_task_hijacked(lua_State *L, ag_state *S);
void ag_step_open_module(lua_State *L, ag_state *S);

/* ---- throw.c ---- */

/* Keeps the error on top to be thrown at the next step, unless one is being delivered. [-1, +0, m] */
void ag_task_throw(lua_State *L, ag_state *S, ag_task *task);
/* The same for an error that is no request of cancellation. [-1, +0, m] */
void ag_task_throw_error(lua_State *L, ag_state *S, ag_task *task);
/* Pushes the CancelledError of the last request that found the task at [index] not waiting: what a gather takes
** from a child that went on (asyncio's _cancel_message). [-0, +1, m] */
void ag_task_push_request(lua_State *L, ag_state *S, int index);
/* Keeps the error on top as what is thrown next, and no more: nothing says yet that it shall be. [-1, +0, m] */
void ag_task_keep_throw(lua_State *L, ag_state *S, ag_task *task);
/* Pushes what waits to be thrown. [-0, +1, -] */
void ag_task_take_throw(lua_State *L, ag_state *S, ag_task *task);
/* Throws it when the task goes on, which has yielded by itself: nobody is there to ask. */
void ag_task_throw_into_yield(ag_state *S, ag_task *task);

/* ---- await.c ---- */

/* The task that runs on the calling thread, or NULL: none, or a thread that is not the task's. */
static inline ag_task *ag_task_here(lua_State *L, const ag_state *S) {
  const ag_loop *loop = S->running;
  return loop != NULL && loop->task != NULL && loop->here == L ? loop->task : NULL;
}
/* Raises: [what] may not wait here, and why. */
AG_NORETURN int ag_task_none(lua_State *L, ag_state *S, const char *what);
/* Raises unless the calling function may wait in the current task; returns the task. */
static inline ag_task *ag_task_check(lua_State *L, ag_state *S, const char *what) {
  ag_task *task = ag_task_here(L, S);
  if (task == NULL || !lua_isyieldable(L) || S->running->inner_stuck)
    ag_task_none(L, S, what);
  return task;
}
/* Yields; the continuation [k] must begin with ag_task_resumed. Use as `return ag_task_park(...)`. */
static inline int ag_task_park(lua_State *L, ag_task *task, uint8_t wait, lua_KContext context, lua_KFunction k) {
  task->wait = wait;
  task->parked = true;
  return lua_yieldk(L, 0, context, k);
}
/* The task that runs again; raises where its thread was resumed by hand. */
static inline ag_task *ag_task_back(lua_State *L, ag_state *S) {
  ag_task *task = ag_task_here(L, S);
  if (task == NULL)
    ag_task_hijacked(L, S);
  task->wait = AG_WAIT_NONE;
  task->waiting = NULL;
  return task;
}
/* Throws what waits to be thrown, if something does. */
static inline void ag_task_raise(lua_State *L, ag_state *S, ag_task *task) {
  if (!task->must_cancel)
    return;
  ag_task_take_throw(L, S, task);
  lua_error(L);
}
/* First call of a continuation: ag_task_back, then ag_task_raise. */
static inline void ag_task_resumed(lua_State *L, ag_state *S) { ag_task_raise(L, S, ag_task_back(L, S)); }
/* Waits for the future at index 1. Use as `return ag_await_future(L, S)`. */
int ag_await_future(lua_State *L, ag_state *S);
void ag_await_open_module(lua_State *L, ag_state *S);

/* ---- task.c ---- */

void ag_task_push_name(lua_State *L, ag_state *S, ag_task *task, int index);
/* Pushes the function of the task or coro at [index]. [-0, +1, -] */
void ag_task_push_function(lua_State *L, int index);
void ag_task_open_module(lua_State *L, ag_state *S);

#endif
