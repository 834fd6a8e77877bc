/* Error classes: Error and what is derived from it, in Lua tables so that scripts may derive their own. */
#include "core/error.h"

#include <stdarg.h>

#include "core/restrict.h"

static const char *const class_names[] = {"CancelledError",
                                          "TimeoutError",
                                          "InvalidStateError",
                                          "QueueEmpty",
                                          "QueueFull",
                                          "QueueShutDown",
                                          "BrokenBarrierError",
                                          "IncompleteReadError",
                                          "LimitOverrunError",
                                          "OSError",
                                          "DeadlockError",
                                          "KeyboardInterrupt",
                                          "ExceptionGroup",
                                          "RuntimeError",
                                          "LookupError",
                                          "LimitError",
                                          NULL};

/* Scripts derive classes of their own, and can make a circle of them. */
enum { PARENTS_MAX = 100 };

/* Marks the classes: a table is a class when it holds this key. */
static const char class_mark = 0;

/* Marks the objects that stand for another value, which was raised: it is their field value. Other objects may have a
** field of this name, too. */
static const char stands_mark = 0;

static bool is_class(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TTABLE)
    return false;
  bool found = lua_rawgetp(L, index, &class_mark) != LUA_TNIL;
  lua_pop(L, 1);
  return found;
}

static int error_tostring(lua_State *L) {
  lua_settop(L, 1);
  lua_pushliteral(L, "message");
  if (lua_type(L, 1) == LUA_TTABLE)
    lua_rawget(L, 1);
  else
    lua_pushnil(L);
  if (lua_isnil(L, -1) || (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) == 0)) {
    luaL_getmetafield(L, 1, "__name");
    return 1;
  }
  luaL_tolstring(L, -1, NULL);
  return 1;
}

/* __index of objects: fields of the class, and `value`, which is the object itself unless it wraps one. */
static int error_index(lua_State *L) {
  const char *key = lua_tostring(L, 2);
  if (key != NULL && key[0] == 'v' && lua_compare(L, 2, lua_upvalueindex(1), LUA_OPEQ)) {
    lua_settop(L, 1);
    if (lua_rawgetp(L, 1, &stands_mark) != LUA_TNIL)
      lua_pushnil(L);
    else
      lua_settop(L, 1);
    return 1;
  }
  lua_getmetatable(L, 1);
  lua_pushvalue(L, 2);
  lua_gettable(L, -2);
  return 1;
}

static void new_class(lua_State *L, ag_state *S, const char *name, int parent);

/* Class(message [, fields]) makes an object. */
static int class_call(lua_State *L) {
  lua_settop(L, 3);
  lua_createtable(L, 0, 2);
  if (lua_type(L, 3) == LUA_TTABLE) {
    for (lua_pushnil(L); lua_next(L, 3);) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, 4);
    }
  }
  lua_pushliteral(L, "message");
  if (lua_isnil(L, 2))
    lua_pushliteral(L, "");
  else
    lua_pushvalue(L, 2);
  lua_rawset(L, 4);
  lua_pushvalue(L, 1);
  ag_restrict_metatable(L, ag_state_open(L));
  lua_setmetatable(L, 4);
  return 1;
}

static int class_subclass(lua_State *L) {
  luaL_argcheck(L, is_class(L, 1), 1, "error class expected (call it as Class:subclass(name))");
  const char *name = luaL_checkstring(L, 2);
  new_class(L, ag_self(L), name, 1);
  return 1;
}

static int class_tostring(lua_State *L) {
  lua_getfield(L, 1, "__name");
  return 1;
}

static void new_class(lua_State *L, ag_state *S, const char *name, int parent) {
  static const luaL_Reg class_meta[] = {{"__call", class_call}, {"__tostring", class_tostring}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"subclass", class_subclass}, {NULL, NULL}};
  lua_createtable(L, 0, 8);
  lua_pushboolean(L, 1);
  lua_rawsetp(L, -2, &class_mark);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushstring(L, name);
  lua_setfield(L, -2, "name");
  lua_pushcfunction(L, error_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "value");
  lua_pushcclosure(L, error_index, 1);
  lua_setfield(L, -2, "__index");
  ag_setfuncs(L, S, methods);
  if (parent != 0) {
    lua_pushvalue(L, parent);
    lua_setfield(L, -2, "parent");
  }
  lua_createtable(L, 0, 2);
  ag_setfuncs(L, S, class_meta);
  if (parent != 0) {
    /* What a script adds to a class is seen in the classes derived from it. */
    lua_pushvalue(L, parent);
    lua_setfield(L, -2, "__index");
  }
  lua_setmetatable(L, -2);
}

bool ag_error_is(lua_State *L, ag_state *S, int index, const char *name) {
  index = lua_absindex(L, index);
  if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
    return false;
  if (!is_class(L, -1)) {
    lua_pop(L, 1);
    return false;
  }
  if (name == NULL) {
    lua_pop(L, 1);
    return true;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->errors);
  lua_getfield(L, -1, name);
  lua_replace(L, -2); /* object's class, wanted class */
  bool found = false;
  for (int depth = 0; depth < PARENTS_MAX && lua_istable(L, -2); depth++) {
    if (lua_rawequal(L, -1, -2)) {
      found = true;
      break;
    }
    lua_pushliteral(L, "parent");
    lua_rawget(L, -3);
    lua_replace(L, -3);
  }
  lua_pop(L, 2);
  return found;
}

/* is_error(v [, class]): whether v is an error object (of that class). */
static int is_error(lua_State *L) {
  if (lua_isnoneornil(L, 2)) {
    lua_pushboolean(L, ag_error_is(L, ag_self(L), 1, NULL));
    return 1;
  }
  luaL_argcheck(L, is_class(L, 2), 2, "error class expected");
  if (!ag_error_is(L, ag_self(L), 1, NULL)) {
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_settop(L, 2);
  lua_getmetatable(L, 1);
  for (int depth = 0; depth < PARENTS_MAX && lua_istable(L, 3); depth++) {
    if (lua_rawequal(L, 2, 3)) {
      lua_pushboolean(L, 1);
      return 1;
    }
    lua_pushliteral(L, "parent");
    lua_rawget(L, 3);
    lua_replace(L, 3);
  }
  lua_pushboolean(L, 0);
  return 1;
}

/* error_object(value [, traceback]): the error object for a value that was raised. */
static int error_object(lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 2);
  ag_error_wrap(L, ag_self(L), 1);
  if (lua_isnil(L, 2))
    return 1;
  if (lua_getfield(L, 3, "traceback") == LUA_TNIL) {
    lua_pushvalue(L, 2);
    lua_setfield(L, 3, "traceback");
  }
  lua_settop(L, 3);
  return 1;
}

void ag_error_push(lua_State *L, ag_state *S, const char *name) {
  lua_createtable(L, 0, 2);
  lua_insert(L, -2);
  lua_setfield(L, -2, "message");
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->errors);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
  ag_restrict_metatable(L, S);
  lua_setmetatable(L, -2);
}

int ag_error_raise(lua_State *L, ag_state *S, const char *name, const char *format, ...) {
  va_list args;
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  ag_error_push(L, S, name);
  lua_error(L);
}

static int to_text(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

void ag_error_message(lua_State *L, int index) {
  if (lua_isstring(L, index)) {
    luaL_tolstring(L, index, NULL);
  } else if (luaL_getmetafield(L, index, "__tostring") != LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushcfunction(L, to_text); /* the script's own, which may fail */
    lua_pushvalue(L, index);
    lua_pcall(L, 1, 1, 0);
    if (lua_type(L, -1) != LUA_TSTRING) {
      lua_pop(L, 1);
      lua_pushliteral(L, "(error object that has no text)");
    }
  } else {
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, index));
  }
}

void ag_error_wrap(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  if (ag_error_is(L, S, index, NULL)) {
    lua_pushvalue(L, index);
    return;
  }
  if (is_class(L, index)) { /* raise(Class) is raise(Class()) */
    lua_pushvalue(L, index);
    ag_error_normalize(L, -1);
    return;
  }
  ag_error_message(L, index);
  ag_error_push(L, S, "Error");
  lua_pushvalue(L, index);
  lua_setfield(L, -2, "value");
  lua_pushboolean(L, true);
  lua_rawsetp(L, -2, &stands_mark);
}

void ag_error_normalize(lua_State *L, int index) {
  if (!is_class(L, index))
    return;
  index = lua_absindex(L, index);
  lua_pushcfunction(L, class_call);
  lua_pushvalue(L, index);
  lua_call(L, 1, 1);
  lua_replace(L, index);
}

void ag_error_unwrap(lua_State *L) {
  if (lua_type(L, -1) != LUA_TTABLE)
    return;
  bool stands = lua_rawgetp(L, -1, &stands_mark) != LUA_TNIL;
  lua_pop(L, 1);
  if (!stands)
    return;
  lua_pushliteral(L, "value");
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

void ag_errors_open(lua_State *L, ag_state *S) {
  static const luaL_Reg functions[] = {{"is_error", is_error}, {"error_object", error_object}, {NULL, NULL}};
  int module = lua_gettop(L);
  lua_createtable(L, 0, 20);
  int classes = lua_gettop(L);
  new_class(L, S, "Error", 0);
  int base = lua_gettop(L);
  lua_pushvalue(L, base);
  lua_setfield(L, classes, "Error");
  lua_pushvalue(L, base);
  lua_setfield(L, module, "Error");
  for (int i = 0; class_names[i] != NULL; i++) {
    new_class(L, S, class_names[i], base);
    lua_pushvalue(L, -1);
    lua_setfield(L, classes, class_names[i]);
    lua_setfield(L, module, class_names[i]);
  }
  lua_getfield(L, classes, "OSError"); /* what is wrong with a connection can be caught as one */
  new_class(L, S, "TLSError", lua_gettop(L));
  lua_pushvalue(L, -1);
  lua_setfield(L, classes, "TLSError");
  lua_setfield(L, module, "TLSError");
  lua_pop(L, 2);
  S->errors = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushliteral(L, "");
  ag_error_push(L, S, "CancelledError");
  S->cancelled = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushliteral(L, "not enough memory");
  lua_pushvalue(L, -1);
  ag_error_push(L, S, "Error");
  lua_insert(L, -2);
  lua_setfield(L, -2, "value");
  lua_pushboolean(L, true);
  lua_rawsetp(L, -2, &stands_mark);
  S->no_memory = luaL_ref(L, LUA_REGISTRYINDEX);
  ag_setfuncs(L, S, functions);
}
