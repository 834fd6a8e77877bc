/* A host with a poll loop of its own: agather's tasks run beside what else the program waits for, here its standard
** input.
** Build: cc poll.c $(pkg-config --cflags --libs agather lua5.4) -lm; run: ./poll < file */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static const char script[] = "local agather = require 'agather.core' "
                             "for i = 1, 3 do agather.sleep(0.01) print('task', i) end";

int main(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  ag_loop *loop;
  if (ag_open(L) != AG_OK || ag_loop_create(L, &loop) != AG_OK || luaL_loadstring(L, script) != LUA_OK ||
      ag_spawn(L, loop, 0) != AG_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    return 1;
  }
  ag_status status = AG_MORE;
  for (struct pollfd wait[2] = {{0, POLLIN, 0}, {0, POLLIN, 0}}; status != AG_DONE || wait[0].fd >= 0;) {
    double timeout = ag_timeout(loop); /* seconds, or negative: no deadline */
    wait[1].fd = ag_fd(loop);
    if (poll(wait, 2, timeout < 0 ? -1 : (int)ceil(timeout * 1000)) > 0 && wait[0].revents != 0) {
      char buffer[256];
      ssize_t n = read(0, buffer, sizeof buffer);
      if (n > 0)
        printf("input of %zd bytes\n", n);
      if (n <= 0)
        wait[0].fd = -1; /* its end: from now on poll ignores it */
    }
    status = ag_step(L, loop);
    if (status < 0)
      return 1;
  }
  ag_loop_destroy(L, loop);
  lua_close(L);
  return 0;
}
