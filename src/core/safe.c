/* Safe versions of Lua's functions, for restricted mode. Each gives up what a hook cannot stop: code that runs with
** hooks off (message handlers, finalizers), and C loops that a script can make as long as it likes. */
#include <lualib.h>
#include <string.h>

#include "core/error.h"
#include "core/limits.h"
#include "core/restrict.h"

enum { STRING_MAX = 16 << 20, CHUNK_MAX = 1 << 20, ELEMENTS_MAX = 10000000 };

static size_t cap(size_t set, size_t otherwise) { return set != 0 ? set : otherwise; }

static const ag_limits none;

static const ag_limits *limits_of(const ag_state *S) { return S->limiter != NULL ? &S->limiter->limits : &none; }

/* Goes on as the function at upvalue 2, with the arguments that were given: messages then name it rightly. */
static int call_original(lua_State *L) { return lua_tocfunction(L, lua_upvalueindex(2))(L); }

/* ---- base ---- */

/* collectgarbage("count") */
static int safe_collectgarbage(lua_State *L) {
  const char *option = luaL_optstring(L, 1, "collect");
  if (strcmp(option, "count") != 0)
    return luaL_argerror(L, 1, lua_pushfstring(L, "only 'count' is allowed here, got '%s'", option));
  lua_pushnumber(L, (lua_Number)lua_gc(L, LUA_GCCOUNT) + (lua_Number)lua_gc(L, LUA_GCCOUNTB) / 1024);
  return 1;
}

/* Metatables that scripts have set themselves are the keys of a weak table at upvalue 2. The others belong to the
** library and the host: were they handed out, a script could put a __gc into them. */

/* Pushes the metatable of the value at 1, if it has one, and says whether a script may see it. */
static bool known_metatable(lua_State *L) {
  if (!lua_getmetatable(L, 1)) {
    lua_pushnil(L);
    return true;
  }
  lua_pushvalue(L, -1);
  bool known = lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL;
  lua_pop(L, 1);
  return known;
}

/* setmetatable(table, metatable) without __gc: finalizers run with hooks off. */
static int safe_setmetatable(lua_State *L) {
  int type = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
  lua_settop(L, 2);
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL || !known_metatable(L))
    return luaL_error(L, "cannot change a protected metatable");
  lua_settop(L, 2);
  if (type == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL)
      return luaL_argerror(L, 2, "a metatable with __gc is not allowed here");
    lua_pushvalue(L, 2);
    lua_pushboolean(L, 1);
    lua_rawset(L, lua_upvalueindex(2));
    lua_settop(L, 2);
  }
  lua_setmetatable(L, 1);
  return 1;
}

/* getmetatable(v): false for a metatable that no script has set, but for error classes, which are known anyway. */
static int safe_getmetatable(lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  if (luaL_getmetafield(L, 1, "__metatable") == LUA_TNIL && !known_metatable(L) && !ag_error_is(L, ag_self(L), 1, NULL))
    lua_pushboolean(L, 0);
  return 1;
}

/* The text of a chunk at 1, a string or a function that gives pieces of one; replaces it. */
static void read_chunk(lua_State *L, ag_state *S) {
  size_t most = cap(limits_of(S)->chunk, CHUNK_MAX), size = 0;
  if (lua_type(L, 1) == LUA_TSTRING) {
    size = lua_rawlen(L, 1);
  } else {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (;;) {
      lua_pushvalue(L, 1);
      lua_call(L, 0, 1);
      size_t piece = 0;
      if (!lua_isnil(L, -1) && lua_tolstring(L, -1, &piece) == NULL)
        luaL_error(L, "reader function must return a string");
      if (piece == 0)
        break;
      size += piece;
      if (size > most)
        break;
      luaL_addvalue(&b);
    }
    lua_pop(L, 1);
    luaL_pushresult(&b);
    lua_replace(L, 1);
  }
  if (size > most)
    luaL_error(L, "chunk too large: the limit is %I bytes", (LUAI_UACINT)most);
}

/* load(chunk [, name [, mode [, env]]]): text only, of limited size. */
static int safe_load(lua_State *L) {
  ag_state *S = ag_self(L);
  bool has_env = !lua_isnone(L, 4);
  bool is_string = lua_type(L, 1) == LUA_TSTRING;
  luaL_checkany(L, 1);
  const char *name = luaL_optstring(L, 2, is_string ? lua_tostring(L, 1) : "=(load)");
  const char *mode = luaL_optstring(L, 3, "t");
  lua_settop(L, 4);
  if (strchr(mode, 't') == NULL) {
    lua_pushnil(L);
    lua_pushfstring(L, "attempt to load a text chunk (mode is '%s')", mode);
    return 2;
  }
  lua_pushstring(L, name); /* 5: [name] may be what is replaced */
  name = lua_tostring(L, 5);
  read_chunk(L, S);
  size_t size;
  const char *text = lua_tolstring(L, 1, &size);
  if (luaL_loadbufferx(L, text, size, name, "t") != LUA_OK) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (has_env) {
    lua_pushvalue(L, 4);
    lua_setupvalue(L, -2, 1); /* a text always has one */
  }
  return 1;
}

/* ---- xpcall: the handler is called when the error has unwound, as any function ---- */

enum { KEEPS_CANCELLATION = 1, HANDLED = 2 };

static int xpcall_done(lua_State *L, int status, lua_KContext flags) {
  bool ok = status == LUA_OK || status == LUA_YIELD;
  if (ok || (flags & HANDLED) != 0) {
    lua_pushboolean(L, ok && (flags & HANDLED) == 0);
    lua_replace(L, 1);
    return lua_gettop(L);
  }
  if ((flags & KEEPS_CANCELLATION) != 0) {
    ag_error_normalize(L, -1);
    if (ag_error_is(L, ag_self(L), -1, "CancelledError"))
      return lua_error(L);
  }
  lua_pushvalue(L, 1);
  lua_insert(L, -2);
  return xpcall_done(L, lua_pcallk(L, 1, LUA_MULTRET, 0, flags | HANDLED, xpcall_done), flags | HANDLED);
}

static int start_xpcall(lua_State *L, lua_KContext flags) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 1); /* handler, function, arguments */
  lua_copy(L, 2, 1);
  lua_replace(L, 2);
  return xpcall_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, flags, xpcall_done), flags);
}

/* xpcall(f, handler, ...) */
static int safe_xpcall(lua_State *L) { return start_xpcall(L, 0); }

/* agather.xpcall(f, handler, ...) */
static int safe_agather_xpcall(lua_State *L) { return start_xpcall(L, KEEPS_CANCELLATION); }

/* ---- string and table ---- */

static int too_large(lua_State *L, ag_state *S, const char *function, const char *name, size_t most) {
  lua_pushfstring(L, "%s: more than the %I %s that are allowed", function, (LUAI_UACINT)most,
                  name[0] == 's' ? "bytes" : name);
  ag_error_push(L, S, "LimitError");
  lua_pushstring(L, name);
  lua_setfield(L, -2, "limit");
  lua_pushinteger(L, (lua_Integer)most);
  lua_setfield(L, -2, "value");
  return lua_error(L);
}

/* string.rep(s, n [, sep]) */
static int safe_rep(lua_State *L) {
  ag_state *S = ag_self(L);
  size_t size, separator = 0;
  luaL_checklstring(L, 1, &size);
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_optlstring(L, 3, "", &separator);
  size_t most = cap(limits_of(S)->string, STRING_MAX);
  if (size + separator == 0) { /* nothing, however often: Lua's own would loop */
    lua_pushliteral(L, "");
    return 1;
  }
  if (n > 0 && (size_t)n > most / (size + separator))
    return too_large(L, S, "string.rep", "string", most);
  return call_original(L);
}

/* Raises when a call would pass over [from] to [to], both included. */
static void check_elements(lua_State *L, const char *function, lua_Integer from, lua_Integer to) {
  ag_state *S = ag_self(L);
  size_t most = cap(limits_of(S)->elements, ELEMENTS_MAX);
  if (to > from && (lua_Unsigned)to - (lua_Unsigned)from >= most)
    too_large(L, S, function, "elements", most);
}

/* The length of what may be a list; what is none the original refuses. */
static lua_Integer length(lua_State *L) {
  if (lua_istable(L, 1))
    return luaL_len(L, 1);
  if (luaL_getmetafield(L, 1, "__len") == LUA_TNIL)
    return 0;
  lua_pop(L, 1);
  return luaL_len(L, 1);
}

static int safe_concat(lua_State *L) {
  check_elements(L, "table.concat", luaL_optinteger(L, 3, 1),
                 lua_isnoneornil(L, 4) ? length(L) : luaL_checkinteger(L, 4));
  return call_original(L);
}

static int safe_insert(lua_State *L) {
  if (lua_gettop(L) == 3)
    check_elements(L, "table.insert", luaL_checkinteger(L, 2), length(L));
  return call_original(L);
}

static int safe_move(lua_State *L) {
  check_elements(L, "table.move", luaL_checkinteger(L, 2), luaL_checkinteger(L, 3));
  return call_original(L);
}

static int safe_remove(lua_State *L) {
  if (lua_gettop(L) > 1)
    check_elements(L, "table.remove", luaL_checkinteger(L, 2), length(L));
  return call_original(L);
}

static int safe_sort(lua_State *L) {
  check_elements(L, "table.sort", 1, length(L));
  return call_original(L);
}

/* ---- putting them in place ---- */

/* Replaces the function [name] of the table on top, which the new one calls. */
static void wrap(lua_State *L, ag_state *S, const char *name, lua_CFunction function) {
  lua_pushlightuserdata(L, S);
  lua_getfield(L, -2, name);
  lua_pushcclosure(L, function, 2);
  lua_setfield(L, -2, name);
}

void ag_safe_push_xpcall(lua_State *L, ag_state *S) {
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, safe_agather_xpcall, 1);
}

void ag_safe_functions(lua_State *L, ag_state *S) {
  static const luaL_Reg base[] = {
      {"collectgarbage", safe_collectgarbage}, {"load", safe_load}, {"xpcall", safe_xpcall}, {NULL, NULL}};
  static const luaL_Reg metatables[] = {
      {"setmetatable", safe_setmetatable}, {"getmetatable", safe_getmetatable}, {NULL, NULL}};
  static const luaL_Reg tables[] = {{"concat", safe_concat}, {"insert", safe_insert}, {"move", safe_move},
                                    {"remove", safe_remove}, {"sort", safe_sort},     {NULL, NULL}};
  ag_setfuncs(L, S, base);
  lua_pushlightuserdata(L, S);
  ag_push_weak_table(L, "k");
  luaL_setfuncs(L, metatables, 2);
  lua_getfield(L, -1, "string");
  wrap(L, S, "rep", safe_rep);
  lua_pop(L, 1);
  lua_getfield(L, -1, "table");
  for (const luaL_Reg *f = tables; f->name != NULL; f++)
    wrap(L, S, f->name, f->func);
  lua_pop(L, 1);
}

void ag_restrict_metatable(lua_State *L, ag_state *S) {
  if (!S->restricted)
    return;
  lua_pushliteral(L, "__gc");
  if (lua_rawget(L, -2) != LUA_TNIL) {
    lua_pushliteral(L, "__gc");
    lua_pushnil(L);
    lua_rawset(L, -4);
  }
  lua_pop(L, 1);
}
