/* JSON to Lua by jansson: integers stay integers of 64 bits. luaopen_agather_jansson; lua/agather/json.lua documents
** it.
** jansson's tree is held by a userdata while Lua values are made of it, so that an error in between, such as a lack of
** memory, frees it. */
#include <jansson.h>
#include <string.h>

#include "json/json.h"

#define TREE "agather.json.Tree"

static int tree_gc(lua_State *L) {
  json_t **root = lua_touserdata(L, 1);
  json_decref(*root);
  *root = NULL;
  return 0;
}

/* Pushes a value. [-0, +1, e] */
static void push_value(lua_State *L, json_t *value, int depth);

static void push_array(lua_State *L, json_t *value, int depth) {
  size_t n = json_array_size(value);
  lua_createtable(L, (int)n, 0);
  luaL_setmetatable(L, JSON_ARRAY_TYPE);
  for (size_t i = 0; i < n; i++) {
    push_value(L, json_array_get(value, i), depth);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static void push_object(lua_State *L, json_t *value, int depth) {
  lua_createtable(L, 0, (int)json_object_size(value));
  for (void *at = json_object_iter(value); at != NULL; at = json_object_iter_next(value, at)) {
    lua_pushstring(L, json_object_iter_key(at)); /* a name with NUL does not get here */
    push_value(L, json_object_iter_value(at), depth);
    lua_rawset(L, -3);
  }
}

static void push_value(lua_State *L, json_t *value, int depth) {
  if (depth >= JSON_MAX_DEPTH && (json_is_array(value) || json_is_object(value)))
    luaL_error(L, "nested deeper than %d levels", JSON_MAX_DEPTH);
  luaL_checkstack(L, 4, "JSON nested too deep");
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    push_object(L, value, depth + 1);
    break;
  case JSON_ARRAY:
    push_array(L, value, depth + 1);
    break;
  case JSON_STRING:
    lua_pushlstring(L, json_string_value(value), json_string_length(value));
    break;
  case JSON_INTEGER:
    lua_pushinteger(L, json_integer_value(value));
    break;
  case JSON_REAL:
    lua_pushnumber(L, json_real_value(value));
    break;
  case JSON_TRUE:
  case JSON_FALSE:
    lua_pushboolean(L, json_is_true(value));
    break;
  case JSON_NULL:
    lua_getfield(L, LUA_REGISTRYINDEX, JSON_NULL_VALUE);
    break;
  }
}

/* Refuses a zero byte, which jansson skips where it stands after a number. Says where. */
static int refuse_zero(lua_State *L, const char *text, const char *zero) {
  lua_Integer line = 1;
  const char *start = text;
  for (const char *p; (p = memchr(start, '\n', (size_t)(zero - start))) != NULL; start = p + 1)
    line++;
  lua_pushboolean(L, 0);
  lua_pushliteral(L, "zero byte");
  lua_pushinteger(L, line);
  lua_pushinteger(L, (lua_Integer)(zero - start) + 1);
  return 4;
}

/* decode(text): true and the value; or false, what is wrong, and the line and column where. */
static int json_decode(lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  lua_pushboolean(L, 1);
  json_t **root = lua_newuserdatauv(L, sizeof(void *), 0);
  *root = NULL;
  luaL_setmetatable(L, TREE);
  json_error_t error;
  *root = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
  if (*root == NULL) {
    if (json_error_code(&error) == json_error_out_of_memory)
      return luaL_error(L, "not enough memory");
    lua_pushboolean(L, 0);
    lua_pushstring(L, error.text);
    lua_pushinteger(L, error.line);
    lua_pushinteger(L, error.column);
    return 4;
  }
  const char *zero = memchr(text, 0, n);
  if (zero != NULL)
    return refuse_zero(L, text, zero);
  push_value(L, *root, 0);
  json_decref(*root); /* not at the next collection: it may be large */
  *root = NULL;
  lua_remove(L, -2);
  return 2;
}

static int null_tostring(lua_State *L) {
  lua_pushliteral(L, "null");
  return 1;
}

__attribute__((visibility("default"))) int luaopen_agather_jansson(lua_State *L);

int luaopen_agather_jansson(lua_State *L) {
  static const luaL_Reg functions[] = {{"decode", json_decode}, {NULL, NULL}};
  luaL_checkversion(L);
  luaL_newmetatable(L, TREE);
  lua_pushcfunction(L, tree_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, functions);
  json_open_encode(L);
  luaL_newmetatable(L, JSON_ARRAY_TYPE);
  lua_setfield(L, -2, "array_metatable");
  if (lua_getfield(L, LUA_REGISTRYINDEX, JSON_NULL_VALUE) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newuserdatauv(L, 0, 0);
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, null_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "json.null");
    lua_setfield(L, -2, "__name");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, JSON_NULL_VALUE);
  }
  lua_setfield(L, -2, "null");
  return 1;
}
