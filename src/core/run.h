/* run and Runner. Knows everything below. */
#ifndef AG_RUN_H
#define AG_RUN_H

#include "core/state.h"

void ag_run_open_module(lua_State *L, ag_state *S);

#endif
