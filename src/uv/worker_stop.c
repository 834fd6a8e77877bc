/* Stopping what a worker runs, wherever it is: by hooks, and by functions in place of Lua's that know which coroutine
** runs. All but the signal's part happens on the worker's thread. */
#include "compat.h"
#include "uv/worker.h"

bool ag_worker_stopping(const worker *w) { return w->job != NULL && atomic_load(&w->job->stop); }

static void stop_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (!ag_worker_stopping(ag_worker_self())) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  lua_pushliteral(L, "the worker's job was stopped"); /* again at the next instruction, should this be caught */
  lua_error(L);
}

void ag_worker_interrupted(worker *w) {
  if (!ag_worker_stopping(w))
    return;
  lua_sethook(w->current, stop_hook, LUA_MASKCOUNT, 1);
  lua_State *task = w->loops != NULL ? ag_interrupt(w->loops) : NULL;
  if (task != NULL)
    lua_sethook(task, stop_hook, LUA_MASKCOUNT, 1);
}

/* Goes into a coroutine: what stops the one stops the other. Returns what ran. */
static lua_State *go_into(worker *w, lua_State *co) {
  lua_State *outer = w->current;
  w->current = co;
  if (ag_worker_stopping(w))
    lua_sethook(co, stop_hook, LUA_MASKCOUNT, 1);
  return outer;
}

/* Goes on in [L] after a coroutine. */
static void back_in(worker *w, lua_State *outer, lua_State *L) {
  w->current = outer;
  if (ag_worker_stopping(w)) {
    lua_sethook(outer, stop_hook, LUA_MASKCOUNT, 1);
    lua_sethook(L, stop_hook, LUA_MASKCOUNT, 1);
  }
}

/* lua_resume that knows which coroutine runs. Returns the number of results on [L], or -1 and the error there. */
static int resume(lua_State *L, lua_State *co, int nargs) {
  worker *w = ag_worker_self();
  if (!lua_checkstack(co, nargs)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, nargs);
  lua_State *outer = go_into(w, co);
  int nresults, status = lua_resume(co, L, nargs, &nresults);
  back_in(w, outer, L);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, nresults + 1)) {
    lua_pop(co, nresults);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, nresults);
  return nresults;
}

static int reset(lua_State *L, lua_State *co) {
  worker *w = ag_worker_self();
  lua_State *outer = go_into(w, co);
  int status = ag_close_thread(co, L);
  back_in(w, outer, L);
  return status;
}

static lua_State *check_coroutine(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "coroutine");
  return co;
}

/* coroutine.resume */
static int coroutine_resume(lua_State *L) {
  lua_State *co = check_coroutine(L);
  int n = resume(L, co, lua_gettop(L) - 1);
  lua_pushboolean(L, n >= 0);
  n = n < 0 ? 1 : n;
  lua_insert(L, -(n + 1));
  return n + 1;
}

static int wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int n = resume(L, co, lua_gettop(L));
  if (n >= 0)
    return n;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) {
    status = reset(L, co);
    lua_xmove(co, L, 1);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* coroutine.wrap */
static int coroutine_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, wrapped, 1);
  return 1;
}

/* coroutine.close */
static int coroutine_close(lua_State *L) {
  lua_State *co = check_coroutine(L);
  lua_Debug ar;
  bool suspended = lua_status(co) == LUA_YIELD;
  bool normal = L == co || (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar) != 0);
  if (!suspended && normal)
    return luaL_error(L, "cannot close a %s coroutine", L == co ? "running" : "normal");
  if (reset(L, co) == LUA_OK) {
    lua_pushboolean(L, true);
    return 1;
  }
  lua_pushboolean(L, false);
  lua_xmove(co, L, 1);
  return 2;
}

/* A message handler runs without hooks while it handles what a hook raised: it must not run then. */
static int guarded_handler(lua_State *L) {
  if (ag_worker_stopping(ag_worker_self()))
    return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static int finish_xpcall(lua_State *L, int status, lua_KContext extra) {
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_pushboolean(L, false);
    lua_pushvalue(L, -2);
    return 2;
  }
  return lua_gettop(L) - (int)extra;
}

/* xpcall */
static int guarded_xpcall(lua_State *L) {
  int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, guarded_handler, 1);
  lua_replace(L, 2);
  lua_pushboolean(L, true);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2);
  return finish_xpcall(L, lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, finish_xpcall), 2);
}

void ag_worker_guard(lua_State *L) {
  static const luaL_Reg coroutines[] = {
      {"resume", coroutine_resume}, {"wrap", coroutine_wrap}, {"close", coroutine_close}, {NULL, NULL}};
  lua_getglobal(L, "coroutine");
  luaL_setfuncs(L, coroutines, 0);
  lua_pop(L, 1);
  lua_pushcfunction(L, guarded_xpcall);
  lua_setglobal(L, "xpcall");
}
