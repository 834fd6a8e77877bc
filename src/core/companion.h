/* Libraries with an event loop of their own that scripts load beside this one: a loop makes their acquaintance before
** it blocks. Knows nothing of them but their names and a function in Lua that joins them to the running loop. */
#ifndef AG_COMPANION_H
#define AG_COMPANION_H

#include "core/loop.h"

/* Joins what was loaded since the last call; false where memory lacked, and it should be called again. Runs Lua code.
** [-0, +0, m] */
bool ag_companions_meet(lua_State *L, ag_loop *loop);
void ag_companion_open_module(lua_State *L, ag_state *S);

#endif
