/* A host that owns a libuv loop. It shares it with agather, whose tasks run inside uv_run, and with Lua's luv module,
** so that scripts can mix the two: what calls back becomes what can be awaited.
** Build: cc luv.c $(pkg-config --cflags --libs agather lua5.4-luv lua5.4 libuv); run: ./luv */
#include <agather_uv.h>
#include <lauxlib.h>
#include <lualib.h>
#include <luv/luv.h>
#include <stdio.h>

static const char script[] = "local agather = require 'agather' "
                             "local uv = require 'luv' "
                             "local function uv_sleep(ms) "
                             "  return agather.from_callback(function(done) "
                             "    local timer = uv.new_timer() "
                             "    timer:start(ms, 0, function() timer:close() done(ms .. ' ms of luv') end) "
                             "  end) "
                             "end "
                             "local results = agather.await(agather.gather(uv_sleep(20), function() "
                             "  agather.sleep(0.01) "
                             "  return '10 ms of agather' "
                             "end)) "
                             "print(table.concat(results, ', '))";

/* Something else that the host's loop does. */
static void tick(uv_timer_t *timer) {
  printf("tick of the host\n");
  uv_close((uv_handle_t *)timer, NULL);
}

int main(void) {
  uv_loop_t uv;
  uv_timer_t timer;
  uv_loop_init(&uv);
  uv_timer_init(&uv, &timer);
  uv_timer_start(&timer, tick, 5, 0);

  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luv_set_loop(L, &uv); /* before luv opens, or it makes a loop of its own */
  luaL_requiref(L, "luv", luaopen_luv, 0);
  lua_pushnil(L);
  lua_setfield(L, -2, "walk"); /* luv 1.44 crashes where it meets handles of the host */
  lua_pop(L, 1);

  ag_loop *loop = NULL;
  ag_uv *bridge = NULL;
  if (ag_open(L) == AG_OK && ag_loop_create(L, &loop) == AG_OK)
    bridge = ag_uv_attach(L, loop, &uv);
  if (bridge == NULL || luaL_loadstring(L, script) != LUA_OK || ag_spawn(L, loop, 0) != AG_OK) {
    fprintf(stderr, "cannot start\n");
    return 1;
  }
  uv_run(&uv, UV_RUN_DEFAULT); /* until neither the host nor a script has anything left to do */

  ag_uv_detach(bridge);
  ag_loop_destroy(L, loop);
  lua_close(L);                /* closes what scripts left open in luv */
  uv_run(&uv, UV_RUN_DEFAULT); /* lets the handles that are closing end */
  return uv_loop_close(&uv) == 0 ? 0 : 1;
}
