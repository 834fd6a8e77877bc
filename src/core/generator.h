/* agather.coroutine: coroutines in which a task may wait. Knows tasks. */
#ifndef AG_GENERATOR_H
#define AG_GENERATOR_H

#include "core/state.h"

/* Replaces the body of a generator's thread on top by the script's function; leaves other functions alone. */
void ag_generator_function(lua_State *L);
void ag_generator_open_module(lua_State *L, ag_state *S);

#endif
