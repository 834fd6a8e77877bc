/* Lua to JSON. The text grows in a block that a userdata holds, so that an error on the way frees it. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lualib.h>

#include "json/json.h"

#define TEXT "agather.json.Text"

typedef struct text {
  char *data;
  size_t length, size;
} text;

/* Where a value stands, for errors. */
typedef struct place {
  const struct place *outer; /* NULL: the value itself */
  const char *name;          /* or NULL for a place in a list */
  lua_Integer index;
  int depth;
} place;

/* Holds for one call. [metatable], [null]: stack indices of the array's metatable and the null value. */
typedef struct writer {
  lua_State *L;
  text *out;
  int metatable, null, indent;
  bool sort;
} writer;

static int text_gc(lua_State *L) {
  text *t = lua_touserdata(L, 1);
  free(t->data);
  *t = (text){NULL, 0, 0};
  return 0;
}

static void put(writer *w, const char *bytes, size_t n) {
  if (n == 0)
    return;
  text *t = w->out;
  if (t->length + n > t->size) {
    size_t size = t->size != 0 ? t->size : 256;
    while (size < t->length + n)
      size *= 2;
    char *data = realloc(t->data, size);
    if (data == NULL)
      luaL_error(w->L, "not enough memory");
    t->data = data;
    t->size = size;
  }
  memcpy(t->data + t->length, bytes, n);
  t->length += n;
}

static void put_line(writer *w, int depth) {
  if (w->indent == 0)
    return;
  put(w, "\n", 1);
  for (int i = 0; i < depth * w->indent; i++)
    put(w, " ", 1);
}

/* ---- errors ---- */

static void add_place(luaL_Buffer *b, const place *at) {
  if (at->outer == NULL)
    return;
  add_place(b, at->outer);
  if (at->depth > 8) { /* enough to find it */
    if (at->depth == 9)
      luaL_addstring(b, "...");
    return;
  }
  char number[32];
  if (at->name == NULL) {
    snprintf(number, sizeof number, "[%lld]", (long long)at->index);
    luaL_addstring(b, number);
  } else {
    luaL_addchar(b, '.');
    luaL_addstring(b, at->name);
  }
}

static void refuse(writer *w, const place *at, const char *what) {
  luaL_Buffer b;
  luaL_checkstack(w->L, 4, NULL);
  luaL_buffinit(w->L, &b);
  luaL_addstring(&b, at->outer != NULL ? "value" : "the value");
  add_place(&b, at);
  luaL_addchar(&b, ' ');
  luaL_addstring(&b, what);
  luaL_pushresult(&b);
  luaL_error(w->L, "%s", lua_tostring(w->L, -1));
}

/* ---- strings and numbers ---- */

/* The length of the UTF-8 sequence at [s], of which [n] bytes are there; 0 when it is none. */
static size_t utf8_length(const unsigned char *s, size_t n) {
  unsigned char c = s[0];
  size_t length = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
  if (length == 0 || length > n)
    return 0;
  for (size_t i = 1; i < length; i++)
    if ((s[i] & 0xC0) != 0x80)
      return 0;
  if ((c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] > 0x9F) || (c == 0xF0 && s[1] < 0x90) ||
      (c == 0xF4 && s[1] > 0x8F))
    return 0; /* too long, a surrogate, beyond the last */
  return length;
}

static void put_escape(writer *w, unsigned char c) {
  static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
  char escape[8] = "\\";
  const char *found = c != 0 ? strchr(from, c) : NULL;
  if (found != NULL)
    escape[1] = to[found - from];
  else
    snprintf(escape, sizeof escape, "\\u%04x", c);
  put(w, escape, strlen(escape));
}

static void put_string(writer *w, const place *at, const char *string, size_t n) {
  const unsigned char *s = (const unsigned char *)string;
  put(w, "\"", 1);
  size_t plain = 0; /* start of what is copied as it is */
  for (size_t i = 0; i < n;) {
    if (s[i] < 0x20 || s[i] == '"' || s[i] == '\\') {
      put(w, string + plain, i - plain);
      put_escape(w, s[i]);
      plain = ++i;
      continue;
    }
    size_t length = utf8_length(s + i, n - i);
    if (length == 0)
      refuse(w, at, "is not UTF-8");
    i += length;
  }
  put(w, string + plain, n - plain);
  put(w, "\"", 1);
}

static void put_number(writer *w, const place *at) {
  char digits[40];
  if (lua_isinteger(w->L, -1)) {
    snprintf(digits, sizeof digits, "%lld", (long long)lua_tointeger(w->L, -1));
    put(w, digits, strlen(digits));
    return;
  }
  double number = lua_tonumber(w->L, -1);
  if (!isfinite(number))
    refuse(w, at, isnan(number) ? "is nan, which JSON has not" : "is infinite, which JSON has not");
  for (int precision = 15; precision <= 17; precision++) { /* the shortest that reads back the same */
    snprintf(digits, sizeof digits, "%.*g", precision, number);
    if (strtod(digits, NULL) == number)
      break;
  }
  char *comma = strchr(digits, ','); /* some locales */
  if (comma != NULL)
    *comma = '.';
  if (strpbrk(digits, ".eE") == NULL)
    memcpy(digits + strlen(digits), ".0", 3); /* it stays a float */
  put(w, digits, strlen(digits));
}

/* ---- tables ---- */

/* Writes the value on top. [-0, +0, e] */
static void put_value(writer *w, const place *at);

/* Whether the table on top is an array, of [n] values: all its keys are 1 to n. An empty one is an object unless it is
** marked. */
static bool is_array(writer *w, const place *at, lua_Integer *n) {
  lua_State *L = w->L;
  bool marked = false;
  if (lua_getmetatable(L, -1)) {
    marked = lua_rawequal(L, -1, w->metatable);
    lua_pop(L, 1);
  }
  lua_Integer count = 0, most = 0, names = 0;
  for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) > 0) {
      count++;
      most = lua_tointeger(L, -2) > most ? lua_tointeger(L, -2) : most;
    } else if (lua_type(L, -2) == LUA_TSTRING) {
      names++;
    } else {
      refuse(w, at, "has a key that is neither a name nor a place in a list");
    }
  }
  if (names > 0 && (count > 0 || marked))
    refuse(w, at, "has names as well as places of a list");
  if (count != most)
    refuse(w, at, "is a list with holes; json.null stands for nothing");
  *n = count;
  return count > 0 || marked;
}

static void put_array(writer *w, const place *at, lua_Integer n) {
  put(w, "[", 1);
  for (lua_Integer i = 1; i <= n; i++) {
    const place inner = {at, NULL, i, at->depth + 1};
    if (i > 1)
      put(w, ",", 1);
    put_line(w, inner.depth);
    lua_rawgeti(w->L, -1, i);
    put_value(w, &inner);
    lua_pop(w->L, 1);
  }
  if (n > 0)
    put_line(w, at->depth);
  put(w, "]", 1);
}

/* Name and value stand on top. */
static void put_member(writer *w, const place *at, bool first) {
  size_t n;
  const char *name = lua_tolstring(w->L, -2, &n);
  const place inner = {at, name, 0, at->depth + 1};
  if (!first)
    put(w, ",", 1);
  put_line(w, inner.depth);
  put_string(w, &inner, name, n);
  put(w, w->indent != 0 ? ": " : ":", w->indent != 0 ? 2 : 1);
  put_value(w, &inner);
}

/* Replaces nothing; pushes the list of the names of the table on top, sorted. */
static void push_sorted_names(lua_State *L) {
  lua_newtable(L);
  lua_Integer n = 0;
  for (lua_pushnil(L); lua_next(L, -3) != 0; lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, -4, ++n);
  }
  luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 0);
  lua_getfield(L, -1, "sort");
  lua_remove(L, -2);
  lua_pushvalue(L, -2);
  lua_call(L, 1, 0);
}

static void put_object(writer *w, const place *at) {
  lua_State *L = w->L;
  bool first = true;
  put(w, "{", 1);
  if (w->sort) {
    push_sorted_names(L);
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= n; i++, first = false) {
      lua_rawgeti(L, -1, i);
      lua_pushvalue(L, -1);
      lua_rawget(L, -4);
      put_member(w, at, first);
      lua_pop(L, 2);
    }
    lua_pop(L, 1);
  } else {
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1), first = false)
      put_member(w, at, first);
  }
  if (!first)
    put_line(w, at->depth);
  put(w, "}", 1);
}

static void put_value(writer *w, const place *at) {
  lua_State *L = w->L;
  size_t n;
  lua_Integer length;
  if (at->depth >= JSON_MAX_DEPTH && lua_istable(L, -1))
    luaL_error(L, "nested deeper than %d levels, or within itself", JSON_MAX_DEPTH);
  luaL_checkstack(L, 10, "nested too deep");
  switch (lua_type(L, -1)) {
  case LUA_TSTRING: {
    const char *string = lua_tolstring(L, -1, &n);
    put_string(w, at, string, n);
    return;
  }
  case LUA_TNUMBER:
    put_number(w, at);
    return;
  case LUA_TBOOLEAN:
    put(w, lua_toboolean(L, -1) ? "true" : "false", lua_toboolean(L, -1) ? 4 : 5);
    return;
  case LUA_TTABLE:
    if (is_array(w, at, &length))
      put_array(w, at, length);
    else
      put_object(w, at);
    return;
  default:
    if (lua_isnil(L, -1) || lua_rawequal(L, -1, w->null)) {
      put(w, "null", 4);
      return;
    }
    lua_pushfstring(L, "is a %s, which JSON has not", luaL_typename(L, -1));
    refuse(w, at, lua_tostring(L, -1));
  }
}

/* encode(value, indent, sort): the text. */
static int json_encode(lua_State *L) {
  lua_settop(L, 3);
  luaL_getmetatable(L, JSON_ARRAY_TYPE);
  lua_getfield(L, LUA_REGISTRYINDEX, JSON_NULL_VALUE);
  text *out = lua_newuserdatauv(L, sizeof *out, 0);
  *out = (text){NULL, 0, 0};
  luaL_setmetatable(L, TEXT);
  writer w = {L, out, 4, 5, (int)luaL_optinteger(L, 2, 0), lua_toboolean(L, 3)};
  const place outermost = {NULL, NULL, 0, 0};
  lua_pushvalue(L, 1);
  put_value(&w, &outermost);
  lua_pushlstring(L, out->data, out->length);
  free(out->data); /* not at the next collection: it may be large */
  *out = (text){NULL, 0, 0};
  return 1;
}

void json_open_encode(lua_State *L) {
  static const luaL_Reg functions[] = {{"encode", json_encode}, {NULL, NULL}};
  luaL_newmetatable(L, TEXT);
  lua_pushcfunction(L, text_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
