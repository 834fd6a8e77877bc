/* The functions that scripts get in restricted mode, and the globals made of them. */
#ifndef AG_RESTRICT_H
#define AG_RESTRICT_H

#include "core/state.h"

/* ---- safe.c: replacements of functions that no hook can stop ---- */

/* Puts them into the globals on top, over those of luaopen_base and the other libraries there. [-0, +0, m] */
void ag_safe_functions(lua_State *L, ag_state *S);
/* Pushes xpcall as agather has it, which lets cancellations through. [-0, +1, m] */
void ag_safe_push_xpcall(lua_State *L, ag_state *S);

/* Takes __gc out of the metatable on top where scripts are restricted: it may be a class of theirs. [-0, +0, -] */
void ag_restrict_metatable(lua_State *L, ag_state *S);

#endif
