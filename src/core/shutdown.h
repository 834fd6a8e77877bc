/* The end of a run. Knows the loop and its tasks. */
#ifndef AG_SHUTDOWN_H
#define AG_SHUTDOWN_H

#include "core/loop.h"

/* Cancels the pending tasks of [loop] and runs it until they are done, within bounds. Raises KeyboardInterrupt. */
void ag_shutdown(lua_State *L, ag_loop *loop);

#endif
