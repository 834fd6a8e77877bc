/* What the files of agather.uv share: the loop's libuv reactor and errors. Stands on agather.h alone. */
#ifndef AG_UV_H
#define AG_UV_H

#include <lauxlib.h>
#include <uv.h>

#include "agather.h"
#include "noreturn.h"

/* The libuv loop of the running loop; makes it the poller at the first call. Raises outside a loop. */
uv_loop_t *ag_uv_loop(lua_State *L, const char *what);
/* Raises an OSError for a libuv status. */
AG_NORETURN int ag_uv_error(lua_State *L, int status, const char *operation, const char *address);

/* Each adds its functions to the module table on top of the stack. */
void ag_open_tcp(lua_State *L);
void ag_open_dns(lua_State *L);
void ag_open_worker(lua_State *L);

#endif
