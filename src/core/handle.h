/* Handles: functions that the loop will call, by call_soon, call_later or as the callback of a future.
** Knows the loop; not futures and tasks. */
#ifndef AG_HANDLE_H
#define AG_HANDLE_H

#include "core/loop.h"

/* User value 1 is the function, the arguments follow. */
typedef struct ag_handle {
  ag_timer timer;
  uint32_t loop;
  int slot; /* kept while scheduled */
  int nargs;
  bool cancelled;
  bool promised; /* the function is C's, which is called even where memory is short for now or the loop closes first */
  double when;
} ag_handle;

/* Makes a handle of the function at [fn] and the arguments above it, anchored but not queued, and pushes it.
** [-0, +1, m] */
ag_handle *ag_handle_new(lua_State *L, ag_loop *loop, int fn);
/* The handle at [index], or NULL. Never raises. */
ag_handle *ag_handle_to(lua_State *L, ag_state *S, int index);
/* Lets go of a handle that is on no list any more. */
void ag_handle_release(lua_State *L, ag_state *S, ag_handle *handle);
/* The handle that embeds [node], or NULL for a node of another kind. */
ag_handle *ag_handle_of(ag_node *node);
/* For the function of a promised handle, first of all: it was called. */
void ag_handle_kept(lua_State *L, ag_state *S, ag_handle *handle);
/* Calls the function of a promised handle while the loop closes. */
void ag_handle_close(lua_State *L, ag_loop *loop, ag_handle *handle);
void ag_handle_open_module(lua_State *L, ag_state *S);

#endif
