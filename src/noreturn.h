/* Tells compilers and analyzers which functions raise, and so never return. Lua's headers do not. */
#ifndef AG_NORETURN_H
#define AG_NORETURN_H

#include <lauxlib.h>
#include <lua.h>

#if defined(__GNUC__)
extern int lua_error(lua_State *L) __attribute__((noreturn));
extern int luaL_error(lua_State *L, const char *format, ...) __attribute__((noreturn));
extern int luaL_argerror(lua_State *L, int arg, const char *message) __attribute__((noreturn));
extern int luaL_typeerror(lua_State *L, int arg, const char *name) __attribute__((noreturn));
#endif

#endif
