/* Memory that fails while a script uses the library, in a state of its own.
**   torture memory SCRIPT [STEP [MODULE]...]
**     for every n, or every STEP-th: all allocations from the n-th on fail (single failures are masked by Lua, which
**     collects and tries again)
**   torture collect SCRIPT [STEP [MODULE]...]
**     every allocation fails at the first attempt, so that Lua collects at each: what is not anchored is gone
** The modules are loaded before memory fails. After each run the loop must run other tasks, and the state must close.
** Prints the number of runs. */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct memory {
  long count;   /* allocations so far */
  long fail_at; /* those from here on fail; 0: none */
  bool collect; /* each fails once */
  bool failed;  /* the last one did */
} memory;

static void *allocate(void *data, void *block, size_t old, size_t size) {
  memory *m = data;
  if (size == 0) {
    free(block);
    return NULL;
  }
  if (block == NULL || size > old) {
    m->count++;
    if (m->fail_at > 0 && m->count >= m->fail_at)
      return NULL;
    m->failed = m->collect && !m->failed;
    if (m->failed)
      return NULL;
  }
  return realloc(block, size);
}

static void must(lua_State *L, int status, const char *what, long at) {
  if (status == LUA_OK)
    return;
  printf("%s, memory failing from allocation %ld on: %s\n", what, at, luaL_tolstring(L, -1, NULL));
  exit(1);
}

static const char *const prepare =
    "agather = require 'agather' "
    "for _, name in ipairs{'timeout', 'wait', 'TaskGroup', 'map', 'Barrier', 'from_callback'} do "
    "assert(agather[name]) end";

static const char *const afterwards =
    "collectgarbage() local n = 0 "
    "agather.run(function() for i = 1, 3 do agather.spawn(function() agather.sleep(0) n = n + 1 end) end "
    "agather.sleep(0.001) end) assert(n == 3)";

/* Runs the script once, with the modules loaded; returns how many allocations it made. */
static long run(const char *script, char **modules, long fail_at, bool collect) {
  memory m = {0, 0, false, false};
  lua_State *L = ag_newstate(allocate, &m);
  luaL_openlibs(L);
  must(L, luaL_dostring(L, prepare), "preparing", 0);
  for (; *modules != NULL; modules++) {
    lua_getglobal(L, "require");
    lua_pushstring(L, *modules);
    must(L, lua_pcall(L, 1, 0, 0), "preparing", 0);
  }
  must(L, luaL_loadfile(L, script), "loading", 0);
  m.count = 0;
  m.fail_at = fail_at;
  m.collect = collect;
  int status = lua_pcall(L, 0, 0, 0);
  long count = m.count;
  m.fail_at = 0;
  if (fail_at == 0)
    must(L, status, "running the script", 0);
  lua_settop(L, 0);
  must(L, luaL_dostring(L, afterwards), "running other tasks afterwards", fail_at);
  m.collect = false;
  lua_close(L);
  return count;
}

int main(int argc, char **argv) {
  if (argc < 3 || (strcmp(argv[1], "memory") != 0 && strcmp(argv[1], "collect") != 0)) {
    fprintf(stderr, "usage: torture memory|collect SCRIPT [STEP [MODULE]...]\n");
    return 2;
  }
  char **modules = argc > 4 ? argv + 4 : argv + argc;
  if (strcmp(argv[1], "collect") == 0) {
    run(argv[2], modules, 0, true);
    printf("1 run\n");
    return 0;
  }
  long count = run(argv[2], modules, 0, false), step = argc > 3 ? strtol(argv[3], NULL, 10) : 1, runs = 0;
  for (long n = 1; n <= count + 1; n += step > 0 ? step : 1, runs++)
    run(argv[2], modules, n, false);
  printf("%ld runs\n", runs);
  return 0;
}
