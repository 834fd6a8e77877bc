/* Tasks that wait for the same thing, in the order in which they came. Knows agather.h and nothing of what they wait
** for. A node is a userdata on the stack of its task, so waiting takes no memory of the list's owner. */
#ifndef AG_UV_WAITLIST_H
#define AG_UV_WAITLIST_H

#include <lauxlib.h>
#include <stddef.h>

#include "agather.h"

typedef struct ag_waitlist {
  struct ag_waiter *first;
} ag_waitlist;

/* Pushes a node. First: this may run a finalizer, and that the loop, so only afterwards is it known whether there is
** something to wait for. [-0, +1, m] */
void ag_waitlist_prepare(lua_State *L);
/* With the node on top. Suspends the calling task until a wake with no more than [until]; then [k] runs with [context],
** one value above the stack as it was. Use as `return ag_waitlist_suspend(...)`. [-0, +1, e] */
int ag_waitlist_suspend(lua_State *L, ag_waitlist *list, size_t until, lua_KContext context, lua_KFunction k);
/* Wakes those who wait for [level] or more; 0 wakes all. Never fails. */
void ag_waitlist_wake(ag_waitlist *list, size_t level);
/* Makes the metatable of the nodes. [-0, +0, m] */
void ag_open_waitlist(lua_State *L);

#endif
