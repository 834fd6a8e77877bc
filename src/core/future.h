/* Futures: a result that will be there, and those who wait for it. Knows the loop, not tasks and gather.
** Invariant: a waiter sits on at most one list; only a pending future has waiters. */
#ifndef AG_FUTURE_H
#define AG_FUTURE_H

#include "core/loop.h"

enum ag_kind { AG_FUTURE, AG_TASK, AG_GATHER };

/* User value 1: a task's function, or the watch of a failure nobody asked for (which then holds the function).
** From 2 on: a coro's arguments; later the results, or the error object. */
typedef struct ag_future {
  const void *magic; /* tells futures from other userdata: see ag_future_to; NULL in coros */
  ag_link waiters;
  uint32_t loop; /* id of its loop, 0 for a coro that was not started */
  uint8_t kind, status, values;
  bool packed : 1;  /* the results are in a table in user value 2 */
  bool watched : 1; /* user value 1 holds a watch */
  bool asked : 1;   /* somebody took the error */
  bool hooked : 1;  /* it is an ag_hooked_future */
  int count;        /* number of results */
  int slot;         /* in the table of the living while pending, or 0 */
} ag_future;

/* A future that tells somebody at once when it is settled; [settled] must not raise. */
typedef struct ag_hooked_future ag_hooked_future;
struct ag_hooked_future {
  ag_future future;
  void (*settled)(ag_hooked_future *future);
  void *data;
};

/* Makes a future of [size] bytes and pushes it. [-0, +1, m] */
ag_future *ag_future_new(lua_State *L, ag_loop *loop, size_t size, uint8_t kind);
/* What futures of this state carry as magic. */
static inline const void *ag_future_magic(const ag_state *S) { return &S->mt_future; }
/* The future, task or gather at [index], or NULL. Never raises. */
ag_future *ag_future_to(lua_State *L, ag_state *S, int index);
ag_future *ag_future_check(lua_State *L, int index);
/* Settles the future at [index] with the [count] values on top. [-count, +0, m] */
void ag_future_resolve(lua_State *L, ag_state *S, int index, int count);
/* The same for the [future] that stands at [index], which is absolute. */
void ag_future_resolve_at(lua_State *L, ag_state *S, ag_future *future, int index, int count);
/* Settles it with the error object on top. [-1, +0, m] */
void ag_future_reject(lua_State *L, ag_state *S, int index);
/* The same, cancelled; the CancelledError is on top. [-1, +0, m] */
void ag_future_set_cancelled(lua_State *L, ag_state *S, int index);
/* Pushes the results of the finished future at [index], or raises its error. Marks it as asked. */
int ag_future_results(lua_State *L, ag_state *S, int index);
/* Pushes the first result, or the error object; returns whether it is an error. Marks it as asked. [-0, +1, m] */
bool ag_future_value(lua_State *L, ag_state *S, int index);
/* The same for the [future] that stands at [index], which is absolute. */
bool ag_future_value_at(lua_State *L, ag_state *S, ag_future *future, int index);
/* Cancels a future, a task, a gather; the CancelledError is on top of the stack. See cancel.c. [-1, +0, m] */
bool ag_cancel(lua_State *L, ag_state *S, int index);
void ag_future_open_module(lua_State *L, ag_state *S);
/* Pushes the CancelledError for the optional message at [index]. [-0, +1, m] */
void ag_push_cancelled(lua_State *L, ag_state *S, int index);

#endif
