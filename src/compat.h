/* What differs between the releases of Lua that this builds with: 5.4.4 and later, 5.5. What hosts need too is in
** agather.h: ag_newstate. */
#ifndef AG_COMPAT_H
#define AG_COMPAT_H

#include <lua.h>

#if defined(LUA_VERSION_RELEASE_NUM) && LUA_VERSION_RELEASE_NUM < 50404
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

#endif
