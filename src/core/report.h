/* What went wrong and nobody asked for: the exception handler, and watches over failures. */
#ifndef AG_REPORT_H
#define AG_REPORT_H

#include "core/future.h"

/* Gives [message] with the error object on top and the future at [index] (0: none) to the exception handler. [-1, +0,
 * m] */
void ag_report(lua_State *L, ag_loop *loop, const char *message, int index);
/* Watches the failed future at [index] for nobody asking. [-0, +0, m] */
void ag_watch(lua_State *L, ag_state *S, int index);
/* The failure was asked for. Never raises. */
void ag_unwatch(lua_State *L, ag_state *S, ag_future *future, int index);
/* Reports what became unreachable; [all]: also what is reachable still. Runs Lua code. */
void ag_report_suspects(lua_State *L, ag_loop *loop, bool all);
/* Seconds until that may look; 0: now, -1: there is nothing to look for. */
double ag_suspects_due(const ag_loop *loop);
/* For __gc: the value at 1 is to be reported later. */
void ag_report_later(lua_State *L, ag_state *S);
void ag_report_open_module(lua_State *L, ag_state *S);

#endif
