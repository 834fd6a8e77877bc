/* What the library keeps for one Lua state: the table of the living, the pool of threads, the loop that runs.
** Knows Lua; knows nothing of loops and tasks but their names. Every C function of the module has the state as
** upvalue 1. */
#ifndef AG_STATE_H
#define AG_STATE_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "agather.h"
#include "compat.h"
#include "core/list.h"
#include "noreturn.h"

typedef struct ag_task ag_task;
struct ag_node;

enum { AG_POOL_MIN = 256 };

typedef struct ag_thread {
  lua_State *L;
  int slot; /* its place in the table of the living */
} ag_thread;

typedef struct ag_state {
  lua_State *main;  /* the main thread of the Lua state */
  ag_loop *running; /* the loop that runs now, or NULL */
  ag_link loops;    /* all loops that are not closed */
  ag_link every;    /* all that have not been finalized */
  int living;       /* registry reference: table slot -> pending task, gather, handle, thread */
  int *free_slots;  /* stack of free slots */
  int nfree, free_size, top_slot;
  ag_thread *pool; /* threads that rest */
  int pooled, pool_size;
  int in_use, peak;          /* threads in use, and their recent peak */
  int new_peak, until_decay; /* the peak of this span; threads to be given back until the next begins */
  bool recycle;
  bool spoiled;       /* the thread that just ended must not be used again */
  bool contexts_used; /* some context variable was set */
  uint32_t next_loop, next_task;
  lua_CFunction direct; /* the builtin whose task needs no thread (see sleep.c), and what runs such a task */
  void (*direct_step)(ag_loop *loop, lua_State *L, struct ag_node *node);
  uint32_t cancel_epoch;
  lua_State *closing;                                                     /* the generator that is being closed */
  size_t unstarted;                                                       /* coros that nobody has started */
  int mt_future, mt_task, mt_coro, mt_used, mt_handle, mt_loop, mt_watch; /* registry references */
  int mt_context, mt_variable, mt_token;
  int mt_queues[3];
  int worker, frame, handler; /* registry references: bodies of threads (step.c, await.c), their message handler */
  int errors;                 /* registry reference: class name -> class */
  int cancelled;              /* registry reference: CancelledError without a message */
  int names;                  /* registry reference: weak table task or function -> name */
  int throws;                 /* registry reference: slot -> error to throw at the next step */
  int suspects;               /* registry reference: weak table of failed futures nobody asked */
  int causes;                 /* registry reference: weak table failed task or gather -> the one its error came from */
  uint32_t raised_in;         /* id of the task in which a future raised last, or 0 */
  int origins;                /* registry reference: weak table coro -> "file:line" that made it, in debug mode */
  int contexts;               /* registry reference: weak table task or handle -> context */
  int no_memory;              /* registry reference: the error object of a task whose error there is no memory for */
  int exit;                   /* registry reference: what is raised in a generator to close it */
  int waiting;                /* registry reference: weak table of generators that wait (see generator.c) */
  int outside;                /* registry reference: the context of code outside tasks */
  lua_Hook saved_hook;        /* while an error is thrown by a hook: the script's own */
  int saved_mask, saved_count;
  int reports;          /* registry reference: list of what __gc found */
  lua_Integer reported; /* length of that list */
  lua_Integer told;     /* so many of them have been reported */
  int companions;       /* registry reference: see companion.c */
  int companion_count;
  int module;         /* registry reference: the module's table */
  int requests;       /* registry reference: weak table task -> CancelledError of its last request (see throw.c) */
  bool requests_used; /* some request had a message */
  bool debug;         /* remember where coros were made */
  bool closed;
  struct ag_limiter *limiter; /* what scripts may use, or NULL: no limits (see limits.h) */
  size_t callbacks;           /* handles that have not run */
  bool restricted;            /* scripts see what ag_restrict left them */
} ag_state;

/* The state of the calling C function of this module (upvalue 1). */
static inline ag_state *ag_self(lua_State *L) { return (ag_state *)lua_touserdata(L, lua_upvalueindex(1)); }

/* Creates the state or finds it; leaves the stack as it was. [-0, +0, m] */
ag_state *ag_state_open(lua_State *L);
/* In loop.c. Frees what loops have that were made while the state closes, by finalizers: Lua finalizes those no more.
 */
void ag_loops_end(lua_State *L, ag_state *S);

/* Finds the state; NULL where nothing was opened. Never raises. */
ag_state *ag_state_find(lua_State *L);

/* Registers [lib] in the table on top, with the state as upvalue 1. [-0, +0, m] */
void ag_setfuncs(lua_State *L, ag_state *S, const luaL_Reg *lib);

/* Makes a metatable with the fields [meta], __name and the [methods] as __index; returns a registry reference.
** [-0, +0, m] */
int ag_new_type(lua_State *L, ag_state *S, const char *name, const luaL_Reg *meta, const luaL_Reg *methods);
/* Pushes a metatable whose functions have the state and the metatable itself as upvalues; any of the last three may
** be NULL. [-0, +1, m] */
void ag_new_class(lua_State *L, ag_state *S, const char *name, const luaL_Reg *methods, lua_CFunction tostring,
                  lua_CFunction gc, lua_CFunction close);
/* Adds methods to a type. [-0, +0, m] */
void ag_add_methods(lua_State *L, ag_state *S, int type, const luaL_Reg *methods);

/* Anchors the value on top; returns its slot. [-1, +0, m] */
int ag_keep(lua_State *L, ag_state *S);
/* The same where the table of the living is at the index [living], absolute or an upvalue's. [-1, +0, m] */
int ag_keep_in(lua_State *L, ag_state *S, int living);
/* Lets go of a slot; 0 is ignored. Never raises. */
void ag_drop(lua_State *L, ag_state *S, int slot);
/* The same where the table of the living is at stack index [living]. */
static inline void ag_drop_from(lua_State *L, ag_state *S, int living, int slot) {
  lua_pushboolean(L, 0);
  lua_rawseti(L, living, slot);
  S->free_slots[S->nfree++] = slot;
}
/* Pushes what a slot holds. [-0, +1, -] */
void ag_push_kept(lua_State *L, ag_state *S, int slot);

/* A thread with an empty stack, new or recycled. [-0, +0, m] */
ag_thread ag_thread_take(lua_State *L, ag_state *S);
/* Gives a thread back; it rests in the pool unless it is [spoiled] or there are enough. Never raises. */
void ag_thread_give(lua_State *L, ag_state *S, ag_thread thread, bool spoiled);
/* A loop has ended: the pool forgets its peak, the table of the living its length. Never raises. */
void ag_trim(lua_State *L, ag_state *S);

/* Pushes a table with weak keys ("k"), values ("v"). [-0, +1, m] */
void ag_push_weak_table(lua_State *L, const char *mode);
/* A registry reference to a table with weak keys ("k"), values ("v"). [-0, +0, m] */
int ag_weak_table(lua_State *L, const char *mode);

/* Pushes the kind of the value at [index]: the __name of its metatable, or its type. [-0, +1, m] */
const char *ag_type_name(lua_State *L, int index);

/* Pushes "function <file:line>" or "name <file:line>" for the function at [index]. [-0, +1, m] */
void ag_push_site(lua_State *L, ag_state *S, int index);

#endif
