/* Companions: looked for in package.loaded, which costs a blocking wait next to nothing. */
#include "core/companion.h"

#include <string.h>

#include "core/error.h"
#include "core/report.h"

enum { COMPANIONS_MAX = 8 }; /* bits of loop->met */
/* Places in the table of companions: package.loaded, then a name and a function for each. */
enum { LOADED = 1, NAME = 2, JOIN = 3 };

/* Whether the error on top is a lack of memory, Lua's or that of C code. */
static bool lacks_memory(lua_State *L, int status) {
  return status == LUA_ERRMEM ||
         (lua_type(L, -1) == LUA_TSTRING && strstr(lua_tostring(L, -1), "not enough memory") != NULL);
}

/* Calls the function [join] of the companion on top. False: there was no memory for it. [-1, +0, m] */
static bool meet(lua_State *L, ag_loop *loop, const char *name) {
  ag_task *outer = loop->task;
  loop->task = NULL;
  int status = lua_pcall(L, 0, 0, 0);
  loop->task = outer;
  if (status != LUA_OK && lacks_memory(L, status))
    return false;
  if (status != LUA_OK) {
    const char *message = lua_pushfstring(L, "Exception while %s was joined to the loop", name);
    lua_insert(L, -2);
    ag_error_wrap(L, loop->S, lua_gettop(L));
    ag_report(L, loop, message, 0);
    lua_pop(L, 1);
  }
  return true;
}

bool ag_companions_meet(lua_State *L, ag_loop *loop) {
  ag_state *S = loop->S;
  bool all = true;
  if (S->companion_count == 0 || loop->met == (1u << S->companion_count) - 1)
    return all;
  int top = lua_gettop(L);
  luaL_checkstack(L, 10, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->companions);
  lua_rawgeti(L, top + 1, LOADED);
  for (int i = 0; i < S->companion_count; i++) {
    if ((loop->met & 1u << i) != 0)
      continue;
    lua_rawgeti(L, top + 1, NAME + 2 * i);
    if (lua_rawget(L, top + 2) != LUA_TNIL) {
      loop->met |= (uint8_t)(1u << i);
      lua_rawgeti(L, top + 1, NAME + 2 * i);
      lua_rawgeti(L, top + 1, JOIN + 2 * i);
      if (!meet(L, loop, lua_tostring(L, -2))) {
        loop->met &= (uint8_t) ~(1u << i);
        all = false;
      }
    }
    lua_settop(L, top + 2);
  }
  lua_settop(L, top);
  return all;
}

/* companion(name, join): join() is called once for each loop, before it first blocks with the module [name] loaded. A
** name that is there already gets the new function. */
static int companion(lua_State *L) {
  ag_state *S = ag_self(L);
  luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->companions);
  int place = 0;
  for (bool same = false; place < S->companion_count; place++) {
    lua_rawgeti(L, 3, NAME + 2 * place);
    same = lua_rawequal(L, 1, -1);
    lua_pop(L, 1);
    if (same)
      break;
  }
  if (place == COMPANIONS_MAX)
    return ag_error_raise(L, S, "RuntimeError", "companion: no more than %d", COMPANIONS_MAX);
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, NAME + 2 * place);
  lua_pushvalue(L, 2);
  lua_rawseti(L, 3, JOIN + 2 * place);
  if (place == S->companion_count)
    S->companion_count++;
  return 0;
}

void ag_companion_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg functions[] = {{"companion", companion}, {NULL, NULL}};
  lua_newtable(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_rawseti(L, -2, LOADED);
  S->companions = luaL_ref(L, LUA_REGISTRYINDEX);
  ag_setfuncs(L, S, functions);
}
