/* gather: one future for many. Knows futures and tasks. */
#ifndef AG_GATHER_H
#define AG_GATHER_H

#include "core/task.h"

typedef struct ag_gather ag_gather;

typedef struct ag_gather_child {
  ag_node node;
  ag_gather *gather;
  ag_future *child;
} ag_gather_child;

/* User value 2 holds the list: each place the child until it is done, then its result. */
struct ag_gather {
  ag_future future;
  lua_Integer count, finished;
  bool return_exceptions : 1;
  bool cancel_on_error : 1;
  bool cancel_requested : 1;
  bool cancelling : 1;     /* ag_cancel is at its children */
  bool failing : 1;        /* cancel_on_error: an error is kept in user value 1 until the siblings have ended */
  lua_Integer cancel_next; /* where ag_cancel stands in the children */
  bool cancel_accepted;
  ag_gather *cancel_up;
  ag_task *cancel_waiter;
  int cancel_index;
  ag_gather_child children[];
};

/* Takes the gather off its children, which may outlive it: its loop closes. */
void ag_gather_abandon(ag_future *future);
void ag_gather_open_module(lua_State *L, ag_state *S);

#endif
