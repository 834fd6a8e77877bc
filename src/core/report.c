/* Reports: what failed and nobody asked for goes to the loop's exception handler, by default to stderr. */
#include "core/report.h"

#include <stdio.h>

#include "core/error.h"
#include "core/limits.h"
#include "core/task.h"

/* Lives as long as the failed future does: user value 1 is what the future held there, 2 the future. */
typedef struct watch {
  bool active;
} watch;

static void print_context(lua_State *L, int context) {
  lua_getfield(L, context, "message");
  const char *message = lua_tostring(L, -1);
  fprintf(stderr, "%s\n", message != NULL ? message : "Unhandled exception in event loop");
  lua_getfield(L, context, "task");
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_getfield(L, context, "future");
  }
  if (!lua_isnil(L, -1))
    fprintf(stderr, "  %s\n", luaL_tolstring(L, -1, NULL));
  lua_getfield(L, context, "exception");
  if (!lua_isnil(L, -1)) {
    ag_error_message(L, lua_gettop(L));
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    if (lua_istable(L, -2) && lua_getfield(L, -2, "traceback") == LUA_TSTRING)
      fprintf(stderr, "%s\n", lua_tostring(L, -1));
  }
  fflush(stderr);
}

static int print_protected(lua_State *L) {
  print_context(L, 1);
  return 0;
}

/* Protected: 1 the context, 2 the loop, 3 what happened. Fills in the texts and tells the host. */
static int tell_sink(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 2);
  ag_unhandled *what = lua_touserdata(L, 3);
  lua_getfield(L, 1, "message");
  if (lua_type(L, -1) == LUA_TSTRING)
    what->message = lua_tostring(L, -1);
  lua_getfield(L, 1, "task");
  ag_future *future = ag_future_to(L, loop->S, -1);
  if (future != NULL && future->kind == AG_TASK) {
    ag_task_push_name(L, loop->S, (ag_task *)future, -1);
    what->task = lua_tostring(L, -1);
  }
  if (lua_getfield(L, 1, "exception") != LUA_TNIL) {
    int exception = lua_gettop(L);
    ag_error_message(L, exception);
    what->error = lua_tostring(L, -1);
    if (lua_istable(L, exception)) {
      lua_pushliteral(L, "traceback");
      if (lua_rawget(L, exception) == LUA_TSTRING)
        what->traceback = lua_tostring(L, -1);
    }
  }
  ag_error_sink sink = loop->sink;
  if (sink != NULL) {
    loop->sink_told = true;
    sink(what, loop->sink_data);
  }
  return 0;
}

/* Gives the context at [context] to the host's sink. Never raises. */
static void tell(lua_State *L, ag_loop *loop, ag_unhandled_kind kind, int context) {
  ag_unhandled what = {kind, "an error that cannot be described", NULL, NULL, NULL};
  loop->sink_told = false;
  lua_pushcfunction(L, tell_sink);
  lua_pushvalue(L, context);
  lua_pushlightuserdata(L, loop);
  lua_pushlightuserdata(L, &what);
  if (lua_pcall(L, 3, 0, 0) == LUA_OK)
    return;
  lua_pop(L, 1);
  if (!loop->sink_told && loop->sink != NULL) {
    what = (ag_unhandled){kind, "an error that cannot be described", NULL, NULL, NULL};
    loop->sink(&what, loop->sink_data);
  }
}

void ag_set_error_sink(ag_loop *loop, ag_error_sink sink, void *data) {
  loop->sink = sink;
  loop->sink_data = data;
}

/* Gives the context at [context] to the host's sink and the script's handler, or prints it. */
static void deliver(lua_State *L, ag_loop *loop, ag_unhandled_kind kind, int context) {
  bool sunk = loop->sink != NULL;
  if (sunk)
    tell(L, loop, kind, context);
  if (loop->handler != 0) {
    ag_task *outer = loop->task;
    loop->task = NULL;
    ag_push_kept(L, loop->S, loop->handler);
    lua_pushvalue(L, context);
    int status = lua_pcall(L, 1, 0, 0);
    loop->task = outer;
    if (status == LUA_OK)
      return;
    if (sunk) {
      lua_setfield(L, context, "exception");
      lua_pushliteral(L, "Exception in the exception handler");
      lua_setfield(L, context, "message");
      tell(L, loop, AG_UNHANDLED_HANDLER, context);
    } else {
      ag_error_message(L, lua_gettop(L));
      fprintf(stderr, "Exception in the exception handler: %s\n", lua_tostring(L, -1));
    }
  }
  if (!sunk) {
    lua_pushcfunction(L, print_protected);
    lua_pushvalue(L, context);
    lua_pcall(L, 1, 0, 0);
  }
}

/* Calls the handler with the context on top. [-1, +0, -] */
static void handle(lua_State *L, ag_loop *loop, ag_unhandled_kind kind) {
  int context = lua_gettop(L);
  bool opened = loop->S->limiter != NULL && ag_budget_open(L, loop->S);
  deliver(L, loop, kind, context);
  if (opened)
    ag_budget_close(loop->S);
  lua_settop(L, context - 1);
}

void ag_report(lua_State *L, ag_loop *loop, const char *message, int index) {
  int error = lua_gettop(L);
  ag_unhandled_kind kind = lua_isnil(L, error) ? AG_UNHANDLED_COROUTINE : AG_UNHANDLED_CALLBACK;
  if (index != 0)
    index = lua_absindex(L, index);
  lua_createtable(L, 0, 3);
  lua_pushstring(L, message);
  lua_setfield(L, -2, "message");
  lua_pushvalue(L, error);
  lua_setfield(L, -2, "exception");
  if (index != 0) {
    ag_future *future = ag_future_to(L, loop->S, index);
    bool is_task = future != NULL && future->kind == AG_TASK;
    lua_pushvalue(L, index);
    lua_setfield(L, -2, is_task ? "task" : "future");
    if (is_task)
      kind = future->status == AG_PENDING ? AG_UNHANDLED_PENDING : AG_UNHANDLED_TASK;
    else
      kind = AG_UNHANDLED_FUTURE;
  }
  handle(L, loop, kind);
  lua_settop(L, error - 1);
}

static int watch_gc(lua_State *L) {
  ag_state *S = ag_self(L);
  watch *w = lua_touserdata(L, 1);
  if (!w->active || S->closed)
    return 0;
  w->active = false;
  lua_getiuservalue(L, 1, 2);
  lua_replace(L, 1);
  lua_settop(L, 1);
  ag_report_later(L, S);
  return 0;
}

void ag_report_later(lua_State *L, ag_state *S) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->reports);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, S->reported + 1); /* where this fails, the list is as it was */
  S->reported++;
  lua_pop(L, 1);
  for (ag_link *l = S->loops.next; l != &S->loops; l = l->next)
    ag_container(l, ag_loop, among)->suspects = true;
}

void ag_watch(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  ag_future *future = lua_touserdata(L, index);
  watch *w = lua_newuserdatauv(L, sizeof *w, 2);
  w->active = false;
  lua_getiuservalue(L, index, 1);
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, index);
  lua_setiuservalue(L, -2, 2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_watch);
  lua_setmetatable(L, -2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->suspects);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, w);
  lua_pop(L, 1);
  lua_setiuservalue(L, index, 1);
  w->active = true;
  future->watched = true;
  ag_loop *loop = ag_loop_find(S, future->loop);
  if (loop != NULL)
    loop->suspects = true;
}

void ag_unwatch(lua_State *L, ag_state *S, ag_future *future, int index) {
  (void)S;
  index = lua_absindex(L, index);
  lua_getiuservalue(L, index, 1);
  watch *w = lua_touserdata(L, -1);
  w->active = false;
  lua_getiuservalue(L, -1, 1);
  lua_setiuservalue(L, index, 1);
  lua_pop(L, 1);
  future->watched = false;
}

/* Reports the future or coro on top. [-1, +0, m] */
static void report_one(lua_State *L, ag_loop *loop) {
  ag_state *S = loop->S;
  int self = lua_gettop(L);
  ag_future *future = ag_future_to(L, S, self);
  if (future == NULL) {
    lua_getiuservalue(L, self, 1);
    ag_push_site(L, S, -1);
    const char *site = lua_tostring(L, -1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->origins);
    lua_pushvalue(L, self);
    lua_rawget(L, -2);
    const char *origin = lua_tostring(L, -1); /* "file:line: " */
    const char *message = origin == NULL
                              ? lua_pushfstring(L, "coroutine %s was never awaited", site)
                              : lua_pushfstring(L, "%scoroutine %s, made here, was never awaited", origin, site);
    lua_pushnil(L);
    ag_report(L, loop, message, 0);
  } else {
    static const char *const messages[] = {"Future exception was never retrieved", "Task exception was never retrieved",
                                           "Gather exception was never retrieved"};
    if (future->watched)
      ag_unwatch(L, S, future, self);
    future->asked = true;
    ag_loop *own = ag_loop_find(S, future->loop); /* the one that looks may be another */
    if (own != NULL)
      loop = own;
    lua_getiuservalue(L, self, 2);
    ag_report(L, loop, messages[future->kind], self);
  }
  lua_settop(L, self - 1);
}

double ag_suspects_due(const ag_loop *loop) {
  if (!loop->suspects)
    return -1;
  if (loop->S->reported > 0)
    return 0;
  /* Looking costs a full collection: at most a twentieth of the time goes into it. */
  double left = loop->collected + 20 * loop->collection - ag_monotonic();
  return left > 0 ? left : 0;
}

void ag_report_suspects(lua_State *L, ag_loop *loop, bool all) {
  ag_state *S = loop->S;
  if (!all && ag_suspects_due(loop) > 0)
    return;
  double start = ag_monotonic();
  loop->suspects = false;
  luaL_checkstack(L, 20, NULL);
  int top = lua_gettop(L);
  if (!all || S->unstarted > 0) {
    lua_gc(L, LUA_GCCOLLECT, 0);
    loop->collected = ag_monotonic();
    loop->collection = loop->collected - start;
  }
  if (all) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->suspects);
    int suspects = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, suspects); lua_pop(L, 1)) {
      watch *w = lua_touserdata(L, -1);
      lua_getiuservalue(L, -1, 2);
      ag_future *future = lua_touserdata(L, -1);
      if (w->active && future != NULL && future->loop == loop->id) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, S->reports);
        lua_insert(L, -2);
        lua_rawseti(L, -2, S->reported + 1);
        S->reported++;
        w->active = false;
      }
      lua_pop(L, 1);
    }
    lua_settop(L, top);
  }
  while (S->told < S->reported) { /* a handler may bring about more */
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->reports);
    lua_rawgeti(L, -1, ++S->told);
    lua_pushnil(L);
    lua_rawseti(L, -3, S->told);
    report_one(L, loop);
    lua_settop(L, top);
  }
  S->reported = S->told = 0;
}

static int loop_call_exception_handler(lua_State *L) {
  ag_loop *loop = ag_loop_check_self(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  handle(L, loop, AG_UNHANDLED_SCRIPT);
  return 0;
}

void ag_report_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg meta[] = {{"__gc", watch_gc}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"call_exception_handler", loop_call_exception_handler}, {NULL, NULL}};
  lua_newtable(L);
  ag_setfuncs(L, S, meta);
  S->mt_watch = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_loop);
  lua_getfield(L, -1, "__index");
  ag_setfuncs(L, S, methods);
  lua_pop(L, 2);
}
