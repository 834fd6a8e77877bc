/* Locks, events, conditions, semaphores. Knows the wait list. */
#ifndef AG_SYNC_H
#define AG_SYNC_H

#include "core/state.h"

void ag_sync_open_module(lua_State *L, ag_state *S);

#endif
