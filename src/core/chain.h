/* Chains: from which future each failed task and gather got its error, to tell who awaited whom. */
#ifndef AG_CHAIN_H
#define AG_CHAIN_H

#include "core/state.h"

/* The failed future at [index] is about to raise its error in the calling task. [-0, +0, m] */
void ag_chain_raised(lua_State *L, ag_state *S, int index);
/* The task at [index] fails with the value at [raised]: if that came from a future, remembers which. [-0, +0, m] */
void ag_chain_failed(lua_State *L, ag_state *S, int index, int raised);
/* The future at [index] fails because the one at [child] did. [-0, +0, m] */
void ag_chain_link(lua_State *L, ag_state *S, int index, int child);
/* Pushes the traceback of the task where the error of the failed future at [index] arose, and who awaited whom
** from there up to that future. [-0, +1, m] */
void ag_chain_push(lua_State *L, ag_state *S, int index);
void ag_chain_open(lua_State *L, ag_state *S);

#endif
