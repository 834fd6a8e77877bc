/* A host that takes its steps from its arguments, for limits_spec.lua:
**   memory=BYTES reserve=BYTES   the cap; before everything else
**   from=BYTES   the memory comes from another allocator, which has no larger blocks than this; before everything else
**   instructions= seconds= signal= grace= tasks= timers= callbacks= items= handles= string= chunk= elements=
**                each sets a field
**   limit        ag_set_limits with the fields so far        unlimit   ag_set_limits(NULL)
**   restrict     ag_restrict(NULL)                            restrict=a,b,c
**   do=CODE      runs Lua code outside of tasks
**   spawn=CODE   a task of it
**   run=SECONDS  steps the loop until it has nothing to do, for so long at most
**   end          ag_loop_destroy, then another loop
**   used         prints how much memory is used, after a collection, and how often some was refused */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct host {
  ag_memory memory;
  ag_limits limits;
  lua_State *L;
  ag_loop *loop;
} host;

static double now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Reports a status that is no success. */
static void expect_ok(host *h, ag_status status, const char *what) {
  if (status == AG_OK)
    return;
  printf("%s: %s\n", what, status == AG_ERROR ? luaL_tolstring(h->L, -1, NULL) : "status");
  if (status != AG_ERROR)
    printf("%d\n", status);
  lua_settop(h->L, 0);
}

static void open_state(host *h) {
  h->L = ag_newstate(ag_alloc, &h->memory);
  if (h->L == NULL) {
    printf("no state\n");
    exit(1);
  }
  luaL_openlibs(h->L);
  expect_ok(h, ag_open(h->L), "ag_open");
  expect_ok(h, ag_loop_create(h->L, &h->loop), "ag_loop_create");
  lua_settop(h->L, 0);
  if (luaL_dostring(h->L, "agather = require 'agather'") != LUA_OK)
    expect_ok(h, AG_ERROR, "require");
}

static void run(host *h, double seconds) {
  double end = now() + seconds;
  for (ag_status status = AG_MORE; now() < end;) {
    status = ag_step(h->L, h->loop);
    if (status == AG_DONE)
      return;
    if (status < 0) {
      expect_ok(h, status, "ag_step");
      if (status != AG_ERROR)
        return;
    }
    double timeout = ag_timeout(h->loop);
    if (timeout < 0 || timeout > end - now())
      timeout = fmax(0, end - now());
    struct pollfd wait = {ag_fd(h->loop), POLLIN, 0};
    if (status == AG_IDLE)
      poll(&wait, 1, (int)ceil(timeout * 1000));
  }
}

static void restrict_to(host *h, char *names) {
  const char *allow[64];
  int n = 0;
  for (char *name = strtok(names, ","); name != NULL && n < 63; name = strtok(NULL, ","))
    allow[n++] = name;
  allow[n] = NULL;
  expect_ok(h, ag_restrict(h->L, allow), "ag_restrict");
}

/* The host's own allocator: its largest block is at [data]. */
static void *allocate(void *data, void *block, size_t old, size_t size) {
  (void)old;
  if (size > *(size_t *)data)
    return NULL;
  if (size > 0)
    return realloc(block, size);
  free(block);
  return NULL;
}

/* A field of the limits, or false. */
static bool set_field(host *h, const char *name, const char *value) {
  static const struct {
    const char *name;
    size_t offset;
  } fields[] = {{"tasks", offsetof(ag_limits, tasks)},         {"timers", offsetof(ag_limits, timers)},
                {"callbacks", offsetof(ag_limits, callbacks)}, {"items", offsetof(ag_limits, items)},
                {"handles", offsetof(ag_limits, handles)},     {"string", offsetof(ag_limits, string)},
                {"chunk", offsetof(ag_limits, chunk)},         {"elements", offsetof(ag_limits, elements)}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (strcmp(name, fields[i].name) == 0) {
      *(size_t *)((char *)&h->limits + fields[i].offset) = (size_t)atof(value);
      return true;
    }
  if (strcmp(name, "instructions") == 0)
    h->limits.instructions = (unsigned long long)atof(value);
  else if (strcmp(name, "seconds") == 0)
    h->limits.seconds = atof(value);
  else if (strcmp(name, "grace") == 0)
    h->limits.grace = atof(value);
  else if (strcmp(name, "signal") == 0)
    h->limits.signal = SIGRTMIN + atoi(value);
  else if (strcmp(name, "memory") == 0)
    h->memory.limit = (size_t)atof(value);
  else if (strcmp(name, "reserve") == 0)
    h->memory.reserve = (size_t)atof(value);
  else if (strcmp(name, "from") == 0) {
    static size_t largest;
    largest = (size_t)atof(value);
    h->memory.from = allocate;
    h->memory.data = &largest;
  } else
    return false;
  return true;
}

static void take_step(host *h, char *name, char *value) {
  if (set_field(h, name, value))
    return;
  if (h->L == NULL)
    open_state(h);
  lua_State *L = h->L;
  if (strcmp(name, "limit") == 0) {
    expect_ok(h, ag_set_limits(L, &h->limits), "ag_set_limits");
  } else if (strcmp(name, "unlimit") == 0) {
    expect_ok(h, ag_set_limits(L, NULL), "ag_set_limits");
  } else if (strcmp(name, "restrict") == 0) {
    if (*value != '\0')
      restrict_to(h, value);
    else
      expect_ok(h, ag_restrict(L, NULL), "ag_restrict");
  } else if (strcmp(name, "do") == 0) {
    if (luaL_dostring(L, value) != LUA_OK)
      expect_ok(h, AG_ERROR, "do");
  } else if (strcmp(name, "spawn") == 0) {
    if (luaL_loadbufferx(L, value, strlen(value), "=script", "t") != LUA_OK)
      expect_ok(h, AG_ERROR, "load");
    else
      expect_ok(h, ag_spawn(L, h->loop, 0), "ag_spawn");
  } else if (strcmp(name, "run") == 0) {
    run(h, atof(value));
  } else if (strcmp(name, "end") == 0) {
    expect_ok(h, ag_loop_destroy(L, h->loop), "ag_loop_destroy");
    expect_ok(h, ag_loop_create(L, &h->loop), "ag_loop_create");
  } else if (strcmp(name, "used") == 0) {
    lua_gc(L, LUA_GCCOLLECT, 0);
    printf("used %zu peak %zu refused %zu\n", h->memory.used, h->memory.peak, h->memory.refused);
  } else {
    printf("unknown step %s\n", name);
    exit(2);
  }
  lua_settop(L, 0);
}

int main(int argc, char **argv) {
  host h = {0};
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 1; i < argc; i++) {
    char *equals = strchr(argv[i], '=');
    if (equals != NULL)
      *equals = '\0';
    take_step(&h, argv[i], equals != NULL ? equals + 1 : "");
  }
  if (h.L != NULL) {
    ag_loop_destroy(h.L, h.loop);
    lua_close(h.L);
    if (h.memory.used != 0)
      printf("%zu bytes are left\n", h.memory.used);
  }
  return 0;
}
