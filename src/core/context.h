/* Contexts: what each task and callback sees in its context variables. A task or callback starts with a copy of its
** creator's, so a change is seen by nobody else. Knows the state and which task runs. */
#ifndef AG_CONTEXT_H
#define AG_CONTEXT_H

#include "core/state.h"

/* Gives the task or handle at [index] a copy of the current context. Call only when S->contexts_used. [-0, +0, m] */
void ag_context_inherit(lua_State *L, ag_state *S, int index);
/* Pushes a copy of the current context. [-0, +1, m] */
void ag_context_copy(lua_State *L, ag_state *S);
/* Raises an argument error for [arg] unless the value at [index] is a context. */
void ag_context_check(lua_State *L, ag_state *S, int index, int arg);
/* Gives the task at [index] the very context on top. [-1, +0, m] */
void ag_context_give(lua_State *L, ag_state *S, int index);
/* Exchanges the context of the handle at [index] with that of the code outside tasks. [-0, +0, m] */
void ag_context_swap(lua_State *L, ag_state *S, int index);
/* Pushes the context of the task at [index]. [-0, +1, m] */
void ag_context_push(lua_State *L, ag_state *S, int index);
/* The same for the task at [index], but not the context that it is in by context:run. [-0, +1, m] */
void ag_context_push_own(lua_State *L, ag_state *S, int index);
void ag_context_open_module(lua_State *L, ag_state *S);

#endif
