/* luaopen_agather_core: nothing but the table of names. */
#include <unistd.h>

#include "core/chain.h"
#include "core/companion.h"
#include "core/context.h"
#include "core/error.h"
#include "core/future.h"
#include "core/gather.h"
#include "core/generator.h"
#include "core/handle.h"
#include "core/pcall.h"
#include "core/queue.h"
#include "core/report.h"
#include "core/run.h"
#include "core/sleep.h"
#include "core/sync.h"
#include "core/task.h"

const char *ag_version(void) { return AG_VERSION; }

/* isatty(fd): whether a descriptor is a terminal. */
static int is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

int luaopen_agather_core(lua_State *L) {
  ag_state *S = ag_state_open(L);
  if (S->module != 0) { /* opened before, perhaps under another name */
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->module);
    return 1;
  }
  lua_newtable(L);
  ag_errors_open(L, S);
  ag_chain_open(L, S);
  ag_companion_open_module(L, S);
  ag_context_open_module(L, S);
  ag_loop_open_module(L, S);
  ag_handle_open_module(L, S);
  ag_future_open_module(L, S);
  ag_coro_open_module(L, S);
  ag_step_open_module(L, S);
  ag_await_open_module(L, S);
  ag_task_open_module(L, S);
  ag_sleep_open_module(L, S);
  ag_gather_open_module(L, S);
  ag_generator_open_module(L, S);
  ag_sync_open_module(L, S);
  ag_queue_open_module(L, S);
  ag_report_open_module(L, S);
  ag_run_open_module(L, S);
  ag_pcall_open_module(L, S);
  lua_pushcfunction(L, is_terminal);
  lua_setfield(L, -2, "isatty");
  lua_pushliteral(L, AG_VERSION);
  lua_setfield(L, -2, "_VERSION");
  lua_pushvalue(L, -1);
  S->module = luaL_ref(L, LUA_REGISTRYINDEX);
  return 1;
}
