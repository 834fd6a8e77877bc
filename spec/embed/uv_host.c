/* A host with a libuv loop, for uv_host_spec.lua: prints what came of attaching a loop to it. */
#include <agather_uv.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

static ag_loop *loop;
static lua_State *L;
static uv_loop_t uv;

static void spawn(const char *code) {
  if (luaL_loadstring(L, code) != LUA_OK || ag_spawn(L, loop, 0) != AG_OK)
    printf("spawn: %s\n", lua_tostring(L, -1));
  lua_pop(L, 1);
}

static void spawn_later(uv_timer_t *timer) {
  spawn("agather.sleep(0.005) print('spawned from a callback of the host')");
  uv_close((uv_handle_t *)timer, NULL);
}

static ag_uv *bridge;

typedef struct counts {
  int all, known; /* known: their data is what ag_uv_attach returned */
} counts;

static void count_one(uv_handle_t *handle, void *data) {
  counts *c = (counts *)data;
  c->all++;
  c->known += handle->data == bridge;
}

static counts handles(void) {
  counts c = {0, 0};
  uv_walk(&uv, count_one, &c);
  return c;
}

/* all_known(): whether all handles in the host's loop can be told to be agather's. */
static int all_known(lua_State *state) {
  counts c = handles();
  lua_pushboolean(state, c.all > 0 && c.all <= 6 && c.all == c.known);
  return 1;
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  uv_loop_init(&uv);
  L = luaL_newstate();
  luaL_openlibs(L);
  if (ag_open(L) != AG_OK)
    return 1;
  lua_setglobal(L, "agather");
  lua_register(L, "all_known", all_known);
  if (ag_loop_create(L, &loop) != AG_OK)
    return 1;
  bridge = ag_uv_attach(L, loop, &uv);
  printf("an idle loop: %d\n", uv_run(&uv, UV_RUN_DEFAULT));

  spawn("for i = 1, 3 do agather.sleep(0.005) end print('spawned while idle')");
  ag_uv_update(bridge);
  uv_run(&uv, UV_RUN_DEFAULT);

  uv_timer_t timer;
  uv_timer_init(&uv, &timer);
  uv_timer_start(&timer, spawn_later, 5, 0);
  uv_run(&uv, UV_RUN_DEFAULT);

  spawn("agather.sleep(0.01) print('without waiting')");
  ag_uv_update(bridge);
  int turns = 0;
  while (uv_run(&uv, UV_RUN_NOWAIT) != 0)
    turns++;
  printf("%s\n", turns > 1 ? "turns without waiting" : "it waited");

  /* The first use of agather.net brings a poller with another descriptor. */
  spawn("local net = require 'agather.net' "
        "local listener = net.listen('127.0.0.1', 0) "
        "local _, port = listener:local_address() "
        "agather.spawn(function() local s = listener:accept() s:write(s:read('l'), '!\\n') s:close() end) "
        "local s = net.connect('127.0.0.1', port) "
        "s:write('echo\\n') "
        "print('net: ' .. s:read('l')) "
        "print('known: ' .. tostring(all_known())) "
        "s:close() listener:close()");
  ag_uv_update(bridge);
  uv_run(&uv, UV_RUN_DEFAULT);

  spawn("agather.sleep(3600)");
  ag_uv_update(bridge);
  uv_run(&uv, UV_RUN_NOWAIT);
  printf("a sleeper keeps it alive: %s\n", uv_loop_alive(&uv) ? "yes" : "no");
  ag_uv_detach(bridge);
  uv_run(&uv, UV_RUN_DEFAULT);
  printf("detached: %d handles\n", handles().all);

  bridge = ag_uv_attach(L, loop, &uv);
  spawn("closed = agather.get_running_loop() agather.sleep(3600)");
  ag_uv_update(bridge);
  uv_run(&uv, UV_RUN_NOWAIT);
  ag_loop_destroy(L, loop);
  (void)luaL_dostring(L, "closed = nil collectgarbage()");
  printf("a loop that was closed: %d\n", uv_run(&uv, UV_RUN_DEFAULT));
  ag_uv_detach(bridge);
  uv_run(&uv, UV_RUN_DEFAULT);
  lua_close(L);
  printf("closing: %d\n", uv_loop_close(&uv));
  return 0;
}
