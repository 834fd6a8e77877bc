/* ag_restrict: globals made of an allow-list. The library's own Lua code keeps the globals that it was loaded with. */
#include "core/restrict.h"

#include <lualib.h>
#include <string.h>

#include "core/limits.h"

/* The registry's key of a table name -> library, which `require` looks into. */
static const char modules_key = 0;

/* What of each library needs no trust; NULL names: all of it. */
static const char *const base_names[] = {"assert", "collectgarbage", "error",    "getmetatable", "ipairs",   "load",
                                         "next",   "pairs",          "pcall",    "print",        "rawlen",   "rawequal",
                                         "rawget", "rawset",         "select",   "setmetatable", "tonumber", "tostring",
                                         "type",   "xpcall",         "_VERSION", "_G",           NULL};
static const char *const string_names[] = {"byte",    "char",  "find",   "format", "gmatch",   "gsub",
                                           "len",     "lower", "match",  "pack",   "packsize", "rep",
                                           "reverse", "sub",   "unpack", "upper",  NULL};
static const char *const os_names[] = {"clock", "date", "difftime", "time", NULL};
static const char *const agather_names[] = {
    /* the core */
    "BoundedSemaphore", "Condition", "ContextVar", "Event", "LifoQueue", "Lock", "PriorityQueue", "Queue", "Semaphore",
    "all_tasks", "async", "await", "copy_context", "coroutine", "create_task", "current_task", "ensure_future",
    "error_object", "future", "gather", "gather_list", "get_running_loop", "is_awaitable", "is_error", "pcall", "sleep",
    "spawn", "xpcall",
    /* errors */
    "BrokenBarrierError", "CancelledError", "DeadlockError", "Error", "ExceptionGroup", "IncompleteReadError",
    "InvalidStateError", "KeyboardInterrupt", "LimitError", "LimitOverrunError", "LookupError", "OSError", "QueueEmpty",
    "QueueFull", "QueueShutDown", "RuntimeError", "TimeoutError",
    /* what is written in Lua */
    "ALL_COMPLETED", "Barrier", "FIRST_COMPLETED", "FIRST_EXCEPTION", "TaskGroup", "as_completed", "from_callback",
    "map", "shield", "timeout", "timeout_at", "wait", "wait_for", "_VERSION", NULL};

static const struct {
  const char *name;
  lua_CFunction open;
  const char *const *names;
} libraries[] = {{"string", luaopen_string, string_names},
                 {"table", luaopen_table, NULL},
                 {"math", luaopen_math, NULL},
                 {"utf8", luaopen_utf8, NULL},
                 {"os", luaopen_os, os_names}};

static bool is_in(const char *const *names, const char *name) {
  for (; *names != NULL; names++)
    if (strcmp(*names, name) == 0)
      return true;
  return false;
}

/* Takes what is not in [names] out of the table on top. */
static void keep(lua_State *L, const char *const *names) {
  for (lua_pushnil(L); lua_next(L, -2);) {
    lua_pop(L, 1);
    if (lua_type(L, -1) == LUA_TSTRING && is_in(names, lua_tostring(L, -1)))
      continue;
    lua_pushvalue(L, -1);
    lua_pushnil(L);
    lua_rawset(L, -4);
  }
}

/* Pushes a copy of the named fields of the table on top. Reading a field may load what it stands for. */
static void copy(lua_State *L, const char *const *names) {
  int from = lua_gettop(L);
  lua_newtable(L);
  for (; *names != NULL; names++) {
    lua_getfield(L, from, *names);
    lua_setfield(L, from + 1, *names);
  }
}

/* ---- making the globals ---- */

/* require(name): what the host has allowed. */
static int safe_require(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
  const char *field = strncmp(name, "agather.", 8) == 0 ? name + 8 : NULL;
  if (lua_getfield(L, -1, field == NULL ? name : "agather") == LUA_TTABLE && field != NULL)
    lua_getfield(L, -1, field);
  if (lua_isnil(L, -1))
    return luaL_error(L, "module '%s' is not allowed here", name);
  return 1;
}

/* Calls require(name) of the globals so far, which loads what the library would load later, with them. False: there is
** no such module, and nothing was pushed. [-0, +0|1, e] */
static bool require_module(lua_State *L, const char *name) {
  if (lua_getglobal(L, "require") != LUA_TFUNCTION) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushstring(L, name);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK)
    return true;
  const char *message = lua_tostring(L, -1);
  if (message == NULL || strstr(message, "not found") == NULL)
    lua_error(L);
  lua_pop(L, 1);
  return false;
}

/* Pushes agather: all of it, where its part in Lua is found, or its core. */
static void push_agather(lua_State *L) {
  if (!require_module(L, "agather"))
    luaL_requiref(L, "agather.core", luaopen_agather_core, 0);
  else if (require_module(L, "agather.progress"))
    lua_pop(L, 1);
}

/* Adds the submodules that [allow] names to the copy on top, from the module at [from]. */
static void add_submodules(lua_State *L, int from, const char *const *allow) {
  for (; allow != NULL && *allow != NULL; allow++) {
    const char *name = strncmp(*allow, "agather.", 8) == 0 ? *allow + 8 : NULL;
    if (name == NULL || lua_getfield(L, -1, name) != LUA_TNIL || is_in(agather_names, name)) {
      if (name != NULL)
        lua_pop(L, 1);
      continue;
    }
    lua_pop(L, 1);
    if (lua_getfield(L, from, name) != LUA_TTABLE) {
      lua_pop(L, 1); /* no submodule: only what is known to be safe is given by name */
      continue;
    }
    int module = lua_gettop(L);
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, module);) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, module + 1);
    }
    lua_setfield(L, module - 1, name);
    lua_pop(L, 1);
  }
}

/* Methods by which a script could stop the loop under the others, or hide what goes wrong from the host. */
static void restrict_loop(lua_State *L, ag_state *S) {
  static const char *const methods[] = {
      "close", "run_forever", "run_until_complete", "set_debug", "set_exception_handler", "stop", NULL};
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_loop);
  lua_getfield(L, -1, "__index");
  for (int i = 0; methods[i] != NULL; i++) {
    lua_pushnil(L);
    lua_setfield(L, -2, methods[i]);
  }
  lua_pop(L, 2);
}

/* Lua looks for the names of functions, in messages and tracebacks, in the table of loaded modules: globals and
** libraries as scripts have them take the place of those before. The globals are on top. */
static void name_functions(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, LUA_GNAME);
  for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
    lua_getfield(L, -2, libraries[i].name);
    lua_setfield(L, -2, libraries[i].name);
  }
  lua_pop(L, 1);
}

/* Makes the new globals, and gives them to the state. */
static void make_globals(lua_State *L, ag_state *S, const char *const *allow) {
  push_agather(L);
  int from = lua_gettop(L);
  copy(L, agather_names);
  add_submodules(L, from, allow);
  ag_safe_push_xpcall(L, S);
  lua_setfield(L, -2, "xpcall");
  lua_getfield(L, -1, "coroutine");
  lua_newtable(L); /* the library's own table stays as it is, whatever scripts do to theirs */
  for (lua_pushnil(L); lua_next(L, -3);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
  lua_replace(L, -2);
  lua_pushvalue(L, -1);
  lua_setfield(L, from + 1, "coroutine"); /* from + 1: agather, from + 2: coroutine */
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pushcfunction(L, luaopen_base); /* fills the globals of the registry */
  lua_call(L, 0, 1);
  keep(L, base_names);
  lua_newtable(L); /* globals, modules */
  for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
    lua_pushcfunction(L, libraries[i].open);
    lua_call(L, 0, 1);
    if (libraries[i].names != NULL)
      keep(L, libraries[i].names);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, libraries[i].name);
    lua_setfield(L, -3, libraries[i].name);
  }
  static const char *const ours[] = {"agather", "coroutine"};
  for (int i = 0; i < 2; i++) {
    lua_pushvalue(L, from + 1 + i);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, ours[i]);
    lua_setfield(L, -3, ours[i]);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &modules_key);
  lua_pushcfunction(L, safe_require);
  lua_setfield(L, -2, "require");
  ag_safe_functions(L, S);
  lua_pushliteral(L, "");
  lua_getmetatable(L, -1);
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 2);
  name_functions(L);
  lua_settop(L, from - 1);
  restrict_loop(L, S);
}

/* ---- taking away what is not allowed ---- */

/* Whether [allow] names the field [key] of the library [library], or the library as a whole; either may be NULL. */
static bool allows(const char *const *allow, const char *library, const char *key) {
  for (; *allow != NULL; allow++) {
    size_t n = strlen(library);
    if (strcmp(*allow, library) == 0)
      return true;
    if (strncmp(*allow, library, n) == 0 && (*allow)[n] == '.' && (key == NULL || strcmp(*allow + n + 1, key) == 0))
      return true;
  }
  return false;
}

/* Empties the library [name] on top of all that is not allowed. */
static void prune_library(lua_State *L, const char *const *allow, const char *name) {
  for (lua_pushnil(L); lua_next(L, -2);) {
    lua_pop(L, 1);
    if (lua_type(L, -1) == LUA_TSTRING && allows(allow, name, lua_tostring(L, -1)))
      continue;
    lua_pushvalue(L, -1);
    lua_pushnil(L);
    lua_rawset(L, -4);
  }
}

static void prune(lua_State *L, const char *const *allow) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    const char *name = lua_tostring(L, -2);
    prune_library(L, allow, name);
    if (!allows(allow, name, NULL)) {
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, -5);
    }
  }
  lua_pop(L, 1);
  lua_pushglobaltable(L);
  for (lua_pushnil(L); lua_next(L, -2);) {
    lua_pop(L, 1);
    const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    if (strcmp(name, "_G") == 0 || allows(allow, name, NULL))
      continue;
    lua_pushvalue(L, -1);
    lua_pushnil(L);
    lua_rawset(L, -4);
  }
  lua_pop(L, 1);
}

/* 1: the list. */
static int restrict_globals(lua_State *L) {
  const char *const *allow = lua_touserdata(L, 1);
  ag_state *S = ag_state_open(L);
  luaL_checkstack(L, 30, NULL);
  if (!S->restricted)
    make_globals(L, S, allow);
  S->restricted = true;
  if (allow != NULL)
    prune(L, allow);
  return 0;
}

/* 1: the list, 2: where to say whether a loop runs. What fails half-way leaves the globals as they were. */
static int restrict_protected(lua_State *L) {
  luaL_requiref(L, "agather.core", luaopen_agather_core, 0);
  ag_state *S = ag_state_open(L);
  *(bool *)lua_touserdata(L, 2) = S->running != NULL;
  if (S->running != NULL)
    return 0;
  lua_pushglobaltable(L); /* 4 */
  lua_pushliteral(L, "");
  if (!lua_getmetatable(L, 5))
    lua_pushnil(L); /* 6 */
  lua_pushcfunction(L, restrict_globals);
  lua_pushvalue(L, 1);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK)
    return 0;
  if (!S->restricted) {
    lua_pushvalue(L, 4);
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pushvalue(L, 6);
    lua_setmetatable(L, 5);
  }
  return lua_error(L);
}

ag_status ag_restrict(lua_State *L, const char *const *allow) {
  bool running = false;
  lua_pushcfunction(L, restrict_protected);
  lua_pushlightuserdata(L, (void *)allow);
  lua_pushlightuserdata(L, &running);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK)
    return AG_ERROR;
  return running ? AG_REENTRANT : AG_OK;
}
