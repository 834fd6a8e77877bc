/* A host that runs scripts that others wrote, within limits: each has a state, so that what one leaves behind is gone
** with it. Build: cc restricted.c $(pkg-config --cflags --libs agather lua5.4) -lm; run: ./restricted script.lua ...
** Without arguments it runs scripts that do what scripts should not, each followed by a harmless one. */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

static const ag_limits limits = {
    .instructions = 20000000,
    .seconds = 0.5,
    .tasks = 1000,
    .timers = 1000,
    .callbacks = 1000,
    .items = 10000,
    .handles = 16,
};

static const char *const runaways[][2] = {
    {"a memory bomb", "local all = {} while true do all[#all + 1] = ('x'):rep(1000) .. #all end"},
    {"a memory bomb that catches the error", "local all = {} while true do pcall(table.insert, all, {}) end"},
    {"a string.rep bomb", "return ('x'):rep(1e9)"},
    {"an endless loop", "while true do end"},
    {"an endless loop inside pcall", "while true do pcall(function() while true do end end) end"},
    {"an endless loop in coroutines",
     "local function f() coroutine.wrap(function() while true do pcall(f) end end)() end f()"},
    {"coroutines without end", "while true do coroutine.wrap(function() for i = 1, 100 do end end)() end"},
    {"an endless loop in <close>",
     "local x <close> = setmetatable({}, {__close = function() while true do end end}) error('leave')"},
    {"an endless loop in a comparator",
     "local t = {3, 1, 2} while true do pcall(table.sort, t, function() while true do end end) end"},
    {"an endless loop in a message handler", "local function f() while true do end end while true do xpcall(f, f) end"},
    {"an endless loop in a finalizer",
     "setmetatable({}, {__gc = function() while true do end end}) while true do local t = {} end"},
    {"an endless loop in a callback", "local done = agather.future() "
                                      "agather.get_running_loop():call_soon(function() pcall(done.set_result, done) "
                                      "while true do end end) done:await()"},
    {"a loop in C", "table.move({}, 1, 1 << 60, 2)"},
    {"a million tasks", "for i = 1, 1e6 do agather.spawn(agather.sleep, 1e6) end"},
    {"a million callbacks", "for i = 1, 1e6 do agather.get_running_loop():call_soon(function() end) end"},
    {"a queue without end", "local q = agather.Queue() while true do q:put(1) end"},
    {"an error whose text is an error", "error(setmetatable({}, {__tostring = function() error('no text') end}))"},
    {"an error whose text has no end", "error(setmetatable({}, {__tostring = function() while true do end end}))"},
    {"a look around", "return io.popen, os.execute, require('debug')"},
};

static const char harmless[] = "local n = agather.gather(function() agather.sleep(0.001) return 20 end, "
                               "function() return 22 end):await() assert(n[1] + n[2] == 42)";

/* 1 name, 2 task: prints what became of it, unless it still runs. Returns whether it is done. */
static int tell(lua_State *L) {
  lua_getfield(L, 2, "done");
  lua_pushvalue(L, 2);
  lua_call(L, 1, 1);
  if (!lua_toboolean(L, -1))
    return 1;
  lua_getfield(L, 2, "exception");
  lua_pushvalue(L, 2);
  lua_call(L, 1, 1); /* an error object, or nil */
  printf("%s: %s\n", lua_tostring(L, 1), lua_isnil(L, -1) ? "done" : luaL_tolstring(L, -1, NULL));
  lua_pushboolean(L, 1);
  return 1;
}

/* Runs the chunk on top as a task on a loop of its own, until it is done; what it leaves there ends with the loop.
** [-1, +0] */
static void run(lua_State *L, const char *name) {
  bool done = false;
  ag_loop *loop;
  ag_status status = ag_loop_create(L, &loop);
  if (status == AG_OK)
    status = ag_spawn(L, loop, 0);
  while (status >= 0 && !done) {
    status = ag_step(L, loop);
    if (status < 0)
      break;
    lua_pushcfunction(L, tell);
    lua_pushstring(L, name);
    lua_pushvalue(L, -3);
    if (lua_pcall(L, 2, 1, 0) != LUA_OK)
      break;
    done = lua_toboolean(L, -1);
    lua_pop(L, 1);
    double timeout = ag_timeout(loop);
    struct pollfd wait = {ag_fd(loop), POLLIN, 0};
    if (!done && status == AG_IDLE)
      poll(&wait, 1, timeout < 0 ? -1 : (int)ceil(timeout * 1000));
  }
  if (!done)
    printf("%s: %s\n", name, lua_tostring(L, -1));
  if (loop != NULL)
    ag_loop_destroy(L, loop);
  lua_settop(L, 0);
}

/* One state, from its making to its end. [file]: a script's path, or NULL: the text [script]. */
static int tenant(const char *file, const char *name, const char *script) {
  ag_memory memory = {.limit = 16 << 20, .reserve = 256 << 10};
  lua_State *L = ag_newstate(ag_alloc, &memory);
  if (L == NULL)
    return 1;
  luaL_openlibs(L); /* for the library itself: scripts get what ag_restrict leaves */
  if (ag_open(L) != AG_OK || ag_set_limits(L, &limits) != AG_OK || ag_restrict(L, NULL) != AG_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    return 1;
  }
  lua_settop(L, 0);
  int status = file != NULL ? luaL_loadfilex(L, file, "t") : luaL_loadbufferx(L, script, strlen(script), name, "t");
  if (status == LUA_OK)
    run(L, name);
  else
    printf("%s\n", lua_tostring(L, -1));
  lua_settop(L, 0);
  if (file == NULL && luaL_loadbufferx(L, harmless, sizeof harmless - 1, "=harmless", "t") == LUA_OK)
    run(L, "  the next script");
  lua_close(L);
  return 0;
}

int main(int argc, char **argv) {
  int status = 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 1; i < argc; i++)
    status |= tenant(argv[i], argv[i], NULL);
  for (size_t i = 0; argc == 1 && i < sizeof runaways / sizeof *runaways; i++)
    status |= tenant(NULL, runaways[i][0], runaways[i][1]);
  return status;
}
