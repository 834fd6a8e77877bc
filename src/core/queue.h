/* Queues. Knows the wait list. */
#ifndef AG_QUEUE_H
#define AG_QUEUE_H

#include "core/state.h"

void ag_queue_open_module(lua_State *L, ag_state *S);

#endif
