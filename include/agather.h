/* agather.h: asyncio's tasks and gather for Lua 5.4, as a C library.
**
** Everything hangs off the Lua state: two states in two threads never meet. */
#ifndef AGATHER_H
#define AGATHER_H

#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AG_VERSION "0.1.0"

#if defined(__GNUC__)
#define AG_API __attribute__((visibility("default")))
#else
#define AG_API
#endif

/* The version of the library that was loaded, such as "0.1.0". Any thread. */
AG_API const char *ag_version(void);

/* Pushes the module table of agather.core; a lua_CFunction for luaL_requiref and `require`. [-0, +1, m] */
AG_API int luaopen_agather_core(lua_State *L);

#ifdef __cplusplus
}
#endif
#endif
