/* sleep. Knows tasks and timers. */
#ifndef AG_SLEEP_H
#define AG_SLEEP_H

#include "core/state.h"

void ag_sleep_open_module(lua_State *L, ag_state *S);

#endif
