/* The state: slots of the living, recycled threads, names of functions. */
#include "core/state.h"

#include <stdlib.h>
#include <string.h>

static const char state_key = 0;

static int state_gc(lua_State *L) {
  ag_state *S = lua_touserdata(L, 1);
  S->closed = true;
  free(S->free_slots);
  S->free_slots = NULL;
  return 0;
}

static int weak_table(lua_State *L, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

ag_state *ag_state_open(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key) == LUA_TUSERDATA) {
    ag_state *S = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return S;
  }
  lua_pop(L, 1);
  ag_state *S = lua_newuserdatauv(L, sizeof *S, 0);
  memset(S, 0, sizeof *S);
  ag_link_init(&S->loops);
  S->recycle = true;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, state_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  S->main = lua_tothread(L, -1);
  lua_pop(L, 1);
  lua_newtable(L);
  S->living = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  S->throws = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  S->reports = luaL_ref(L, LUA_REGISTRYINDEX);
  S->names = weak_table(L, "k");
  S->suspects = weak_table(L, "v");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  return S;
}

void ag_setfuncs(lua_State *L, ag_state *S, const luaL_Reg *lib) {
  lua_pushlightuserdata(L, S);
  luaL_setfuncs(L, lib, 1);
}

int ag_keep(lua_State *L, ag_state *S) {
  int slot;
  if (S->nfree > 0) {
    slot = S->free_slots[S->nfree - 1];
  } else {
    slot = S->top_slot + 1;
    /* Room to give every slot back is made here, so that ag_drop cannot fail. */
    if (slot > S->free_size) {
      int size = S->free_size ? S->free_size * 2 : 64;
      int *slots = realloc(S->free_slots, (size_t)size * sizeof *slots);
      if (slots == NULL) luaL_error(L, "not enough memory");
      S->free_slots = slots;
      S->free_size = size;
    }
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_insert(L, -2);
  lua_rawseti(L, -2, slot);
  lua_pop(L, 1);
  if (S->nfree > 0)
    S->nfree--;
  else
    S->top_slot = slot;
  return slot;
}

void ag_drop(lua_State *L, ag_state *S, int slot) {
  if (slot == 0 || S->closed) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_pushboolean(L, 0);
  lua_rawseti(L, -2, slot);
  lua_pop(L, 1);
  S->free_slots[S->nfree++] = slot;
}

void ag_push_kept(lua_State *L, ag_state *S, int slot) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_rawgeti(L, -1, slot);
  lua_remove(L, -2);
}

ag_thread ag_thread_take(lua_State *L, ag_state *S) {
  if (S->pooled > 0) return S->pool[--S->pooled];
  ag_thread thread;
  thread.L = lua_newthread(L);
  thread.slot = ag_keep(L, S);
  return thread;
}

void ag_thread_give(lua_State *L, ag_state *S, ag_thread thread) {
  if (S->recycle && S->pooled < AG_POOL_MAX) {
    if (lua_gethook(thread.L) != NULL) lua_sethook(thread.L, NULL, 0, 0);
    S->pool[S->pooled++] = thread;
  } else {
    ag_drop(L, S, thread.slot);
  }
}

void ag_push_site(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  if (lua_type(L, index) != LUA_TFUNCTION) {
    lua_pushliteral(L, "function <?>");
    return;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->names);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  const char *name = lua_isstring(L, -1) ? lua_tostring(L, -1) : "function";
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">S", &ar);
  if (ar.linedefined > 0)
    lua_pushfstring(L, "%s <%s:%d>", name, ar.short_src, ar.linedefined);
  else
    lua_pushfstring(L, "%s <%s>", name, ar.short_src);
  lua_remove(L, -2);
}
