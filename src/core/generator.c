/* agather.coroutine: drop-in for Lua's coroutine table, through which waiting reaches the loop.
** A wait inside a generator parks the task and yields; resume sees that and yields in turn, up to the loop; when the
** loop resumes the task, each resume on the way resumes its generator again.
** A generator's function runs under lua_pcallk, so its <close> handlers may wait while an error unwinds. */
#include "core/generator.h"

#include <lualib.h>

#include "core/error.h"
#include "core/limits.h"
#include "core/task.h"

/* ---- the body ---- */

/* Whether the value at [index] is what closes generators: a CancelledError, so that agather.pcall lets it through. */
static bool is_exit(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->exit);
  bool same = lua_rawequal(L, -1, index);
  lua_pop(L, 1);
  return same;
}

static int body_done(lua_State *L, int status, lua_KContext context) {
  (void)context;
  if (status == LUA_OK || status == LUA_YIELD)
    return lua_gettop(L);
  return is_exit(L, ag_self(L), -1) ? 0 : lua_error(L); /* its <close> handlers have run */
}

/* Upvalue 1: the state, 2: the script's function. */
static int body(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  return body_done(L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, body_done), 0);
}

void ag_generator_function(lua_State *L) {
  if (lua_tocfunction(L, -1) != body)
    return;
  lua_getupvalue(L, -1, 2);
  lua_replace(L, -2);
}

/* ---- resuming ---- */

static int failure(lua_State *L, const char *message) {
  lua_settop(L, 0);
  lua_pushboolean(L, false);
  lua_pushstring(L, message);
  return 2;
}

/* Marks the generator at 1: it waits for its task, and nobody else may resume it. */
static void set_waiting(lua_State *L, ag_state *S, bool waiting) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->waiting);
  lua_pushvalue(L, 1);
  if (waiting)
    lua_pushboolean(L, true);
  else
    lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

static bool is_waiting(lua_State *L, ag_state *S) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->waiting);
  lua_pushvalue(L, 1);
  bool waiting = lua_rawget(L, -2) != LUA_TNIL;
  lua_pop(L, 2);
  return waiting;
}

static int resume_again(lua_State *L, int status, lua_KContext context);

/* Runs the generator at 1 with [nargs] values on its stack until it yields, ends or waits.
** Returns true and results or false and the error. */
static int go_on(lua_State *L, ag_state *S, int nargs) {
  lua_State *co = lua_tothread(L, 1);
  ag_task *task = ag_task_here(L, S);
  ag_loop *loop = S->running;
  lua_State *outer = NULL;
  bool stuck = false;
  if (task != NULL) {
    outer = loop->here;
    stuck = loop->inner_stuck;
    loop->here = co;
    loop->inner_stuck = stuck || !lua_isyieldable(L);
    task->parked = false;
  }
  int nres, status = ag_resume(S, co, L, nargs, &nres);
  if (task != NULL) {
    loop->here = outer;
    loop->inner_stuck = stuck;
    if (status == LUA_YIELD && task->parked) {
      set_waiting(L, S, true);
      return lua_yieldk(L, 0, 0, resume_again);
    }
  }
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    lua_pushboolean(L, false);
    lua_insert(L, -2);
    return 2;
  }
  if (!lua_checkstack(L, nres + 2)) {
    lua_pop(co, nres);
    return failure(L, "too many results to resume");
  }
  lua_pushboolean(L, true);
  lua_xmove(co, L, nres);
  return nres + 1;
}

static int resume_again(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_state *S = ag_self(L);
  ag_task *task = ag_task_here(L, S);
  if (task == NULL)
    return ag_task_hijacked(L, S);
  if (lua_status(lua_tothread(L, 1)) != LUA_YIELD) { /* the generator was resumed or closed by hand while it waited */
    ag_task_detach(S, task);
    ag_task_raise(L, S, task);
  }
  set_waiting(L, S, false);
  return go_on(L, S, 0);
}

/* resume(co, ...) */
static int resume(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTHREAD);
  lua_State *co = lua_tothread(L, 1);
  int nargs = lua_gettop(L) - 1;
  lua_Debug ar;
  int status = lua_status(co);
  if (co == L || (status == LUA_OK && lua_getstack(co, 0, &ar) > 0) || is_waiting(L, ag_self(L)))
    return failure(L, "cannot resume non-suspended coroutine");
  if (status != LUA_YIELD && (status != LUA_OK || lua_gettop(co) == 0))
    return failure(L, "cannot resume dead coroutine");
  if (!lua_checkstack(co, nargs + 1))
    return failure(L, "too many arguments to resume");
  lua_xmove(L, co, nargs);
  return go_on(L, ag_self(L), nargs);
}

/* create(f): a suspended coroutine. */
static int create(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushlightuserdata(L, ag_self(L));
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, body, 2);
  lua_xmove(L, co, 1);
  return 1;
}

/* ---- wrap ---- */

static int wrap_done(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  if (lua_toboolean(L, 1))
    return lua_gettop(L) - 1;
  if (lua_type(L, 2) == LUA_TSTRING) { /* as Lua's wrap: where it was called goes in front */
    luaL_where(L, 1);
    lua_insert(L, 2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* Upvalue 2: resume, 3: the coroutine. */
static int call_wrap(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_insert(L, 2);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, wrap_done);
  return wrap_done(L, LUA_OK, 0);
}

/* wrap(f): a function that resumes a coroutine and raises its errors. */
static int wrap(lua_State *L) {
  create(L);
  ag_state *S = ag_self(L);
  lua_pushlightuserdata(L, S);
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, resume, 1);
  lua_pushvalue(L, -3);
  lua_pushcclosure(L, call_wrap, 3);
  return 1;
}

/* ---- yield and close ---- */

static int yielded(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  if (ag_self(L)->closing == L) {
    ag_self(L)->closing = NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, ag_self(L)->exit);
    return lua_error(L);
  }
  return lua_gettop(L);
}

/* yield(...): gives values to who resumed the generator. */
static int yield(lua_State *L) {
  ag_state *S = ag_self(L);
  if (S->running != NULL && S->running->task != NULL && S->running->task->thread.L == L)
    return ag_error_raise(L, S, "RuntimeError",
                          "attempt to yield from outside a coroutine (a task waits by agather's functions)");
  return lua_yieldk(L, lua_gettop(L), 0, yielded);
}

static int close_done(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  lua_State *co = lua_tothread(L, 1); /* 2: whether it failed, 3: the error */
  bool failed = !lua_toboolean(L, 2) && !is_exit(L, ag_self(L), 3);
  if (lua_status(co) == LUA_YIELD) { /* it caught the exit and yielded again: now by force */
    int closed = ag_reset(ag_self(L), co, L);
    lua_pushboolean(L, closed == LUA_OK);
    if (closed == LUA_OK)
      return 1;
    lua_xmove(co, L, 1);
    return 2;
  }
  lua_pushboolean(L, !failed);
  if (!failed)
    return 1;
  lua_pushvalue(L, 3);
  return 2;
}

/* close(co): ends a suspended coroutine; its <close> handlers may wait. */
static int close(lua_State *L) {
  ag_state *S = ag_self(L);
  luaL_checktype(L, 1, LUA_TTHREAD);
  lua_settop(L, 1);
  lua_State *co = lua_tothread(L, 1);
  lua_Debug ar;
  bool has_frames = lua_getstack(co, 0, &ar) > 0;
  if (co == L || (lua_status(co) == LUA_OK && has_frames) || is_waiting(L, S))
    return luaL_error(L, "cannot close a %s coroutine", co == L ? "running" : "normal");
  bool ours = false;
  if (lua_status(co) == LUA_YIELD && has_frames) {
    lua_getinfo(co, "f", &ar);
    ours = lua_tocfunction(co, -1) == yield;
    lua_pop(co, 1);
  }
  if (!ours) {
    int status = ag_reset(S, co, L);
    lua_pushboolean(L, status == LUA_OK);
    if (status == LUA_OK)
      return 1;
    lua_xmove(co, L, 1);
    return 2;
  }
  S->closing = co;
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, resume, 1);
  lua_pushvalue(L, 1);
  lua_callk(L, 1, 2, 0, close_done);
  return close_done(L, LUA_OK, 0);
}

/* status(co): as Lua's; one that waits for its task is "normal". */
static int status(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTHREAD);
  lua_settop(L, 1);
  lua_State *co = lua_tothread(L, 1);
  lua_Debug ar;
  const char *name = "dead";
  if (co == L)
    name = "running";
  else if (is_waiting(L, ag_self(L)) || (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar) > 0))
    name = "normal";
  else if (lua_status(co) == LUA_YIELD || (lua_status(co) == LUA_OK && lua_gettop(co) > 0))
    name = "suspended";
  lua_pushstring(L, name);
  return 1;
}

void ag_generator_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg functions[] = {{"create", create}, {"resume", resume}, {"wrap", wrap}, {"yield", yield},
                                       {"close", close},   {"status", status}, {NULL, NULL}};
  static const char *const same[] = {"running", "isyieldable"};
  S->waiting = ag_weak_table(L, "k");
  lua_pushliteral(L, "the coroutine was closed");
  ag_error_push(L, S, "CancelledError");
  S->exit = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  ag_setfuncs(L, S, functions);
  lua_pushcfunction(L, luaopen_coroutine);
  lua_call(L, 0, 1);
  for (int i = 0; i < 2; i++) {
    lua_getfield(L, -1, same[i]);
    lua_setfield(L, -3, same[i]);
  }
  lua_pop(L, 1);
  lua_setfield(L, -2, "coroutine");
}
