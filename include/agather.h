/* agather.h: asyncio's tasks and gather for Lua 5.4, as a C library.
**
** Everything hangs off the Lua state: two states in two threads never meet. */
#ifndef AGATHER_H
#define AGATHER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#include <lua.h>

#define AG_VERSION "0.1.0"

#if defined(__GNUC__)
#define AG_API __attribute__((visibility("default")))
#else
#define AG_API
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

/* ---- Limits for scripts that others wrote ----
**
** They contain scripts with bugs, not scripts that attack: SECURITY.md says where the line is. A host makes the state
** with ag_alloc, opens the library, sets limits, restricts, and only then loads scripts:
**
**   ag_memory memory = {.limit = 64 << 20, .reserve = 64 << 10};
**   lua_State *L = lua_newstate(ag_alloc, &memory);
**   luaL_openlibs(L);
**   ag_limits limits = {.instructions = 10000000, .seconds = 0.1, .tasks = 10000, .timers = 10000, .callbacks = 10000,
**                       .items = 100000, .handles = 1000};
**   if (ag_open(L) != AG_OK || ag_set_limits(L, &limits) != AG_OK || ag_restrict(L, NULL) != AG_OK) ...
*/

/* Memory with a cap. Zero it, set the first four fields at most, and keep it until after lua_close. */
typedef struct ag_memory {
  size_t limit;   /* bytes that the state may use; 0: all there is */
  size_t reserve; /* bytes above the limit that may be used once it was hit, until the use is this far below it again:
                  ** so that a script that ran out of memory can clean up */
  lua_Alloc from; /* where memory comes from; NULL: realloc and free */
  void *data;     /* the first argument of [from] */
  size_t used, peak; /* bytes now, and at most so far */
  size_t refused;    /* how often Lua collected its garbage, asked again, and was refused */
  const void *asked; /* ag_alloc's own from here on */
  size_t asked_size;
  bool asking, spent;
} ag_memory;

/* The allocator for lua_newstate, with an ag_memory as its data. At the limit a script gets the error "not enough
** memory", which it may catch. What is counted is Lua's memory: strings, tables, threads, tasks, queues. Small tables
** of the library and the buffers of I/O are bounded by the limits on how many there are. */
AG_API void *ag_alloc(void *memory, void *block, size_t old, size_t size);

/* What scripts may use; 0 anywhere: no limit. */
typedef struct ag_limits {
  /* Instructions of Lua's virtual machine for one step of a task, which is what runs between two waits, and for one
  ** callback. Whoever takes more gets a LimitError, has a tenth of the budget to clean up, and then gets the error
  ** anew at each instruction, whatever it catches, until its step is over. Other tasks go on. Counting costs: loops of
  ** plain arithmetic take twice the time, calls of library functions next to nothing. Counted by the thousand. */
  unsigned long long instructions;
  /* The same in seconds of processor time. Without [instructions] and with [signal] it costs nothing until it is
  ** spent; without [signal] it costs what counting instructions costs. */
  double seconds;
  /* A signal that the host does not use, such as SIGRTMIN, or 0. The library handles it from then on: a timer on the
  ** processor time of the thread that steps the loop sends it. It is late by some milliseconds, and coroutines are
  ** only stopped in restricted mode, or where they come from agather.coroutine. Linux. */
  int signal;
  /* The next one raises a LimitError in who asks for it; what is there already goes on. */
  size_t tasks;     /* tasks of one loop that have not ended */
  size_t timers;    /* sleeping tasks, call_later and timeouts of one loop */
  size_t callbacks; /* call_soon, call_later and done callbacks that have not run */
  size_t items;     /* items in one queue */
  size_t handles;   /* sockets and other handles that are open on one loop */
  /* In restricted mode only, where 0 is the value in brackets. */
  size_t string;   /* bytes of a string that string.rep makes (16 MiB) */
  size_t chunk;    /* bytes of a text for load (1 MiB) */
  size_t elements; /* elements that one call of table.move, insert or remove passes over (10 million) */
} ag_limits;

/* Sets the limits of the state, in place of those before; NULL: none. What hits one is a LimitError with .limit (the
** name of the field above) and .value; when nobody catches it, it goes to the loop's exception handler with the task and
** its traceback. Not while a loop runs. [-0, +0|1, -] AG_OK, AG_REENTRANT or AG_ERROR. */
AG_API ag_status ag_set_limits(lua_State *L, const ag_limits *limits);

/* How many handles [loop] may have open, or 0: for modules that open some. Loop's thread. */
AG_API size_t ag_handle_limit(const ag_loop *loop);

/* Restricts what is loaded from now on: gives the state new globals with nothing but what [allow] names and is safe.
** [allow] is a list with a NULL at its end, of globals ("print"), whole libraries ("string"), single functions
** ("string.rep", "agather.sleep") and submodules ("agather.net"); NULL stands for all that needs no trust.
** What no hook can stop is replaced or missing: load takes text only, setmetatable no __gc, xpcall runs the handler
** after the error has unwound, string.rep and the like have caps; metatables of strings and of the library's objects
** are locked; there is no debug, io, package, string.dump, and of os only time, clock, date and difftime.
** Set functions of your own with lua_setglobal afterwards. Called again, it takes away from the globals what [allow]
** does not name, and gives nothing back. What was loaded before keeps what it had.
** Not while a loop runs. [-0, +0|1, -] AG_OK, AG_REENTRANT or AG_ERROR. */
AG_API ag_status ag_restrict(lua_State *L, const char *const *allow);

/* ---- How a loop waits ---- */

/* The loop that runs now. Raises a RuntimeError that names [what] where none does. Loop's thread. [-0, +0, e] */
AG_API ag_loop *ag_running_loop(lua_State *L, const char *what);

/* How a loop waits. Embed it as the first member of your own poller. */
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
};

/* The poller of [loop]; borrowed. */
AG_API ag_poller *ag_loop_poller(ag_loop *loop);
/* Gives [loop] another poller, which it owns from now on; the old one is closed. Not from within its wait. */
AG_API void ag_loop_set_poller(ag_loop *loop, ag_poller *poller);

/* One wait of one task, embedded in what it waits for. Zero it before the first use. */
typedef struct ag_wait ag_wait;
struct ag_wait {
  /* Called at most once when the task is cancelled while it waits: detach; the continuation will not run.
  ** Loop's thread, must not raise. */
  void (*cancel)(ag_wait *wait);
  lua_KFunction k; /* the library's from here on */
  lua_KContext context;
  void *task;
  ag_loop *loop;
};

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
AG_API int ag_os_error(lua_State *L, const char *code, int number, const char *text, const char *operation,
                       const char *address);
/* Raises an object of the error class [name] (one of the module's) with a formatted message. [-0, +0, e] */
AG_API int ag_error(lua_State *L, const char *name, const char *message);

#ifdef __cplusplus
}
#endif
#endif
