/* Which lines of Lua run: a module that LUA_INIT loads into each process of the specs (see .ci/coverage). A hook of C
** is inherited by every thread that is made later, which debug.sethook's is not. When the state closes, "file:line"
** for each line of lua/agather goes into a file of its own in the directory AGATHER_COVERAGE. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char lines; /* the registry's key of the table source -> line -> true */

static void on_line(lua_State *L, lua_Debug *ar) {
  lua_getinfo(L, "Sl", ar);
  if (strstr(ar->source, "lua/agather/") == NULL)
    return;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &lines);
  if (lua_getfield(L, -1, ar->source) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, ar->source);
  }
  lua_pushboolean(L, 1);
  lua_rawseti(L, -2, ar->currentline);
  lua_pop(L, 2);
}

/* __gc of the table. */
static int write_lines(lua_State *L) {
  char name[4096];
  snprintf(name, sizeof name, "%s/%ld-%p-%ld", getenv("AGATHER_COVERAGE"), (long)getpid(), (void *)L, (long)clock());
  FILE *file = fopen(name, "w");
  if (file == NULL)
    return luaL_fileresult(L, 0, name);
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1))
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
      fprintf(file, "%s:%d\n", strstr(lua_tostring(L, -4), "lua/agather/"), (int)lua_tointeger(L, -2));
  fclose(file);
  return 0;
}

int luaopen_coverage(lua_State *L) {
  if (getenv("AGATHER_COVERAGE") == NULL)
    return 0;
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, write_lines);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &lines);
  lua_sethook(L, on_line, LUA_MASKLINE, 0);
  return 0;
}
