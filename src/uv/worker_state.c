/* The Lua states of workers, and running one job in one of them. All of this happens on the worker's thread.
** A state stays warm: modules stay loaded, functions compiled. One that was stopped in the middle is closed. */
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "uv/worker.h"

enum { CACHE_LIMIT = 64, KEEP_KB = 4096 };

/* Keys of the registry: compiled functions by their dump, how many; the metatable of environments; the traceback of
** the last error. */
static const char functions_key = 0, count_key = 0, environment_key = 0, traceback_key = 0;

/* ---- states ---- */

static int no_exit(lua_State *L) { return luaL_error(L, "os.exit: a worker cannot end the program"); }

/* The loader of agather.core: the worker is told of the loops that run here. */
static int open_core(lua_State *L) {
  luaopen_agather_core(L);
  ag_worker_self()->loops = ag_interruptible(L);
  return 1;
}

static int open_libraries(lua_State *L) {
  luaL_openlibs(L);
  ag_worker_guard(L);
  lua_getglobal(L, "os");
  lua_pushcfunction(L, no_exit);
  lua_setfield(L, -2, "exit");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open_core);
  lua_setfield(L, -2, "agather.core");
  lua_createtable(L, 0, 1);
  lua_pushglobaltable(L);
  lua_setfield(L, -2, "__index");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &environment_key);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &functions_key);
  return 0;
}

static bool open_state(worker *w) {
  lua_State *L = luaL_newstate();
  if (L == NULL)
    return false;
  lua_pushcfunction(L, open_libraries);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    lua_close(L);
    return false;
  }
  w->L = L;
  w->kept = lua_gc(L, LUA_GCCOUNT);
  return true;
}

void ag_worker_close_state(worker *w) {
  w->loops = NULL;
  if (w->L != NULL)
    lua_close(w->L);
  w->L = NULL;
  ag_job_paths_drop(w->paths);
  w->paths = NULL;
}

void ag_job_paths_drop(job_paths *paths) {
  if (paths != NULL && atomic_fetch_sub(&paths->shares, 1) == 1) {
    free(paths->path);
    free(paths->cpath);
    free(paths);
  }
}

static void use_paths(lua_State *L, worker *w, job_paths *paths) {
  if (w->paths == paths)
    return;
  lua_getglobal(L, "package");
  lua_pushstring(L, paths->path);
  lua_setfield(L, -2, "path");
  lua_pushstring(L, paths->cpath);
  lua_setfield(L, -2, "cpath");
  lua_pop(L, 1);
  atomic_fetch_add(&paths->shares, 1);
  ag_job_paths_drop(w->paths);
  w->paths = paths;
}

/* ---- functions ---- */

/* Pushes the globals of one job: what it sets is gone with it, all else is the state's. [-0, +1, m] */
static void push_environment(lua_State *L) {
  lua_createtable(L, 0, 32);
  lua_pushglobaltable(L);
  for (lua_pushnil(L); lua_next(L, -2);) { /* copied, so that they are found at once */
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -5);
  }
  lua_pop(L, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "_G");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &environment_key);
  lua_setmetatable(L, -2);
}

/* Pushes the function of a dump, compiled now or before. [-0, +1, e] */
static void push_compiled(lua_State *L, const char *dump, size_t size) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key);
  lua_pushlstring(L, dump, size);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TFUNCTION) {
    lua_replace(L, -3);
    lua_pop(L, 1);
    return;
  }
  lua_pop(L, 1); /* functions, dump */
  lua_rawgetp(L, LUA_REGISTRYINDEX, &count_key);
  lua_Integer count = lua_tointeger(L, -1);
  lua_pop(L, 1);
  if (count == CACHE_LIMIT) {
    count = 0;
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &functions_key);
    lua_replace(L, -3);
  }
  if (luaL_loadbufferx(L, dump, size, "=worker", "b") != LUA_OK)
    lua_error(L);
  lua_pushvalue(L, -1);
  lua_insert(L, -4); /* function, functions, dump, function */
  lua_rawset(L, -3);
  lua_pop(L, 1);
  lua_pushinteger(L, count + 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &count_key);
}

/* Pushes the job's function, its upvalues set; or the names of a module and of a function in it, or nil. [-0, +2, e] */
static void get_function(ag_copier *c) {
  lua_State *L = c->L;
  ag_message *m = c->message;
  if (ag_message_get_integer(m) == FUNCTION_NAMED) {
    ag_copier_get(c);
    ag_copier_get(c);
    return;
  }
  size_t size = (size_t)ag_message_get_integer(m);
  push_compiled(L, ag_message_get_bytes(m, size), size);
  lua_Integer n = ag_message_get_integer(m);
  for (int i = 1; i <= n; i++) {
    switch ((enum job_upvalue)ag_message_get_integer(m)) {
    case UPVALUE_GLOBALS:
      push_environment(L);
      break;
    case UPVALUE_ITSELF:
      lua_pushvalue(L, -1);
      break;
    default:
      ag_copier_get(c);
    }
    lua_setupvalue(L, -2, i);
  }
  lua_pushnil(L);
}

/* Pushes the function that the names at [index] and above it name. [-0, +1, e] */
static void find_named(lua_State *L, int index) {
  const char *module = lua_tostring(L, index), *name = lua_tostring(L, index + 1);
  lua_getglobal(L, "require");
  lua_pushvalue(L, index);
  lua_call(L, 1, 1);
  if (name != NULL) {
    if (!lua_istable(L, -1))
      luaL_error(L, "module '%s' is no table but a %s", module, luaL_typename(L, -1));
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
  }
  if (lua_isfunction(L, -1))
    return;
  if (luaL_getmetafield(L, -1, "__call") == LUA_TNIL)
    luaL_error(L, "'%s%s%s' is no function but a %s", module, name != NULL ? ":" : "", name != NULL ? name : "",
               luaL_typename(L, -1));
  lua_pop(L, 1);
}

/* ---- jobs ---- */

static int add_traceback(lua_State *L) {
  if (ag_worker_stopping(ag_worker_self()))
    return 1;
  luaL_checkstack(L, 10, NULL);
  luaL_traceback(L, L, NULL, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &traceback_key);
  return 1;
}

/* 1 kind, 2 first place, 3 function or module, 4 name or nil, then values. Returns the results. */
static int call(lua_State *L) {
  int top = lua_gettop(L);
  if (lua_type(L, 3) == LUA_TSTRING) {
    find_named(L, 3);
    lua_copy(L, -1, 3);
    lua_settop(L, top);
  }
  if (lua_tointeger(L, 1) == JOB_CALL) {
    lua_copy(L, 3, 4);
    lua_call(L, top - 4, LUA_MULTRET);
    return lua_gettop(L) - 3;
  }
  lua_Integer first = lua_tointeger(L, 2);
  for (int i = 5; i <= top; i++) {
    lua_pushvalue(L, 3);
    lua_pushvalue(L, i);
    lua_pushinteger(L, first + i - 5);
    lua_call(L, 2, 1);
    lua_replace(L, i);
  }
  return top - 4;
}

/* Puts the results above [base]. */
static void put_results(lua_State *L, job *job, int base) {
  int n = lua_gettop(L) - base;
  luaL_checkstack(L, 10, "too many results");
  ag_copier c;
  ag_copier_begin(&c, L, &job->output);
  ag_message_put_integer(L, &job->output, n);
  for (int i = 1; i <= n; i++) {
    if (!ag_copier_put(&c, base + i)) {
      const char *text = lua_pushfstring(L, "result #%d: %s", i, lua_tostring(L, -1));
      job->output.size = 0;
      ag_message_put_bytes(L, &job->output, text, strlen(text) + 1);
      job->outcome = OUTCOME_REFUSED;
      return;
    }
  }
  job->outcome = OUTCOME_RESULTS;
}

/* Pushes the name of the error class that is the metatable of the value at [index], or nil. [-0, +1, m] */
static void push_class_name(lua_State *L, int index) {
  int top = lua_gettop(L);
  if (lua_istable(L, index) && lua_getmetatable(L, index)) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushliteral(L, "__name");
    if (lua_rawget(L, top + 1) == LUA_TSTRING && lua_getfield(L, top + 2, "agather") == LUA_TTABLE) {
      lua_pushvalue(L, top + 3);
      lua_rawget(L, top + 4);
      if (lua_rawequal(L, -1, top + 1)) {
        lua_pushvalue(L, top + 3);
        lua_replace(L, top + 1);
        lua_settop(L, top + 1);
        return;
      }
    }
  }
  lua_settop(L, top);
  lua_pushnil(L);
}

/* Puts the error at [index]; one that cannot be copied is put as its text. */
static void put_error(lua_State *L, job *job, int index) {
  luaL_checkstack(L, 20, NULL);
  ag_message *m = &job->output;
  ag_copier c;
  ag_copier_begin(&c, L, m);
  m->size = 0;
  bool whole = ag_copier_put(&c, index);
  if (!whole) {
    m->size = 0;
    ag_copier_begin(&c, L, m);
    luaL_tolstring(L, index, NULL);
    ag_copier_put(&c, lua_gettop(L));
  }
  lua_rawgetp(L, LUA_REGISTRYINDEX, &traceback_key);
  ag_copier_put(&c, lua_gettop(L));
  if (whole)
    push_class_name(L, index);
  else
    lua_pushnil(L);
  ag_copier_put(&c, lua_gettop(L));
  job->outcome = OUTCOME_RAISED;
}

/* Protected: 1 the job. Runs it and fills its output. */
static int perform(lua_State *L) {
  job *job = lua_touserdata(L, 1);
  use_paths(L, job->worker, job->paths);
  ag_copier c;
  ag_copier_begin(&c, L, &job->input);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &traceback_key);
  lua_pushcfunction(L, add_traceback);
  int handler = lua_gettop(L);
  lua_pushcfunction(L, call);
  lua_pushinteger(L, ag_message_get_integer(c.message));
  lua_pushinteger(L, ag_message_get_integer(c.message));
  get_function(&c);
  int n = (int)ag_message_get_integer(c.message);
  luaL_checkstack(L, n, "too many arguments");
  for (int i = 0; i < n; i++)
    ag_copier_get(&c);
  lua_pushnil(L); /* what was copied is the function's alone */
  lua_replace(L, c.seen);
  int status = lua_pcall(L, n + 4, LUA_MULTRET, handler);
  if (atomic_load(&job->stop))
    return 0;
  if (status == LUA_OK)
    put_results(L, job, handler);
  else if (status == LUA_ERRMEM)
    job->spoiled = true;
  else
    put_error(L, job, lua_gettop(L));
  return 0;
}

/* Protected: 1 the job, 2 the error. */
static int perform_failed(lua_State *L) {
  put_error(L, lua_touserdata(L, 1), 2);
  return 0;
}

void ag_worker_perform(worker *w, job *job) {
  job->outcome = OUTCOME_NO_MEMORY;
  if (w->L == NULL && !open_state(w))
    return;
  lua_State *L = w->L;
  w->current = L;
  w->listening = 1;
  if (!atomic_load(&job->stop)) {
    lua_pushcfunction(L, perform);
    lua_pushlightuserdata(L, job);
    int status = lua_pcall(L, 1, 0, 0);
    if (status == LUA_ERRMEM) {
      job->spoiled = true;
    } else if (status != LUA_OK && !atomic_load(&job->stop)) {
      lua_pushcfunction(L, perform_failed);
      lua_insert(L, 1);
      lua_pushlightuserdata(L, job);
      lua_insert(L, 2);
      job->spoiled = lua_pcall(L, 2, 0, 0) != LUA_OK;
    }
  }
  w->listening = 0;
  if (atomic_load(&job->stop) || job->spoiled) {
    job->spoiled = true;
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  lua_settop(L, 0);
  int size = lua_gc(L, LUA_GCCOUNT);
  if (size > 2 * w->kept + KEEP_KB) { /* it may be long before the next job */
    lua_gc(L, LUA_GCCOLLECT);
    w->kept = lua_gc(L, LUA_GCCOUNT);
  }
}
