/* The end of a run. Knows the loop and its tasks. */
#ifndef AG_SHUTDOWN_H
#define AG_SHUTDOWN_H

#include "core/loop.h"

/* Cancels the pending tasks of [loop], runs it until they are done, within bounds, reports what nobody asked for, and
** closes it. Never raises. */
void ag_loop_shut_down(lua_State *L, ag_loop *loop);

#endif
