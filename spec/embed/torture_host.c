/* Memory that fails while a host uses the library: for every n, all allocations from the n-th on fail while it opens,
** makes a loop, sets limits and restricts where it was asked to, runs a script as a task, and destroys the loop.
**   torture_host plain|restricted SCRIPT STEP    only every STEP-th n
** Each n is tried twice: with memory back before the loop is destroyed, which must run another task first, and with
** memory back only after that, when another loop must run one; nothing may be left when the state is closed. Ends with
** the first n that nothing has failed at; prints the number of runs. */
#include <agather.h>
#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../torture/faults.h"
#include "../torture/memory.h"

static void fail(lua_State *L, const char *what, long at) {
  printf("%s, memory failing from allocation %ld on: %s\n", what, at,
         lua_gettop(L) > 0 ? luaL_tolstring(L, -1, NULL) : "no error");
  exit(1);
}

/* Steps until nothing is left, or only what waits for an hour, or for ever, or no memory even for a step. */
static void step(lua_State *L, ag_loop *loop) {
  for (int errors = 0; errors < 20;) {
    ag_status status = ag_step(L, loop);
    errors = status == AG_ERROR ? errors + 1 : 0;
    if (status == AG_ERROR)
      lua_settop(L, 0);
    else if (status < 0)
      fail(L, "a step", status);
    double timeout = ag_timeout(loop);
    if (status == AG_DONE || timeout < 0 || timeout > 100)
      return;
    struct timespec ts = {0, (long)(timeout * 1e9)};
    if (timeout > 0)
      nanosleep(&ts, NULL);
  }
}

/* Protected, for luaL_loadfile raises where there is no memory for the name. */
static int load(lua_State *L) {
  if (luaL_loadfile(L, lua_touserdata(L, 1)) != LUA_OK)
    return lua_error(L);
  lua_pushnumber(L, 2e-5);
  return 2;
}

static bool attempt(lua_State *L, ag_loop **loop, const char *script, bool restricted) {
  static const ag_limits limits = {.instructions = 100000000, .seconds = 10, .tasks = 1000, .callbacks = 1000};
  if (ag_open(L) != AG_OK || ag_loop_create(L, loop) != AG_OK)
    return false;
  if (restricted && (ag_set_limits(L, &limits) != AG_OK || ag_restrict(L, NULL) != AG_OK))
    return false;
  lua_pushcfunction(L, load);
  lua_pushlightuserdata(L, (void *)script);
  if (lua_pcall(L, 1, 2, 0) != LUA_OK)
    return false;
  if (ag_spawn(L, *loop, 1) != AG_OK)
    return false;
  lua_settop(L, 0);
  step(L, *loop);
  return true;
}

static void run_another(lua_State *L, ag_loop *loop, long at) {
  lua_settop(L, 0);
  lua_gc(L, LUA_GCCOLLECT, 0);
  if (luaL_loadstring(L, "local agather = require 'agather' local n = agather.await(agather.gather("
                         "agather.spawn(agather.sleep, 1e-5, 20), function() agather.sleep(0) return 22 end)) "
                         "worked = n[1] + n[2] == 42") != LUA_OK ||
      ag_spawn(L, loop, 0) != AG_OK)
    fail(L, "another task", at);
  step(L, loop);
  lua_getglobal(L, "worked");
  if (!lua_toboolean(L, -1)) {
    lua_getfield(L, 1, "exception");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    fail(L, "another task's result", at);
  }
  lua_settop(L, 0);
}

static long lost; /* runs in which Lua had no memory to call a finalizer */

/* Returns whether no allocation has failed. */
static bool run(const char *script, bool restricted, long fail_at, bool until_the_end) {
  memory m = {0};
  char what[100];
  snprintf(what, sizeof what, "memory failing from allocation %ld on", fail_at);
  faults_mark();
  lua_State *L = memory_state(&m);
  luaL_openlibs(L);
  memory_arm(&m, fail_at, false);
  ag_loop *loop = NULL;
  bool ran = attempt(L, &loop, script, restricted);
  if (loop != NULL && until_the_end && ag_loop_destroy(L, loop) != AG_OK)
    fail(L, "destroying the loop", fail_at);
  bool whole = m.count < fail_at;
  if (whole && !ran)
    fail(L, "with all memory", fail_at);
  m.armed = false;
  if (until_the_end || loop == NULL) {
    lua_settop(L, 0);
    if (ag_open(L) != AG_OK || ag_loop_create(L, &loop) != AG_OK)
      fail(L, "opening afterwards", fail_at);
  }
  run_another(L, loop, fail_at);
  if (ag_loop_destroy(L, loop) != AG_OK || ag_loop_destroy(L, loop) != AG_CLOSED)
    fail(L, "destroying the loop afterwards", fail_at);
  lua_close(L);
  if (!m.lost && (m.blocks != 0 || faults_left(FAULTS_AGATHER | FAULTS_LIBUV, what) > 0)) {
    printf("%s: %ld blocks of Lua's, or others, are left\n", what, m.blocks);
    exit(1);
  }
  lost += m.lost;
  return whole;
}

int main(int argc, char **argv) {
  if (argc != 4 || (strcmp(argv[1], "plain") != 0 && strcmp(argv[1], "restricted") != 0)) {
    fprintf(stderr, "usage: torture_host plain|restricted SCRIPT STEP\n");
    return 2;
  }
  static char buffer[BUFSIZ]; /* stdio must not ask for one while blocks are listed */
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  bool restricted = strcmp(argv[1], "restricted") == 0;
  if (freopen("/dev/null", "w", stderr) == NULL) /* where the loop reports what has failed */
    return 2;
  faults_look();
  run(argv[2], restricted, LONG_MAX, true); /* what libraries make once and keep */
  long runs = 1, by = atol(argv[3]);
  for (long n = 1; !run(argv[2], restricted, n, true); n += by, runs += 2)
    run(argv[2], restricted, n, false);
  printf("%ld runs, %ld of them lost a finalizer\n", runs, lost);
  return 0;
}
