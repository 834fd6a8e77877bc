/* The state: slots of the living, recycled threads, names of functions. */
#include "core/state.h"

#include <stdlib.h>
#include <string.h>

#include "core/limits.h"

static const char state_key = 0;

static int state_gc(lua_State *L) {
  ag_state *S = lua_touserdata(L, 1);
  S->closed = true;
  ag_loops_end(L, S);
  ag_limits_close(S);
  free(S->free_slots);
  S->free_slots = NULL;
  free(S->pool);
  S->pool = NULL;
  S->pooled = 0;
  return 0;
}

void ag_push_weak_table(lua_State *L, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

int ag_weak_table(lua_State *L, const char *mode) {
  ag_push_weak_table(L, mode);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

ag_state *ag_state_find(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  ag_state *S = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return S;
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
  ag_link_init(&S->every);
  S->recycle = true;
  const char *debug = getenv("AGATHER_DEBUG");
  S->debug = debug != NULL && debug[0] != '\0' && strcmp(debug, "0") != 0;
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
  S->names = ag_weak_table(L, "k");
  S->origins = ag_weak_table(L, "k");
  S->contexts = ag_weak_table(L, "k");
  S->suspects = ag_weak_table(L, "v");
  S->requests = ag_weak_table(L, "k");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  return S;
}

void ag_setfuncs(lua_State *L, ag_state *S, const luaL_Reg *lib) {
  lua_pushlightuserdata(L, S);
  luaL_setfuncs(L, lib, 1);
}

int ag_new_type(lua_State *L, ag_state *S, const char *name, const luaL_Reg *meta, const luaL_Reg *methods) {
  lua_newtable(L);
  ag_setfuncs(L, S, meta);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_newtable(L);
  ag_setfuncs(L, S, methods);
  lua_setfield(L, -2, "__index");
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

void ag_new_class(lua_State *L, ag_state *S, const char *name, const luaL_Reg *methods, lua_CFunction tostring,
                  lua_CFunction gc, lua_CFunction close) {
  const struct {
    const char *name;
    lua_CFunction function;
  } events[] = {{"__tostring", tostring}, {"__gc", gc}, {"__close", close}};
  lua_newtable(L);
  int metatable = lua_gettop(L);
  lua_pushstring(L, name);
  lua_setfield(L, metatable, "__name");
  for (int i = 0; i < 3; i++) {
    if (events[i].function == NULL)
      continue;
    lua_pushlightuserdata(L, S);
    lua_pushvalue(L, metatable);
    lua_pushcclosure(L, events[i].function, 2);
    lua_setfield(L, metatable, events[i].name);
  }
  lua_newtable(L);
  lua_pushlightuserdata(L, S);
  lua_pushvalue(L, metatable);
  luaL_setfuncs(L, methods, 2);
  lua_setfield(L, metatable, "__index");
}

void ag_add_methods(lua_State *L, ag_state *S, int type, const luaL_Reg *methods) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, type);
  lua_getfield(L, -1, "__index");
  ag_setfuncs(L, S, methods);
  lua_pop(L, 2);
}

/* The slot to be used next. Room to give every slot back is made here, so that ag_drop cannot fail. */
static int next_slot(lua_State *L, ag_state *S) {
  if (S->nfree > 0)
    return S->free_slots[S->nfree - 1];
  int slot = S->top_slot + 1;
  if (slot > S->free_size) {
    int size = S->free_size ? S->free_size * 2 : 64;
    int *slots = realloc(S->free_slots, (size_t)size * sizeof *slots);
    if (slots == NULL)
      luaL_error(L, "not enough memory");
    S->free_slots = slots;
    S->free_size = size;
  }
  return slot;
}

int ag_keep_in(lua_State *L, ag_state *S, int living) {
  int slot = next_slot(L, S);
  lua_rawseti(L, living, slot);
  if (S->nfree > 0)
    S->nfree--;
  else
    S->top_slot = slot;
  return slot;
}

int ag_keep(lua_State *L, ag_state *S) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_insert(L, -2);
  int slot = ag_keep_in(L, S, lua_gettop(L) - 1);
  lua_pop(L, 1);
  return slot;
}

void ag_drop(lua_State *L, ag_state *S, int slot) {
  if (slot == 0 || S->closed)
    return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_pushboolean(L, 0);
  lua_rawseti(L, -2, slot);
  lua_pop(L, 1);
  S->free_slots[S->nfree++] = slot;
}

void ag_push_kept(lua_State *L, ag_state *S, int slot) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  lua_rawgeti(L, -1, slot);
  lua_replace(L, -2);
}

ag_thread ag_thread_take(lua_State *L, ag_state *S) {
  ag_thread thread;
  if (S->pooled > 0) {
    thread = S->pool[--S->pooled];
    if (lua_gethookmask(thread.L) != lua_gethookmask(L))
      lua_sethook(thread.L, lua_gethook(L), lua_gethookmask(L), lua_gethookcount(L));
  } else {
    thread.L = lua_newthread(L);
    thread.slot = ag_keep(L, S);
  }
  if (++S->in_use > S->new_peak)
    S->new_peak = S->in_use;
  if (S->in_use > S->peak)
    S->peak = S->in_use;
  return thread;
}

/* Drops a thread that rests, for the next collection. */
static void forget_one(lua_State *L, ag_state *S) { ag_drop(L, S, S->pool[--S->pooled].slot); }

/* Gives back the free slots at the end of the table of the living, so that walking it stays cheap. */
static void trim_slots(lua_State *L, ag_state *S) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  int top = S->top_slot;
  for (; top > 0; top--) {
    int type = lua_rawgeti(L, -1, top);
    lua_pop(L, 1);
    if (type > LUA_TBOOLEAN)
      break;
    lua_pushnil(L);
    lua_rawseti(L, -2, top);
  }
  S->top_slot = top;
  S->nfree = 0;
  for (int slot = top; slot > 0; slot--) {
    if (lua_rawgeti(L, -1, slot) <= LUA_TBOOLEAN)
      S->free_slots[S->nfree++] = slot;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

void ag_trim(lua_State *L, ag_state *S) {
  S->peak = S->new_peak = S->in_use;
  bool many = S->top_slot > 4 * AG_POOL_MIN;
  while (S->pooled > (many ? 0 : AG_POOL_MIN))
    forget_one(L, S);
  if (many && S->nfree > S->top_slot / 2)
    trim_slots(L, S);
}

/* Makes room for one more thread in the pool; where there is no memory, the thread is just not kept. */
static bool pool_room(ag_state *S) {
  if (S->pooled < S->pool_size)
    return true;
  int size = S->pool_size ? S->pool_size * 2 : AG_POOL_MIN;
  ag_thread *pool = realloc(S->pool, (size_t)size * sizeof *pool);
  if (pool == NULL)
    return false;
  S->pool = pool;
  S->pool_size = size;
  return true;
}

void ag_thread_give(lua_State *L, ag_state *S, ag_thread thread, bool spoiled) {
  S->in_use--;
  if (S->closed)
    return;
  if (--S->until_decay <= 0) { /* a peak that did not come again is forgotten */
    S->peak = S->new_peak;
    S->new_peak = S->in_use;
    S->until_decay = S->peak;
  }
  int enough = S->peak > AG_POOL_MIN ? S->peak : AG_POOL_MIN;
  if (spoiled || !S->recycle || !pool_room(S)) {
    ag_drop(L, S, thread.slot);
  } else {
    S->pool[S->pooled++] = thread;
    if (S->pooled + S->in_use > enough)
      forget_one(L, S);
  }
  if (S->pooled > 0 && S->pooled + S->in_use > enough)
    forget_one(L, S);
}

const char *ag_type_name(lua_State *L, int index) {
  if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING)
    return lua_tostring(L, -1);
  lua_pushstring(L, luaL_typename(L, index));
  return lua_tostring(L, -1);
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
