/* What the files of agather.uv share: the loop's libuv reactor and errors. Stands on agather.h alone. */
#ifndef AG_UV_H
#define AG_UV_H

#include <lauxlib.h>
#include <uv.h>

#include "agather.h"
#include "noreturn.h"
#include "uv/blocks.h"

/* The libuv loop of the running loop; makes it the poller at the first call. Raises outside a loop. */
uv_loop_t *ag_uv_loop(lua_State *L, const char *what);
/* The same for who is about to open a handle: raises a LimitError when as many are open as the host allows. */
uv_loop_t *ag_uv_loop_for_handle(lua_State *L, const char *what);
/* What the streams of one loop share. */
typedef struct ag_shared {
  ag_blocks blocks;
  unsigned lingering; /* streams that the script has closed and that send the rest */
  char *scratch;      /* what is read goes through here: a large block, used within one callback */
  size_t scratch_size;
} ag_shared;

/* That of [loop], which came from ag_uv_loop. */
ag_shared *ag_uv_shared(uv_loop_t *loop);
/* Raises an OSError for a libuv status. */
AG_NORETURN int ag_uv_error(lua_State *L, int status, const char *operation, const char *address);

/* Each adds its functions to the module table on top of the stack. */
void ag_open_address(lua_State *L);
void ag_open_buffer(lua_State *L);
void ag_open_connect(lua_State *L);
void ag_open_dns(lua_State *L);
void ag_open_file(lua_State *L);
void ag_open_fs(lua_State *L);
void ag_open_fs_whole(lua_State *L);
void ag_open_guest(lua_State *L);
void ag_open_job(lua_State *L);
void ag_open_listener(lua_State *L);
void ag_open_process(lua_State *L);
void ag_open_signal(lua_State *L);
void ag_open_stream(lua_State *L);
void ag_open_udp(lua_State *L);
void ag_open_waitlist(lua_State *L);
void ag_open_watch(lua_State *L);
void ag_open_worker(lua_State *L);

#endif
