/* A program that uses the public headers, in what C11 and C++17 have in common: install_spec.lua compiles it as both.
 */
#include <agather_uv.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

typedef struct my_poller {
  ag_poller base;
  int waits;
} my_poller;

static void my_wait(ag_poller *poller, double timeout) {
  (void)timeout;
  ((my_poller *)(void *)poller)->waits++;
}

static void my_wake(ag_poller *poller) { (void)poller; }

static bool my_alive(ag_poller *poller) {
  (void)poller;
  return false;
}

static void my_close(ag_poller *poller) { (void)poller; }

static void detach(ag_wait *wait) { (void)wait; }

static int resumed(lua_State *L, int status, lua_KContext context) {
  (void)status;
  lua_pushinteger(L, (lua_Integer)context);
  return 1;
}

static ag_wait turn;

static int wait_for_turn(lua_State *L) {
  memset(&turn, 0, sizeof turn);
  turn.cancel = detach;
  return ag_suspend(L, &turn, 42, resumed);
}

int main(void) {
  lua_State *L = luaL_newstate();
  ag_loop *loop = NULL;
  luaL_openlibs(L);
  lua_register(L, "wait_for_turn", wait_for_turn);
  if (strcmp(ag_version(), AG_VERSION) != 0 || ag_open(L) != AG_OK || ag_loop_create(L, &loop) != AG_OK)
    return 1;
  my_poller poller;
  memset(&poller, 0, sizeof poller);
  poller.base.wait = my_wait;
  poller.base.wake = my_wake;
  poller.base.alive = my_alive;
  poller.base.close = my_close;
  ag_loop_set_poller(loop, &poller.base);
  if (luaL_loadstring(L, "print(wait_for_turn())") != LUA_OK || ag_spawn(L, loop, 0) != AG_OK)
    return 1;
  ag_status status = ag_step(L, loop);
  if (status != AG_IDLE || !ag_waiting(&turn) || ag_fd(loop) != -1 || ag_timeout(loop) >= 0)
    return 1;
  ag_wake(&turn);
  status = ag_step_for(L, loop, 0.1);
  printf("status %d, waited %s\n", (int)status, poller.waits > 0 ? "in the poller" : "elsewhere");
  uv_loop_t uv;
  uv_loop_init(&uv);
  ag_uv *bridge = ag_uv_attach(L, loop, &uv);
  ag_uv_update(bridge);
  uv_run(&uv, UV_RUN_DEFAULT);
  ag_uv_detach(bridge);
  uv_run(&uv, UV_RUN_DEFAULT);
  status = ag_loop_destroy(L, loop);
  lua_close(L);
  return status == AG_OK && uv_loop_close(&uv) == 0 ? 0 : 1;
}
