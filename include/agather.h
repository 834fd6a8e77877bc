/* agather.h: asyncio's tasks and gather for Lua 5.4, as a C library.
**
** Everything hangs off the Lua state: two states in two threads never meet. */
#ifndef AGATHER_H
#define AGATHER_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#include <lua.h>

#define AG_VERSION "0.1.0"

#if defined(__GNUC__)
#define AG_API __attribute__((visibility("default")))
#define AG_NORETURN __attribute__((noreturn))
#else
#define AG_API
#define AG_NORETURN
#endif

/* The version of the library that was loaded, such as "0.1.0". Any thread. */
AG_API const char *ag_version(void);

/* Pushes the module table of agather.core; a lua_CFunction for luaL_requiref and `require`. [-0, +1, m] */
AG_API int luaopen_agather_core(lua_State *L);

typedef struct ag_loop ag_loop;

/* ---- A host that drives a loop of its own ----
**
** None of these functions raises a Lua error and none blocks. They belong to the thread that owns the Lua state, but
** for ag_wakeup. [L] is any thread of that state that is not inside a task. */

typedef enum ag_status {
  AG_OK = 0,
  AG_MORE = 1,       /* something is ready: step again */
  AG_IDLE = 2,       /* tasks wait for a deadline, for input, or for the host */
  AG_DONE = 3,       /* no task is left and nothing is scheduled */
  AG_ERROR = -1,     /* the error is on top of the stack */
  AG_REENTRANT = -2, /* a loop of this state runs already: called from inside a task or callback */
  AG_CLOSED = -3
} ag_status;

/* Opens the library: `require "agather.core"` finds it from then on, and pushes its module table. The state then needs
** lua/agather/ on its package.path for what is written in Lua. [-0, +1, -] AG_OK or AG_ERROR. */
AG_API ag_status ag_open(lua_State *L);

/* Makes a loop that the host drives. The library keeps it until ag_loop_destroy. [-0, +0|1, -] AG_OK or AG_ERROR. */
AG_API ag_status ag_loop_create(lua_State *L, ag_loop **loop);

/* Makes a task of the function and its [nargs] arguments on top; the task, which is a future, replaces them. Its first
** step is taken by ag_step. Errors of tasks that nobody asks for go to the loop's exception handler.
** [-(nargs + 1), +1, -] AG_OK, AG_CLOSED or AG_ERROR. */
AG_API ag_status ag_spawn(lua_State *L, ag_loop *loop, int nargs);

/* Looks for input and due deadlines, runs what is ready once, and returns: AG_MORE, AG_IDLE, AG_DONE; or AG_REENTRANT,
** AG_CLOSED, AG_ERROR (only memory can be the cause: the loop goes on with the next step). [-0, +0|1, -] */
AG_API ag_status ag_step(lua_State *L, ag_loop *loop);

/* The same for hosts that give scripts a share of each frame: runs what is ready, and what that makes ready, until
** nothing is or [seconds] have passed; AG_MORE: some of it is left for the next step. A task is not stopped in the
** middle: one that computes for long without waiting overruns. However short the time, one task runs.
** [-0, +0|1, -] */
AG_API ag_status ag_step_for(lua_State *L, ag_loop *loop, double seconds);

/* Seconds until the loop wants a step: 0 at once, negative when only input, ag_wakeup or the host can make work. */
AG_API double ag_timeout(const ag_loop *loop);

/* A descriptor that is readable when the loop wants a step before its timeout. Ask again after a step: the first use of
** a module that does I/O brings another one. -1: the loop's poller has none. */
AG_API int ag_fd(const ag_loop *loop);

/* Makes ag_fd readable. Any thread, also a signal handler. */
AG_API void ag_wakeup(ag_loop *loop);

/* Cancels what is left, lets it finish within bounds, reports what nobody asked for, and frees the loop. Blocks while
** tasks clean up. AG_OK, AG_REENTRANT or, the second time, AG_CLOSED. [-0, +0, -] */
AG_API ag_status ag_loop_destroy(lua_State *L, ag_loop *loop);

/* ---- How a loop waits ---- */

/* The loop that runs now. Raises a RuntimeError that names [what] where none does. Loop's thread. [-0, +0, e] */
AG_API ag_loop *ag_running_loop(lua_State *L, const char *what);

/* How a loop waits. Embed it as the first member of your own poller, and zero it first: members may be added. */
typedef struct ag_poller ag_poller;
struct ag_poller {
  /* Returns after [timeout] seconds (negative: no limit, 0: only a look), or when something came, or when woken.
  ** Runs on the loop's thread, must not raise; what it calls may use ag_wake. */
  void (*wait)(ag_poller *poller, double timeout);
  /* Ends a wait, or the next one. Any thread, also from a signal handler. */
  void (*wake)(ag_poller *poller);
  /* Whether something may still come: false lets a loop without ready tasks and timers tell a deadlock. */
  bool (*alive)(ag_poller *poller);
  /* A descriptor that is readable when wait has something to do, or NULL for a poller that has none. */
  int (*fd)(ag_poller *poller);
  /* Frees the poller; the loop calls it once, when it closes or gets another poller. */
  void (*close)(ag_poller *poller);
  /* Seconds until wait has something to do though [fd] is not readable; negative: never, as where this is NULL. Hosts
  ** hear of it by ag_timeout. */
  double (*timeout)(ag_poller *poller);
};

/* The poller of [loop]; borrowed. */
AG_API ag_poller *ag_loop_poller(ag_loop *loop);
/* Gives [loop] another poller, which it owns from now on; the old one is closed. Not from within its wait. */
AG_API void ag_loop_set_poller(ag_loop *loop, ag_poller *poller);

/* One wait of one task, embedded in what it waits for. Zero it before the first use. Once the task was woken or
** cancelled the next may wait by it, also before the first has run. */
typedef struct ag_wait ag_wait;
struct ag_wait {
  /* Called at most once when the task is cancelled while it waits: detach; the continuation will not run.
  ** Loop's thread, must not raise. */
  void (*cancel)(ag_wait *wait);
  void *task; /* the library's from here on */
  ag_loop *loop;
};

/* Raises what ag_suspend would raise here, before anything has begun: no task runs, or it cannot yield. [-0, +0, e] */
AG_API void ag_suspend_check(lua_State *L);
/* Suspends the calling task until ag_wake(wait); then [k] runs with [context] and gives the results of the calling
** C function. A cancelled task raises CancelledError instead. Raises where no task runs or it cannot yield.
** Use as `return ag_suspend(...)`. [-0, +0, e] */
AG_API int ag_suspend(lua_State *L, ag_wait *wait, lua_KContext context, lua_KFunction k);
/* Makes the waiting task ready; does nothing when none waits. Loop's thread; never fails. */
AG_API void ag_wake(ag_wait *wait);
/* Whether a task waits. */
AG_API bool ag_waiting(const ag_wait *wait);

/* Raises an OSError with .code ([code], such as "ECONNREFUSED"), .errno, .operation and .address (may be NULL);
** the message is "operation address: text (code)". [-0, +0, e] */
AG_API AG_NORETURN int ag_os_error(lua_State *L, const char *code, int number, const char *text, const char *operation,
                                   const char *address);
/* Raises an object of the error class [name] (one of the module's) with a formatted message. [-0, +0, e] */
AG_API AG_NORETURN int ag_error(lua_State *L, const char *name, const char *message);
/* Replaces the message on top by an object of the error class [name], to be given fields and raised with lua_error.
** [-1, +1, m] */
AG_API void ag_error_new(lua_State *L, const char *name);

#ifdef __cplusplus
}
#endif
#endif
