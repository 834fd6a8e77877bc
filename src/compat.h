/* What differs between the releases of Lua that this builds with: 5.4.4 and later, 5.5. Nothing else knows. */
#ifndef AG_COMPAT_H
#define AG_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

#if !defined(LUA_VERSION_RELEASE_NUM) || LUA_VERSION_RELEASE_NUM < 50404
#error "agather needs Lua 5.4.4 or later"
#endif

/* lua_closethread, 5.4.6: closes the pending <close> variables of [thread], from [L]. */
static inline int ag_close_thread(lua_State *thread, lua_State *L) {
#if LUA_VERSION_RELEASE_NUM >= 50406
  return lua_closethread(thread, L);
#elif LUA_VERSION_RELEASE_NUM == 50405
  return lua_resetthread(thread, L);
#else
  (void)L;
  return lua_resetthread(thread);
#endif
}

/* lua_newstate; in 5.5 it also takes a seed for the hashes of strings. */
static inline lua_State *ag_new_state(lua_Alloc allocate, void *context) {
#if LUA_VERSION_NUM >= 505
  return lua_newstate(allocate, context, luaL_makeseed(NULL));
#else
  return lua_newstate(allocate, context);
#endif
}

#endif
