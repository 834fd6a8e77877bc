/* agather.pcall and agather.xpcall. */
#ifndef AG_PCALL_H
#define AG_PCALL_H

#include "core/state.h"

void ag_pcall_open_module(lua_State *L, ag_state *S);

#endif
