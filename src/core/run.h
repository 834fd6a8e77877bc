/* run and Runner. Knows everything below. */
#ifndef AG_RUN_H
#define AG_RUN_H

#include "core/state.h"

/* Runs the loop until the future at [index] is done. Raises DeadlockError, RuntimeError when the loop was stopped,
** KeyboardInterrupt. [-0, +0, e] */
void ag_run_until_done(lua_State *L, ag_loop *loop, int index);
void ag_run_open_module(lua_State *L, ag_state *S);

#endif
