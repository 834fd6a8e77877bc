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
** None of these functions raises a Lua error, and none blocks but ag_run_until and ag_loop_destroy. They belong to the
** thread that owns the Lua state, but for ag_wakeup. [L] is any thread of that state that is not inside a task. */

typedef enum ag_status {
  AG_OK = 0,
  AG_MORE = 1,       /* something is ready: step again */
  AG_IDLE = 2,       /* tasks wait for a deadline, for input, or for the host */
  AG_DONE = 3,       /* no task is left and nothing is scheduled */
  AG_ERROR = -1,     /* the error is on top of the stack */
  AG_REENTRANT = -2, /* a loop of this state runs already: called from inside a task or callback */
  AG_CLOSED = -3,    /* the loop is closed, or nobody wants the answer any more */
  AG_SETTLED = -4,   /* the future was done, or the operation answered, before */
  AG_NO_MEMORY = -5  /* where there is no Lua state to leave an error in */
} ag_status;

/* Opens the library: `require "agather.core"` finds it from then on, and pushes its module table. The state then needs
** lua/agather/ on its package.path for what is written in Lua. [-0, +1, -] AG_OK or AG_ERROR. */
AG_API ag_status ag_open(lua_State *L);

/* Makes a loop that the host drives, until ag_loop_destroy or the end of the state. The pointer is good as long as the
** state is: what is asked of a loop that was destroyed answers AG_CLOSED. [-0, +0|1, -] AG_OK or AG_ERROR. */
AG_API ag_status ag_loop_create(lua_State *L, ag_loop **loop);

/* Makes a task of the function and its [nargs] arguments on top; the task, which is a future, replaces them. Its first
** step is taken by ag_step. Errors of tasks that nobody asks for go to the loop's exception handler.
** [-(nargs + 1), +1, -] AG_OK, AG_CLOSED or AG_ERROR. */
AG_API ag_status ag_spawn(lua_State *L, ag_loop *loop, int nargs);

/* Looks for input and due deadlines, runs what is ready once, and returns: AG_MORE, AG_IDLE, AG_DONE; or AG_REENTRANT,
** AG_CLOSED, AG_ERROR (only memory can be the cause: the loop goes on with the next step). [-0, +0|1, -] */
AG_API ag_status ag_step(lua_State *L, ag_loop *loop);

/* Runs the loop until the future at [index] is done. Blocks. Then ag_future_outcome gives its results.
** [-0, +0|1, -] AG_OK; AG_ERROR: the future is not done: DeadlockError, where nothing can end it, loop:stop() was
** called, or there is no memory; AG_REENTRANT, AG_CLOSED. */
AG_API ag_status ag_run_until(lua_State *L, ag_loop *loop, int index);

/* Whether the loop has anything left to do or to wait for: false after AG_DONE, or where nothing was ever started. */
AG_API bool ag_alive(const ag_loop *loop);

/* The loop that runs now; where none does, the one that was made last and is not closed; or NULL. [-0, +0, -] */
AG_API ag_loop *ag_loop_of(lua_State *L);

/* ag_step for hosts that give scripts a share of each frame: runs what is ready, and what that makes ready, until
** nothing is or [seconds] have passed; AG_MORE: some of it is left for the next step. A task is not stopped in the
** middle: one that computes for long without waiting overruns. However short the time, one task runs.
** [-0, +0|1, -] */
AG_API ag_status ag_step_for(lua_State *L, ag_loop *loop, double seconds);

/* Seconds until the loop wants a step: 0 at once, negative when only input, ag_wakeup or the host can make work. */
AG_API double ag_timeout(const ag_loop *loop);

/* A descriptor that is readable when the loop wants a step before its timeout. Ask again after a step: the first use of
** a module that does I/O brings another one. -1: the loop's poller has none. */
AG_API int ag_fd(const ag_loop *loop);

/* Makes ag_fd readable, and has ag_run_until look again. Any thread, also a signal handler, as long as the state is
** there: a thread that may outlive it has ag_remote_wakeup. */
AG_API void ag_wakeup(ag_loop *loop);

/* Cancels what is left, lets it finish within bounds, reports what nobody asked for, and frees the loop. Blocks while
** tasks clean up. AG_OK, AG_REENTRANT or, the second time, AG_CLOSED. [-0, +0, -] */
AG_API ag_status ag_loop_destroy(lua_State *L, ag_loop *loop);

/* ---- Errors that nobody asked for ---- */

typedef enum ag_unhandled_kind {
  AG_UNHANDLED_TASK,      /* a task failed, also at a limit, and nobody awaited it or asked for its error */
  AG_UNHANDLED_FUTURE,    /* the same of a future or gather */
  AG_UNHANDLED_CALLBACK,  /* a callback, or a function that was posted, raised */
  AG_UNHANDLED_PENDING,   /* a task would not end and was destroyed with its loop */
  AG_UNHANDLED_COROUTINE, /* a coroutine object was never awaited */
  AG_UNHANDLED_SCRIPT,    /* a script called loop:call_exception_handler */
  AG_UNHANDLED_HANDLER    /* the script's own exception handler raised */
} ag_unhandled_kind;

/* What happened, as text; all but [message] may be NULL. Valid during the call of the sink. */
typedef struct ag_unhandled {
  ag_unhandled_kind kind;
  const char *message;   /* what happened, such as "Task exception was never retrieved" */
  const char *task;      /* the task's name */
  const char *error;     /* the error's message */
  const char *traceback; /* where it was raised */
} ag_unhandled;

/* Loop's thread, from within a step or ag_loop_destroy; must not raise, step or destroy. */
typedef void (*ag_error_sink)(const ag_unhandled *what, void *data);

/* Gives every unhandled error of [loop] to [sink] (NULL: no more). A handler that the script sets with
** loop:set_exception_handler hears of it afterwards; nothing is printed any more. Loop's thread. */
AG_API void ag_set_error_sink(ag_loop *loop, ag_error_sink sink, void *data);

/* ---- Futures ----
**
** A future made here is as good as one of agather.future(): scripts await it, cancel it, gather it; and a task is a
** future too. [index] is where it is on the stack before the call, values on top counted. Loop's thread, inside tasks
** and callbacks as well as between steps; [L] is any thread of the state, with 5 free slots. None of these functions
** raises: where one returns AG_ERROR, the error is on top, and a C function that Lua has called does
** `return lua_error(L)`. */

/* Pushes a new future. Lua owns it: keep it on the stack, in the registry, or with who awaits it; one that nothing
** refers to any more is gone, and whoever would have waited for it with it. [-0, +0|1, -] AG_OK, AG_CLOSED (which
** pushes nothing) or AG_ERROR. */
AG_API ag_status ag_future_create(lua_State *L, ag_loop *loop);

/* Settles the future with the [n] values on top. Who waits for it goes on with the next step.
** [-n, +0|1, -] AG_OK; AG_SETTLED: it was done before; AG_ERROR: no memory, or no future, or one that its own task
** settles. */
AG_API ag_status ag_future_set_result(lua_State *L, int index, int n);

/* Fails the future with the error on top, any value but nil. [-1, +0|1, -] As ag_future_set_result. */
AG_API ag_status ag_future_set_error(lua_State *L, int index);

/* Cancels a future, task or gather as its method cancel does: a future is done at once, a task when it has ended.
** [message] may be NULL. [-0, +0|1, -] AG_OK, AG_SETTLED or AG_ERROR. */
AG_API ag_status ag_future_cancel(lua_State *L, int index, const char *message);

typedef enum ag_future_status {
  AG_NOT_FUTURE = -1,
  AG_PENDING = 0,
  AG_RESULT = 1,
  AG_FAILED = 2,
  AG_CANCELLED = 3
} ag_future_status;

/* What has become of the value at [index]. [-0, +0, -] */
AG_API ag_future_status ag_future_state(lua_State *L, int index);

/* The outcome, as of lua_pcall. AG_OK pushes all results; AG_ERROR pushes an error object: luaL_tolstring gives its
** message, the field value what was raised, the field traceback where (may be nil), and ag_future_state tells a failure
** from a cancellation; AG_IDLE: not done, nothing is pushed. The error counts as asked for and is reported nowhere.
** [-0, +n|1|0, -] */
AG_API ag_status ag_future_outcome(lua_State *L, int index);

/* Calls fn(L, data) with the future at index 1, exactly once: in the iteration after it is done; or, where the loop
** closes before that, then, and ag_future_state is AG_PENDING. An error that [fn] raises goes to the loop's exception
** handler. [fn] may not wait. The future lives until then. [-0, +0|1, -] AG_OK, AG_CLOSED or AG_ERROR: never called. */
AG_API ag_status ag_future_watch(lua_State *L, int index, void (*fn)(lua_State *L, void *data), void *data);

/* Waits for the future (or any awaitable) at [index] in a C function that a task has called: gives its results or
** raises its error. Use as `return ag_await(L, index)`. [-0, +n, e] */
AG_API int ag_await(lua_State *L, int index);

/* ---- Other threads ----
**
** A Lua state is one thread's. What others may do is this: answer an operation, post a function, wake. None of it takes
** a lock, none blocks. */

/* An operation: a future on the loop's thread whose answer any thread gives. While it is wanted it keeps the loop alive
** (no DeadlockError, no AG_DONE), but a virtual clock does not wait for it. Counts references: each thread that may
** answer holds one, and lets go of it after its last call. When all have let go and nobody has answered, the future
** fails with a RuntimeError. */
typedef struct ag_op ag_op;

/* Makes an operation and pushes its future, which the loop keeps while it is pending; the caller has one reference to
** [*op]. [unwanted] (may be NULL) is called with [data], at most once, on the loop's thread, when no answer is wanted
** any more, because the future was cancelled, or settled by hand, or the loop closes: stop the work. It must not call
** Lua; it may call ag_op_* . A builtin returns the future, or waits itself by `return ag_await(L, -1)`.
** Loop's thread. [-0, +0|1, -] AG_OK, AG_CLOSED (pushes nothing) or AG_ERROR. */
AG_API ag_status ag_op_create(lua_State *L, ag_loop *loop, void (*unwanted)(ag_op *op, void *data), void *data,
                              ag_op **op);

/* Pushes the results of an operation onto an empty stack with 20 free slots and returns how many they are. Loop's
** thread, under protection: if it raises, the future fails with that error. Must not wait. */
typedef int (*ag_push_fn)(lua_State *L, void *data);

/* Answers: on the loop's thread, push(L, data) gives the results (NULL: none). [data] is the library's from the call
** on: release(data) (may be NULL) is called exactly once, whatever comes: after push, or instead of it; by the calling
** thread where the status is not AG_OK. Any thread; takes no memory.
** AG_OK; AG_SETTLED: somebody answered before; AG_CLOSED: no answer is wanted any more. */
AG_API ag_status ag_op_resolve(ag_op *op, ag_push_fn push, void (*release)(void *data), void *data);

/* Answers with a failure: an error of the class [name] (one of the module's; the string must stay), or, where it is
** NULL, the plain string; [message] is copied, its first 199 bytes. Other errors: raise them in a push function.
** Any thread; takes no memory. As ag_op_resolve. */
AG_API ag_status ag_op_reject(ag_op *op, const char *name, const char *message);

/* Whether an answer is wanted still: false when there is one, or nobody waits for it. Any thread: a long computation
** looks now and then. */
AG_API bool ag_op_wanted(ag_op *op);

/* One more reference; returns [op]. Any thread that has one. */
AG_API ag_op *ag_op_ref(ag_op *op);
/* Lets go of a reference; NULL is ignored. Any thread. */
AG_API void ag_op_unref(ag_op *op);

/* The mailbox of a loop. It outlives the loop: who holds a reference may post at any moment, while the loop closes and
** afterwards. */
typedef struct ag_remote ag_remote;

/* A reference to the loop's mailbox, which the caller gives back with ag_remote_unref; NULL: the loop is closed.
** Loop's thread. */
AG_API ag_remote *ag_loop_remote(ag_loop *loop);
/* One more reference; returns [remote]. Any thread that has one. */
AG_API ag_remote *ag_remote_ref(ag_remote *remote);
/* Lets go of a reference; NULL is ignored. Any thread. */
AG_API void ag_remote_unref(ag_remote *remote);

/* Runs on the loop's thread, under protection, on an empty stack; ag_loop_of(L) is the loop. Must not wait; starts a
** task where something is to wait. An error goes to the loop's exception handler. */
typedef void (*ag_post_fn)(lua_State *L, void *data);

/* Has the loop run fn(L, data) in its next iteration, in the order of posting, or calls drop(data) (may be NULL):
** exactly one of them, once. [drop] is called by this thread where the status is not AG_OK, by the loop's where the
** loop closes before the function had its turn. A post does not keep the loop alive: hold it. Any thread.
** AG_OK, AG_CLOSED, AG_NO_MEMORY. */
AG_API ag_status ag_post(ag_remote *remote, ag_post_fn fn, void (*drop)(void *data), void *data);

/* As ag_wakeup; does nothing when the loop is closed. Any thread that has a reference, also a signal handler. */
AG_API void ag_remote_wakeup(ag_remote *remote);

/* While it is held, the loop counts as alive, though only posts may bring work. Counts; each hold is released once.
** Loop's thread. */
AG_API void ag_loop_hold(ag_loop *loop);
AG_API void ag_loop_release(ag_loop *loop);
/* ---- Limits for scripts that others wrote ----
**
** They contain scripts with bugs, not scripts that attack: SECURITY.md says where the line is. A host makes the state
** with ag_alloc, opens the library, sets limits, restricts, and only then loads scripts:
**
**   ag_memory memory = {.limit = 64 << 20, .reserve = 64 << 10};
**   lua_State *L = ag_newstate(ag_alloc, &memory);
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

/* lua_newstate(f, data). From Lua 5.5 on it also takes a seed for the hashes of strings, for which the host includes
** lauxlib.h. */
#if LUA_VERSION_NUM >= 505
#define ag_newstate(f, data) lua_newstate((f), (data), luaL_makeseed(NULL))
#else
#define ag_newstate(f, data) lua_newstate((f), (data))
#endif

/* The allocator for ag_newstate, with an ag_memory as its data. At the limit a script gets the error "not enough
** memory", which it may catch. What is counted is Lua's memory: strings, tables, threads, tasks, queues. Small tables
** of the library and the buffers of I/O are bounded by the limits on how many there are. */
AG_API void *ag_alloc(void *memory, void *block, size_t old, size_t size);

/* What scripts may use; 0 anywhere: no limit. */
typedef struct ag_limits {
  /* Instructions of Lua's virtual machine for one step of a task, which is what runs between two waits, and for one
  ** callback. Whoever takes more gets a LimitError, and has a tenth of the budget to clean up; when that is gone, the
  ** task ends with the error, whatever it catches. Other tasks go on. Counting costs: loops of
  ** plain arithmetic take twice the time, calls of library functions next to nothing. Counted by the thousand. What
  ** C functions do, or an error on a deep stack, takes time and no instructions: set [seconds] as well.
  ** One ag_step runs every task that is ready: it may take as long as all their budgets together. */
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
  size_t handles;   /* sockets and other handles that are open on one loop; and operations that wait for an answer */
  double grace;     /* seconds that ag_loop_destroy gives tasks to clean up; 0: 5 */
  /* In restricted mode only, where 0 is the value in brackets. */
  size_t string;   /* bytes of a string that string.rep makes (16 MiB) */
  size_t chunk;    /* bytes of a text for load (1 MiB) */
  size_t elements; /* elements that one call of table.move, insert or remove passes over (10 million) */
} ag_limits;

/* Sets the limits of the state, in place of those before; NULL: none. What hits one is a LimitError with .limit (the
** name of the field above) and .value; when nobody catches it, it goes to the loop's exception handler with the task
** and its traceback. Not while a loop runs. [-0, +0|1, -] AG_OK, AG_REENTRANT or AG_ERROR. */
AG_API ag_status ag_set_limits(lua_State *L, const ag_limits *limits);

/* For modules that open handles: how many [loop] may have open, or 0, and the error for the next one. Loop's thread;
** the first never raises. */
AG_API size_t ag_handle_limit(const ag_loop *loop);
/* Raises a LimitError: the limit [name] of [value] is reached. [-0, +0, e] */
AG_API AG_NORETURN int ag_limit_error(lua_State *L, const char *name, lua_Integer value);

/* Restricts what is loaded from now on: gives the state new globals with nothing but what [allow] names and is safe.
** [allow] is a list with a NULL at its end, of globals ("print"), whole libraries ("string"), single functions
** ("string.rep", "agather.sleep") and submodules ("agather.net"); NULL stands for all that needs no trust.
** What no hook can stop is replaced or missing: load takes text only, setmetatable no __gc, xpcall runs the handler
** after the error has unwound, string.rep and the like have caps; metatables of strings and of the library's objects
** are locked; there is no debug, io, package, string.dump, and of os only time, clock, date and difftime. Loops lose
** the methods that stop them, run them or set their exception handler, for the host's Lua code too.
** Set functions of your own with lua_setglobal afterwards. Called again, it takes away from the globals what [allow]
** does not name, and gives nothing back. What was loaded before keeps what it had.
** Not while a loop runs. [-0, +0|1, -] AG_OK, AG_REENTRANT or AG_ERROR. */
AG_API ag_status ag_restrict(lua_State *L, const char *const *allow);

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
/* Gives [loop] another poller, which it owns from now on; the old one is closed, after the last wake of another thread
** has returned. The new one is woken once. Not from within its wait. Loop's thread. */
AG_API void ag_loop_set_poller(ag_loop *loop, ag_poller *poller);

/* What ag_interrupt takes, for a state: valid as long as the state. Loop's thread. [-0, +0, m] */
AG_API void *ag_interruptible(lua_State *L);
/* Does what a second SIGINT does to the state's loop, if one runs: KeyboardInterrupt leaves its run as soon as the task
** that runs now has. Returns the thread that runs now in a task, for lua_sethook to end it, or NULL.
** Only in a signal handler on the loop's thread, or there between other things. Takes no memory. */
AG_API lua_State *ag_interrupt(void *interruptible);

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
