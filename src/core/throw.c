/* What is thrown into a task where it waits: the error is kept until its next step takes it, a CancelledError or one
** of the library's own. Whether and whom a request cancels is decided in cancel.c. */
#include "core/task.h"

void ag_task_take_throw(lua_State *L, ag_state *S, ag_task *task) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->throws);
  if (lua_rawgeti(L, -1, task->future.slot) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
  } else {
    lua_pushnil(L);
    lua_rawseti(L, -3, task->future.slot);
  }
  lua_remove(L, -2);
  task->must_cancel = task->bad_yield = task->delivering = false;
}

void ag_task_keep_throw(lua_State *L, ag_state *S, ag_task *task) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->throws);
  lua_insert(L, -2);
  lua_rawseti(L, -2, task->future.slot);
  lua_pop(L, 1);
}

void ag_task_throw(lua_State *L, ag_state *S, ag_task *task) {
  task->must_cancel = true;
  if (task->delivering) {
    lua_pop(L, 1);
    return;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
  bool plain = lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  bool found_waiting = task->wait != AG_WAIT_NONE && task->wait != AG_WAIT_FUTURE;
  if (!found_waiting && (!plain || S->requests_used)) { /* only requests with a message are remembered */
    S->requests_used = true;
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->requests);
    ag_push_kept(L, S, task->future.slot);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
  }
  ag_task_keep_throw(L, S, task);
}

void ag_task_throw_error(lua_State *L, ag_state *S, ag_task *task) {
  ag_task_keep_throw(L, S, task);
  task->must_cancel = true;
}

void ag_task_push_request(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->requests);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (!lua_isnil(L, -1))
    return;
  lua_pop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
}

/* ---- into a stray yield: only a hook can raise there ---- */

static void throw_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  ag_state *S = ag_state_open(L);
  lua_sethook(L, S->saved_hook, S->saved_mask, S->saved_count);
  ag_task *task = S->running != NULL ? S->running->task : NULL;
  if (task == NULL || task->thread.L != L)
    return;
  ag_task_take_throw(L, S, task);
  lua_error(L);
}

void ag_task_throw_into_yield(ag_state *S, ag_task *task) {
  lua_State *co = task->thread.L;
  S->saved_hook = lua_gethook(co);
  S->saved_mask = lua_gethookmask(co);
  S->saved_count = lua_gethookcount(co);
  lua_sethook(co, throw_hook, LUA_MASKCOUNT, 1);
}
