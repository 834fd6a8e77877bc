/* The smallest host: it opens agather in its Lua state and runs a script, which brings its own main task.
** Build: cc smallest.c $(pkg-config --cflags --libs agather lua5.4); run: ./smallest */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

static const char script[] = "local agather = require 'agather.core' "
                             "local function cook(dish, seconds) "
                             "  agather.sleep(seconds) "
                             "  return dish "
                             "end "
                             "agather.run(function() "
                             "  local menu = agather.await(agather.gather( "
                             "    function() return cook('soup', 0.02) end, "
                             "    function() return cook('salad', 0.01) end)) "
                             "  print(table.concat(menu, ' and ')) "
                             "end)";

int main(void) {
  lua_State *L = luaL_newstate();
  if (L == NULL)
    return 1;
  luaL_openlibs(L);
  int status = ag_open(L) == AG_OK && luaL_dostring(L, script) == LUA_OK ? 0 : 1;
  if (status != 0)
    fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  lua_close(L);
  return status;
}
