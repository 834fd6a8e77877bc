/* Context variables. asyncio's contextvars (3.11).
** A context is a userdata whose user value 1 is a table variable -> value that is never changed: setting a variable
** makes a new table, so copying a context is sharing its table. User value 2, while context:run is in it, is the
** context that the caller goes back to. */
#include "core/context.h"

#include "core/error.h"
#include "core/task.h"

typedef struct context {
  unsigned entered;  /* so many calls of context:run are in it, or went on from it into another */
  const ag_task *by; /* the task that is in it by context:run, or NULL */
} context;

typedef struct token {
  bool used, had_value;
} token;

static const char nil_value = 0; /* stands for a nil that was set */

/* Pushes a new context whose table is on top. [-1, +1, m] */
static void new_context(lua_State *L, ag_state *S) {
  context *c = lua_newuserdatauv(L, sizeof *c, 2);
  c->entered = 0;
  c->by = NULL;
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_context);
  lua_setmetatable(L, -2);
}

void ag_context_push(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->contexts);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  if (lua_isnil(L, -1)) { /* made before there were variables */
    lua_pop(L, 1);
    lua_newtable(L);
    new_context(L, S);
    lua_pushvalue(L, index);
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
  }
  lua_remove(L, -2);
}

void ag_context_push_own(lua_State *L, ag_state *S, int index) {
  const ag_task *task = lua_touserdata(L, index);
  ag_context_push(L, S, index);
  while (((context *)lua_touserdata(L, -1))->by == task) {
    lua_getiuservalue(L, -1, 2);
    lua_remove(L, -2);
  }
}

/* Pushes the context of the code that runs now. [-0, +1, m] */
static void push_current(lua_State *L, ag_state *S) {
  ag_task *task = S->running != NULL ? S->running->task : NULL;
  if (task == NULL) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->outside);
  } else {
    ag_push_kept(L, S, task->future.slot);
    ag_context_push(L, S, -1);
    lua_remove(L, -2);
  }
}

static void set_context(lua_State *L, ag_state *S, int index) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->contexts);
  lua_pushvalue(L, index);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 2);
}

void ag_context_inherit(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  ag_context_copy(L, S);
  set_context(L, S, index);
}

static context *to_context(lua_State *L, ag_state *S, int index) {
  void *p = lua_touserdata(L, index);
  if (p == NULL || !lua_getmetatable(L, index))
    return NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_context);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? p : NULL;
}

void ag_context_check(lua_State *L, ag_state *S, int index, int arg) {
  if (to_context(L, S, index) == NULL)
    luaL_argerror(L, arg, lua_pushfstring(L, "option 'context' must be a Context, got %s", ag_type_name(L, index)));
}

void ag_context_give(lua_State *L, ag_state *S, int index) { set_context(L, S, lua_absindex(L, index)); }

void ag_context_swap(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->outside);
  ag_context_push(L, S, index);
  lua_rawseti(L, LUA_REGISTRYINDEX, S->outside);
  set_context(L, S, index);
}

/* ---- variables: user value 1 is the name, 2 the default ---- */

typedef struct variable {
  bool has_default;
} variable;

static variable *check_variable(lua_State *L, int arg) {
  ag_state *S = ag_self(L);
  void *p = lua_touserdata(L, arg);
  if (p != NULL && lua_getmetatable(L, arg)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_variable);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (same)
      return p;
  }
  luaL_typeerror(L, arg, "ContextVar");
  return NULL;
}

/* Pushes the value of the variable at [var] in the context on top; false pushes nothing. [-1, +0|1, -] */
static bool look_up(lua_State *L, int var) {
  lua_getiuservalue(L, -1, 1);
  lua_pushvalue(L, var);
  lua_rawget(L, -2);
  lua_replace(L, -3);
  lua_pop(L, 1);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return false;
  }
  if (lua_touserdata(L, -1) == &nil_value) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  return true;
}

/* Sets the variable at [var] to the value on top (a Lua nil removes it) in the context at [ctx]. [-1, +0, m] */
static void store(lua_State *L, int ctx, int var) {
  lua_newtable(L);
  lua_getiuservalue(L, ctx, 1);
  for (lua_pushnil(L); lua_next(L, -2);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -5);
  }
  lua_pop(L, 1);
  lua_pushvalue(L, var);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_setiuservalue(L, ctx, 1);
  lua_pop(L, 1);
}

/* ContextVar(name [, default]) */
static int new_variable(lua_State *L) {
  ag_state *S = ag_self(L);
  luaL_checkstring(L, 1);
  bool has_default = lua_gettop(L) >= 2;
  lua_settop(L, 2);
  S->contexts_used = true;
  variable *v = lua_newuserdatauv(L, sizeof *v, 2);
  v->has_default = has_default;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 3, 1);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 3, 2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_variable);
  lua_setmetatable(L, 3);
  return 1;
}

/* The value at hand when a variable is not set: the argument at 2, or the default; raises LookupError. */
static int fall_back(lua_State *L, const variable *v, int var, bool given) {
  if (given) {
    lua_pushvalue(L, 2);
  } else if (v->has_default) {
    lua_getiuservalue(L, var, 2);
  } else {
    lua_getiuservalue(L, var, 1);
    return ag_error_raise(L, ag_self(L), "LookupError", "context variable '%s' has no value here", lua_tostring(L, -1));
  }
  return 1;
}

/* var:get([default]): its value in the current context; LookupError where there is none. */
static int variable_get(lua_State *L) {
  variable *v = check_variable(L, 1);
  bool given = lua_gettop(L) >= 2;
  lua_settop(L, 2);
  push_current(L, ag_self(L));
  return look_up(L, 1) ? 1 : fall_back(L, v, 1, given);
}

/* var:set(value): a token for var:reset. */
static int variable_set(lua_State *L) {
  ag_state *S = ag_self(L);
  check_variable(L, 1);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  push_current(L, S);
  token *t = lua_newuserdatauv(L, sizeof *t, 3); /* 4: variable, old value, context */
  t->used = false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_token);
  lua_setmetatable(L, 4);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 4, 1);
  lua_pushvalue(L, 3);
  t->had_value = look_up(L, 1);
  if (t->had_value)
    lua_setiuservalue(L, 4, 2);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 4, 3);
  if (lua_isnil(L, 2))
    lua_pushlightuserdata(L, (void *)&nil_value);
  else
    lua_pushvalue(L, 2);
  store(L, 3, 1);
  return 1;
}

/* var:reset(token): back to the value before the set that gave the token; once, and in the same context. */
static int variable_reset(lua_State *L) {
  ag_state *S = ag_self(L);
  check_variable(L, 1);
  lua_settop(L, 2);
  token *t = lua_touserdata(L, 2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_token);
  bool ours = t != NULL && lua_getmetatable(L, 2) && lua_rawequal(L, -1, 3);
  luaL_argcheck(L, ours, 2, "token of ContextVar:set expected");
  lua_settop(L, 2);
  lua_getiuservalue(L, 2, 1);
  luaL_argcheck(L, lua_rawequal(L, 1, 3), 2, "the token was made by another ContextVar");
  lua_settop(L, 2);
  if (t->used)
    return ag_error_raise(L, S, "RuntimeError", "the token has been used already");
  push_current(L, S);
  lua_getiuservalue(L, 2, 3);
  if (!lua_rawequal(L, 3, 4))
    return ag_error_raise(L, S, "RuntimeError", "the token was made in another context");
  t->used = true;
  if (t->had_value) {
    lua_getiuservalue(L, 2, 2);
    if (lua_isnil(L, -1))
      lua_pushlightuserdata(L, (void *)&nil_value);
  } else {
    lua_pushnil(L);
  }
  store(L, 3, 1);
  return 0;
}

static int variable_name(lua_State *L) {
  check_variable(L, 1);
  lua_getiuservalue(L, 1, 1);
  return 1;
}

static int variable_tostring(lua_State *L) {
  check_variable(L, 1);
  lua_getiuservalue(L, 1, 1);
  lua_pushfstring(L, "<ContextVar name='%s'>", lua_tostring(L, -1));
  return 1;
}

/* ---- contexts ---- */

static context *check_context(lua_State *L) {
  context *c = to_context(L, ag_self(L), 1);
  if (c == NULL)
    luaL_typeerror(L, 1, "Context");
  return c;
}

void ag_context_copy(lua_State *L, ag_state *S) {
  push_current(L, S);
  lua_getiuservalue(L, -1, 1);
  new_context(L, S);
  lua_remove(L, -2);
}

/* copy_context(): a copy of the current context. */
static int copy_context(lua_State *L) {
  ag_context_copy(L, ag_self(L));
  return 1;
}

static int context_copy(lua_State *L) {
  check_context(L);
  lua_getiuservalue(L, 1, 1);
  new_context(L, ag_self(L));
  return 1;
}

/* context:get(var [, default]): as var:get, in that context. */
static int context_get(lua_State *L) {
  check_context(L);
  variable *v = check_variable(L, 2);
  bool given = lua_gettop(L) >= 3;
  lua_settop(L, 3);
  lua_rotate(L, 1, -1); /* var, default, context */
  return look_up(L, 1) ? 1 : fall_back(L, v, 1, given);
}

/* Makes the context at [index] the current one. [-0, +0, m] */
static void make_current(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  ag_task *task = S->running != NULL ? S->running->task : NULL;
  if (task == NULL) {
    lua_pushvalue(L, index);
    lua_rawseti(L, LUA_REGISTRYINDEX, S->outside);
  } else {
    ag_push_kept(L, S, task->future.slot);
    lua_pushvalue(L, index);
    set_context(L, S, lua_gettop(L) - 1);
    lua_pop(L, 1);
  }
}

/* 1 is the context entered, 2 the one to go back to. */
static int run_done(lua_State *L, int status, lua_KContext extra) {
  (void)extra;
  context *c = lua_touserdata(L, 1), *outer = lua_touserdata(L, 2);
  c->entered--;
  c->by = NULL;
  outer->entered--;
  make_current(L, ag_self(L), 2);
  if (status != LUA_OK && status != LUA_YIELD)
    return lua_error(L);
  return lua_gettop(L) - 2;
}

/* context:run(f, ...): calls f(...) with the variables of the context; f may wait. */
static int context_run(lua_State *L) {
  ag_state *S = ag_self(L);
  context *c = check_context(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  push_current(L, S);
  context *outer = lua_touserdata(L, -1);
  if (c->entered > 0 || c == outer) /* by context:run, or it is the caller's own */
    return ag_error_raise(L, S, "RuntimeError", "cannot enter a context that is entered already");
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, 2);
  lua_insert(L, 2);
  make_current(L, S, 1);
  c->entered++;
  c->by = S->running != NULL ? S->running->task : NULL;
  outer->entered++;
  return run_done(L, lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 0, 0, run_done), 0);
}

void ag_context_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg variable_methods[] = {
      {"get", variable_get}, {"set", variable_set}, {"reset", variable_reset}, {"name", variable_name}, {NULL, NULL}};
  static const luaL_Reg variable_meta[] = {{"__tostring", variable_tostring}, {NULL, NULL}};
  static const luaL_Reg context_methods[] = {
      {"run", context_run}, {"copy", context_copy}, {"get", context_get}, {NULL, NULL}};
  static const luaL_Reg none[] = {{NULL, NULL}};
  static const luaL_Reg functions[] = {{"ContextVar", new_variable}, {"copy_context", copy_context}, {NULL, NULL}};
  S->mt_variable = ag_new_type(L, S, "ContextVar", variable_meta, variable_methods);
  S->mt_context = ag_new_type(L, S, "Context", none, context_methods);
  S->mt_token = ag_new_type(L, S, "Token", none, none);
  lua_newtable(L);
  new_context(L, S);
  S->outside = luaL_ref(L, LUA_REGISTRYINDEX);
  ag_setfuncs(L, S, functions);
}
