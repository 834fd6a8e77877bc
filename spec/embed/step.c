/* A host that steps a loop in every way, for step_spec.lua: prints what came of it. */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <unistd.h>

static ag_loop *loop;

static const char *name_of(ag_status status) {
  switch (status) {
  case AG_OK:
    return "ok";
  case AG_MORE:
    return "more";
  case AG_IDLE:
    return "idle";
  case AG_DONE:
    return "done";
  case AG_ERROR:
    return "error";
  case AG_REENTRANT:
    return "reentrant";
  case AG_CLOSED:
    return "closed";
  default:
    return "?";
  }
}

/* step([seconds]): what a step answers that is taken from inside a task. */
static int step_inside(lua_State *L) {
  bool timed = !lua_isnone(L, 1);
  lua_pushstring(L, name_of(timed ? ag_step_for(L, loop, luaL_checknumber(L, 1)) : ag_step(L, loop)));
  return 1;
}

static void spawn(lua_State *L, const char *code) {
  if (luaL_loadstring(L, code) != LUA_OK || ag_spawn(L, loop, 0) != AG_OK)
    printf("spawn: %s\n", lua_tostring(L, -1));
  lua_pop(L, 1);
}

static lua_Integer runs(lua_State *L) {
  lua_getglobal(L, "runs");
  lua_Integer n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return n;
}

/* Two failures that nobody hears of: the second is looked for a while after the first, as looking takes long here. */
static void fail_unheard(lua_State *L) {
  (void)luaL_dostring(L, "runs = 0");
  spawn(L, "ballast = {} for i = 1, 2e5 do ballast[i] = {} end agather.spawn(error, 'lost') "
           "agather.get_running_loop():set_exception_handler(function() runs = runs + 1 end)");
  while (runs(L) < 1)
    ag_step(L, loop);
  spawn(L, "agather.spawn(error, 'lost')");
  int steps = 0;
  double most = 0;
  for (; runs(L) < 2; steps++) {
    ag_step(L, loop);
    double timeout = ag_timeout(loop);
    if (timeout > most)
      most = timeout;
    if (runs(L) < 2)
      usleep((useconds_t)(timeout * 1e6) + 1);
  }
  printf("a failure: %s\n", steps < 20 && most > 0 ? "the host slept" : "the host was kept busy");
}

int main(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_register(L, "step", step_inside);
  if (ag_open(L) != AG_OK || ag_loop_create(L, &loop) != AG_OK)
    return 1;
  lua_setglobal(L, "agather");
  (void)luaL_dostring(L, "runs = 0");
  printf("nothing: %s\n", name_of(ag_step_for(L, loop, 1)));
  for (int i = 0; i < 3; i++)
    spawn(L, "runs = runs + 1");
  for (int i = 0; i < 3; i++) {
    ag_status status = ag_step_for(L, loop, 0);
    printf("no time: %s, %d ran, timeout %g\n", name_of(status), (int)runs(L), ag_timeout(loop));
  }
  spawn(L, "for i = 1, 100 do agather.sleep(0) runs = runs + 1 end");
  ag_status status = ag_step_for(L, loop, 10);
  printf("much time: %s, %d ran\n", name_of(status), (int)runs(L));
  spawn(L, "for i = 1, 100 do agather.sleep(0) end");
  status = ag_step(L, loop);
  printf("a step: %s\n", name_of(status));
  spawn(L, "agather.sleep(3600)");
  status = ag_step_for(L, loop, 10);
  printf("a sleeper: %s\n", name_of(status));
  fail_unheard(L);
  spawn(L, "print('inside: ' .. step(0) .. ' ' .. step())");
  ag_step_for(L, loop, 10);
  printf("top %d\n", lua_gettop(L));
  printf("destroy: %s\n", name_of(ag_loop_destroy(L, loop)));
  lua_gc(L, LUA_GCCOLLECT);
  printf("destroyed: %s %s %s, timeout %g, fd %d\n", name_of(ag_loop_destroy(L, loop)), name_of(ag_step(L, loop)),
         name_of(ag_step_for(L, loop, 1)), ag_timeout(loop), ag_fd(loop));
  lua_close(L);
  return 0;
}
