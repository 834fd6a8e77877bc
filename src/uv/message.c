/* Copying walks tables with the Lua stack for its own, two slots a level, so that depth costs no C stack. */
#include "uv/message.h"

#include <assert.h>
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_LIMIT = 100000, PATH_LIMIT = 12 };

enum tag { NIL, FALSE_, TRUE_, BYTE, INTEGER, FLOAT, SHORT_STRING, STRING, TABLE, SEEN, END };

void ag_message_free(ag_message *m) {
  free(m->data);
  memset(m, 0, sizeof *m);
}

/* ---- bytes ---- */

void ag_message_put_bytes(lua_State *L, ag_message *m, const void *bytes, size_t size) {
  if (size == 0)
    return;
  if (m->capacity - m->size < size) {
    size_t capacity = m->capacity < 64 ? 128 : m->capacity * 2;
    if (capacity - m->size < size)
      capacity = m->size + size;
    char *data = realloc(m->data, capacity);
    if (data == NULL)
      luaL_error(L, "not enough memory");
    m->data = data;
    m->capacity = capacity;
  }
  assert(m->data != NULL);
  memcpy(m->data + m->size, bytes, size);
  m->size += size;
}

const char *ag_message_get_bytes(ag_message *m, size_t size) {
  const char *bytes = m->data + m->read;
  m->read += size;
  return bytes;
}

void ag_message_put_integer(lua_State *L, ag_message *m, lua_Integer value) {
  ag_message_put_bytes(L, m, &value, sizeof value);
}

lua_Integer ag_message_get_integer(ag_message *m) {
  lua_Integer value;
  memcpy(&value, ag_message_get_bytes(m, sizeof value), sizeof value);
  return value;
}

static void put_tag(lua_State *L, ag_message *m, enum tag tag) {
  unsigned char byte = (unsigned char)tag;
  ag_message_put_bytes(L, m, &byte, 1);
}

static enum tag get_tag(ag_message *m) { return (enum tag) * (const unsigned char *)ag_message_get_bytes(m, 1); }

/* ---- where something cannot be copied ---- */

/* Replaces the text on top by one that goes on with the key at [index]. */
static void add_key(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TSTRING) {
    size_t n;
    const char *key = lua_tolstring(L, index, &n);
    bool name = n > 0 && n <= 60 && !isdigit((unsigned char)key[0]);
    for (size_t i = 0; i < n && name; i++)
      name = isalnum((unsigned char)key[i]) || key[i] == '_';
    if (name)
      lua_pushfstring(L, "%s.%s", lua_tostring(L, -1), key);
    else
      lua_pushfstring(L, "%s[\"%s\"]", lua_tostring(L, -1), n <= 60 ? key : "...");
  } else {
    const char *key = luaL_tolstring(L, index, NULL);
    lua_pushfstring(L, "%s[%s]", lua_tostring(L, -2), key);
    lua_remove(L, -2);
  }
  lua_replace(L, -2);
}

/* Pushes the path to the value whose tables and keys stand from [base] on, [depth] of them. */
static void push_path(lua_State *L, int base, int depth) {
  luaL_checkstack(L, 6, NULL);
  lua_pushliteral(L, "");
  for (int level = 0; level < depth; level++) {
    if (level == PATH_LIMIT && depth > PATH_LIMIT + 1) {
      lua_pushliteral(L, " ... ");
      lua_concat(L, 2);
      level = depth - 1;
    }
    add_key(L, base + 2 * level + 1);
  }
}

static bool refuse(lua_State *L, int base, int depth, const char *what) {
  push_path(L, base, depth);
  lua_pushfstring(L, "%s%s%s", lua_tostring(L, -1), depth > 0 ? " " : "", what);
  lua_replace(L, base);
  lua_settop(L, base);
  return false;
}

static bool refuse_type(lua_State *L, int base, int depth, const char *format, int index) {
  const char *what = lua_pushfstring(L, format, luaL_typename(L, index));
  return refuse(L, base, depth, what);
}

/* ---- writing ---- */

/* Appends what is not a table; false: it cannot be copied. */
static bool put_plain(lua_State *L, ag_message *m, int index) {
  switch (lua_type(L, index)) {
  case LUA_TNIL:
    put_tag(L, m, NIL);
    return true;
  case LUA_TBOOLEAN:
    put_tag(L, m, lua_toboolean(L, index) ? TRUE_ : FALSE_);
    return true;
  case LUA_TNUMBER:
    if (lua_isinteger(L, index)) {
      lua_Integer n = lua_tointeger(L, index);
      if (n >= 0 && n <= UINT8_MAX) {
        unsigned char bytes[2] = {BYTE, (unsigned char)n};
        ag_message_put_bytes(L, m, bytes, sizeof bytes);
      } else {
        put_tag(L, m, INTEGER);
        ag_message_put_integer(L, m, n);
      }
    } else {
      lua_Number n = lua_tonumber(L, index);
      put_tag(L, m, FLOAT);
      ag_message_put_bytes(L, m, &n, sizeof n);
    }
    return true;
  case LUA_TSTRING: {
    size_t n;
    const char *text = lua_tolstring(L, index, &n);
    if (n <= UINT8_MAX) {
      unsigned char bytes[2] = {SHORT_STRING, (unsigned char)n};
      ag_message_put_bytes(L, m, bytes, sizeof bytes);
    } else {
      put_tag(L, m, STRING);
      ag_message_put_integer(L, m, (lua_Integer)n);
    }
    ag_message_put_bytes(L, m, text, n);
    return true;
  }
  default:
    return false;
  }
}

/* Appends the beginning of the table on top, and nil for its first key to the stack; or the number of one seen before
** instead of the table, which it pops. Returns whether a table has begun. */
static bool begin_table(ag_copier *c) {
  lua_State *L = c->L;
  ag_message *m = c->message;
  if (!lua_istable(L, c->seen)) {
    lua_newtable(L);
    lua_replace(L, c->seen);
  }
  if (lua_rawgetp(L, c->seen, lua_topointer(L, -1)) == LUA_TNUMBER) {
    put_tag(L, m, SEEN);
    ag_message_put_integer(L, m, lua_tointeger(L, -1));
    lua_pop(L, 2);
    return false;
  }
  lua_pop(L, 1);
  lua_pushinteger(L, ++c->tables);
  lua_rawsetp(L, c->seen, lua_topointer(L, -2));
  put_tag(L, m, TABLE);
  ag_message_put_integer(L, m, (lua_Integer)lua_rawlen(L, -1));
  lua_pushnil(L);
  return true;
}

bool ag_copier_put(ag_copier *c, int index) {
  lua_State *L = c->L;
  ag_message *m = c->message;
  int base = lua_gettop(L) + 1;
  if (put_plain(L, m, index))
    return true;
  if (!lua_istable(L, index)) {
    lua_pushnil(L);
    return refuse_type(L, base, 0, "a %s cannot be copied", index);
  }
  lua_pushvalue(L, index);
  luaL_checkstack(L, 10, "values to copy");
  int depth = begin_table(c) ? 1 : 0;
  while (depth > 0) { /* the top: table, key */
    if (!lua_next(L, -2)) {
      put_tag(L, m, END);
      lua_pop(L, 1);
      depth--;
      continue;
    }
    if (!put_plain(L, m, -2)) /* so that the path ends with the table */
      return refuse_type(L, base, depth - 1, depth > 1 ? "has a %s for a key" : "a %s for a key", -2);
    if (put_plain(L, m, -1)) {
      lua_pop(L, 1);
    } else if (!lua_istable(L, -1)) {
      return refuse_type(L, base, depth, "is a %s", -1);
    } else if (depth == DEPTH_LIMIT || !lua_checkstack(L, 10)) {
      return refuse(L, base, depth, "is nested too deep");
    } else if (begin_table(c)) {
      depth++;
    }
  }
  return true;
}

/* ---- reading ---- */

static void get_plain(lua_State *L, ag_message *m, enum tag tag) {
  switch (tag) {
  case FALSE_:
  case TRUE_:
    lua_pushboolean(L, tag == TRUE_);
    break;
  case BYTE:
    lua_pushinteger(L, *(const unsigned char *)ag_message_get_bytes(m, 1));
    break;
  case INTEGER:
    lua_pushinteger(L, ag_message_get_integer(m));
    break;
  case FLOAT: {
    lua_Number n;
    memcpy(&n, ag_message_get_bytes(m, sizeof n), sizeof n);
    lua_pushnumber(L, n);
    break;
  }
  case SHORT_STRING:
  case STRING: {
    size_t n = tag == STRING ? (size_t)ag_message_get_integer(m) : *(const unsigned char *)ag_message_get_bytes(m, 1);
    lua_pushlstring(L, ag_message_get_bytes(m, n), n);
    break;
  }
  default:
    lua_pushnil(L);
  }
}

static void new_table(ag_copier *c) {
  lua_State *L = c->L;
  lua_Integer length = ag_message_get_integer(c->message);
  if (!lua_istable(L, c->seen)) {
    lua_newtable(L);
    lua_replace(L, c->seen);
  }
  lua_createtable(L, length < 65536 ? (int)length : 65536, 0); /* a length is only a hint: tables may have gaps */
  lua_pushvalue(L, -1);
  lua_rawseti(L, c->seen, ++c->tables);
}

void ag_copier_get(ag_copier *c) {
  lua_State *L = c->L;
  ag_message *m = c->message;
  int depth = 0;
  luaL_checkstack(L, 10, "values to copy");
  for (;;) { /* the top within a table: table */
    enum tag tag = get_tag(m);
    if (tag == END) {
      depth--;
    } else {
      if (depth > 0) {
        get_plain(L, m, tag);
        tag = get_tag(m);
      }
      if (tag == TABLE) {
        luaL_checkstack(L, 10, "values to copy");
        new_table(c);
        depth++;
        continue;
      }
      if (tag == SEEN)
        lua_rawgeti(L, c->seen, ag_message_get_integer(m));
      else
        get_plain(L, m, tag);
    }
    if (depth == 0)
      return;
    lua_rawset(L, -3);
  }
}

void ag_copier_begin(ag_copier *c, lua_State *L, ag_message *m) {
  lua_pushnil(L);
  c->L = L;
  c->message = m;
  c->seen = lua_gettop(L);
  c->tables = 0;
}
