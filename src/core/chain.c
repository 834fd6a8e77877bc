/* Chains of awaiters. The links stand in a table with weak keys: they cost nothing until something fails, and go
** with what failed. */
#include "core/chain.h"

#include "core/error.h"
#include "core/gather.h"

enum { CHAIN_MAX = 100 }; /* longer ones are cut */

/* Key under which the links hold the future that raised last. */
static const char last_key = 0;

void ag_chain_raised(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->causes);
  lua_pushvalue(L, index);
  lua_rawsetp(L, -2, &last_key);
  lua_pop(L, 1);
  S->raised_in = S->running != NULL && S->running->task != NULL ? S->running->task->id : 0;
}

void ag_chain_link(lua_State *L, ag_state *S, int index, int child) {
  index = lua_absindex(L, index);
  child = lua_absindex(L, child);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->causes);
  lua_pushvalue(L, index);
  lua_pushvalue(L, child);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

void ag_chain_failed(lua_State *L, ag_state *S, int index, int raised) {
  if (S->raised_in != ((ag_task *)lua_touserdata(L, index))->id)
    return; /* another task got that error: equal ones have nothing to do with each other */
  int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->causes);
  lua_rawgetp(L, -1, &last_key);
  ag_future *last = ag_future_to(L, S, -1);
  if (last != NULL && last->status == AG_FAILED) {
    lua_getiuservalue(L, -1, 2);
    ag_error_unwrap(L);
    if (lua_rawequal(L, -1, raised) && !lua_rawequal(L, index, top + 2))
      ag_chain_link(L, S, index, top + 2);
    lua_pushnil(L);
    lua_rawsetp(L, top + 1, &last_key);
  }
  lua_settop(L, top);
}

/* Pushes "Task-1 'name' (function <file:line>)" or "gather of 3" for the future at [index]. [-0, +1, m] */
static void push_who(lua_State *L, ag_state *S, int index) {
  ag_future *future = lua_touserdata(L, index);
  if (future->kind == AG_TASK) {
    ag_task_push_name(L, S, (ag_task *)future, index);
    ag_task_push_function(L, index);
    ag_push_site(L, S, -1);
    lua_pushfstring(L, "%s (%s)", lua_tostring(L, -3), lua_tostring(L, -1));
    lua_replace(L, -4);
    lua_pop(L, 2);
  } else if (future->kind == AG_GATHER) {
    lua_pushfstring(L, "gather of %d", (int)((ag_gather *)future)->count);
  } else {
    lua_pushliteral(L, "a future");
  }
}

void ag_chain_push(lua_State *L, ag_state *S, int index) {
  int top = lua_gettop(L);
  luaL_checkstack(L, CHAIN_MAX + 20, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->causes);
  int links = top + 1;
  lua_pushvalue(L, index < 0 ? index - 1 : index);
  int first = top + 2, n = 1;
  while (n < CHAIN_MAX) {
    lua_pushvalue(L, -1);
    if (lua_rawget(L, links) == LUA_TNIL) {
      lua_pop(L, 1);
      break;
    }
    n++;
  }
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  int deepest = first + n - 1;
  lua_getiuservalue(L, deepest, 2);
  lua_getfield(L, -1, "traceback");
  lua_remove(L, -2);
  if (lua_isstring(L, -1))
    luaL_addvalue(&b);
  else
    lua_pop(L, 1);
  for (int i = deepest; i >= first; i--) {
    luaL_addstring(&b, i == deepest ? "\n\traised in " : "\n\tawaited by ");
    push_who(L, S, i);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

void ag_chain_open(lua_State *L, ag_state *S) { S->causes = ag_weak_table(L, "k"); }
