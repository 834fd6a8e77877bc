/* A host that runs a script as a task, waiting with poll for nothing but what ag_timeout and ag_fd say, for specs. */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>

int main(int argc, char **argv) {
  ag_loop *loop;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (argc < 2 || ag_open(L) != AG_OK || ag_loop_create(L, &loop) != AG_OK || luaL_loadfile(L, argv[1]) != LUA_OK ||
      ag_spawn(L, loop, 0) != AG_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    return 1;
  }
  int steps = 0;
  for (ag_status status = AG_MORE; status != AG_DONE; steps++) {
    status = ag_step(L, loop);
    if (status < 0)
      return 1;
    double timeout = ag_timeout(loop);
    struct pollfd wait = {ag_fd(loop), POLLIN, 0};
    if (status != AG_DONE)
      poll(&wait, 1, timeout < 0 ? -1 : (int)ceil(timeout * 1000));
  }
  ag_loop_destroy(L, loop);
  lua_close(L);
  return steps < 1000 ? 0 : 1; /* it waits, and does not only look */
}
