/* Lua's read formats over a buffer that is filled in pieces. */
#include "uv/reader.h"

#include <stdint.h>
#include <string.h>

#include "agather.h"

enum { SHRINK_FROM = 8192 };

void ag_reader_init(ag_reader *r, ag_blocks *blocks) {
  memset(r, 0, sizeof *r);
  r->blocks = blocks;
  r->line_limit = AG_LINE_LIMIT;
  r->all_limit = SIZE_MAX;
}

static void drop_block(ag_reader *r) {
  ag_block_free(r->blocks, r->data, r->size);
  r->data = NULL;
  r->start = r->end = r->size = 0;
}

void ag_reader_clear(ag_reader *r) {
  drop_block(r);
  r->blocks = NULL;
}

char *ag_reader_room(ag_reader *r, size_t n) {
  size_t held = ag_reader_held(r);
  if (r->size - r->end >= n)
    return r->data + r->end;
  if (r->size - held >= n && r->start >= held) { /* moved no more often than what was taken has bytes */
    memcpy(r->data, r->data + r->start, held);
  } else {
    size_t size = held + n < 2 * r->size ? 2 * r->size : held + n;
    char *data = held + n < held ? NULL : ag_block_new(r->blocks, &size);
    if (data == NULL)
      return NULL;
    if (held > 0)
      memcpy(data, r->data + r->start, held);
    ag_block_free(r->blocks, r->data, r->size);
    r->data = data;
    r->size = size;
  }
  r->start = 0;
  r->end = held;
  return r->data + held;
}

bool ag_reader_add(ag_reader *r, const char *bytes, size_t n) {
  char *room = ag_reader_room(r, n);
  if (room == NULL)
    return false;
  memcpy(room, bytes, n);
  r->end += n;
  return true;
}

void ag_reader_give(ag_reader *r, char *block, size_t size, size_t n) {
  drop_block(r);
  r->data = block;
  r->size = size;
  r->end = n;
}

/* ---- arguments ---- */

void ag_check_count(lua_State *L, int arg) {
  luaL_argcheck(L, luaL_checkinteger(L, arg) >= 0, arg, "number of bytes must not be negative");
}

void ag_check_separator(lua_State *L, int arg) {
  size_t n;
  luaL_checklstring(L, arg, &n);
  luaL_argcheck(L, n > 0, arg, "separator must not be empty");
}

ag_read_kind ag_read_format(lua_State *L, int arg) {
  if (lua_type(L, arg) == LUA_TNUMBER) {
    ag_check_count(L, arg);
    return AG_READ_SOME;
  }
  const char *format = luaL_optstring(L, arg, "l");
  if (*format == '*')
    format++;
  switch (*format) {
  case 'l':
    return AG_READ_LINE;
  case 'L':
    return AG_READ_LINE_KEPT;
  case 'a':
    return AG_READ_ALL;
  default:
    luaL_argerror(L, arg, "invalid format (\"l\", \"L\", \"a\" or a number expected)");
    return AG_READ_LINE;
  }
}

/* ---- taking ---- */

/* What little is left of much goes into a block of its size: its stream may be silent for long. */
static void shrink(ag_reader *r) {
  size_t held = ag_reader_held(r), size = held;
  if (held > r->size / 16)
    return;
  char *data = ag_block_new(r->blocks, &size);
  if (data == NULL || size >= r->size) {
    ag_block_free(r->blocks, data, size);
    return;
  }
  memcpy(data, r->data + r->start, held);
  ag_block_free(r->blocks, r->data, r->size);
  r->data = data;
  r->start = 0;
  r->end = held;
  r->size = size;
}

/* Pushes the first [n] bytes and takes them and [skip] more. The string is made first: it may fail. */
static ag_taken take(lua_State *L, ag_reader *r, size_t n, size_t skip) {
  lua_pushlstring(L, n > 0 ? r->data + r->start : "", n);
  r->start += n + skip;
  r->taken += n + skip;
  if (r->start == r->end)
    drop_block(r);
  else if (r->size >= SHRINK_FROM)
    shrink(r);
  return AG_TAKEN;
}

static ag_taken take_nothing(lua_State *L) {
  lua_pushnil(L);
  return AG_TAKEN;
}

static const char *name_of(ag_read_kind kind) {
  return kind == AG_READ_EXACTLY ? "read_exactly" : kind == AG_READ_UNTIL ? "read_until" : "read";
}

/* The end came first: what is there goes into the error. */
static ag_taken incomplete(lua_State *L, ag_reader *r, ag_read_kind kind, int arg) {
  size_t held = ag_reader_held(r);
  if (kind == AG_READ_EXACTLY)
    lua_pushfstring(L, "read_exactly: the stream ended after %I of %I bytes", (LUAI_UACINT)held,
                    (LUAI_UACINT)lua_tointeger(L, arg));
  else
    lua_pushfstring(L, "read_until: the stream ended after %I bytes, before the separator", (LUAI_UACINT)held);
  ag_error_new(L, "IncompleteReadError");
  if (kind == AG_READ_EXACTLY) {
    lua_pushvalue(L, arg);
    lua_setfield(L, -2, "expected");
  }
  take(L, r, held, 0);
  lua_setfield(L, -2, "partial");
  lua_error(L);
  return AG_BROKEN;
}

static ag_taken overrun(lua_State *L, ag_read_kind kind, const char *found, size_t consumed, size_t limit) {
  lua_pushfstring(L, "%s: %s more than %I bytes (the limit)", name_of(kind), found, (LUAI_UACINT)limit);
  ag_error_new(L, "LimitOverrunError");
  lua_pushinteger(L, (lua_Integer)consumed);
  lua_setfield(L, -2, "consumed");
  lua_error(L);
  return AG_BROKEN;
}

/* The separator in data[from, held), or NULL. */
static const char *find(const char *data, size_t from, size_t held, const char *separator, size_t n) {
  const char *p = data + from, *end = data + held;
  while ((size_t)(end - p) >= n) {
    p = memchr(p, separator[0], (size_t)(end - p) - n + 1);
    if (p == NULL || memcmp(p, separator, n) == 0)
      return p;
    p++;
  }
  return NULL;
}

static ag_taken take_until(lua_State *L, ag_reader *r, ag_read_kind kind, int arg, const char *separator, size_t n,
                           size_t *searched) {
  size_t held = ag_reader_held(r);
  const char *data = held > 0 ? r->data + r->start : "";
  size_t from = *searched > r->taken ? *searched - r->taken : 0; /* another may have taken bytes meanwhile */
  const char *found = from < held ? find(data, from, held, separator, n) : NULL;
  if (found != NULL) {
    size_t before = (size_t)(found - data);
    if (before > r->line_limit)
      return overrun(L, kind, "the separator comes after", before, r->line_limit);
    return kind == AG_READ_LINE ? take(L, r, before, n) : take(L, r, before + n, 0);
  }
  if (held >= n && held - n + 1 > r->line_limit)
    return overrun(L, kind, "no separator in", held - n + 1, r->line_limit);
  if (r->status == AG_READ_END && kind == AG_READ_UNTIL)
    return incomplete(L, r, kind, arg);
  if (r->status == AG_READ_END)
    return held > 0 ? take(L, r, held, 0) : take_nothing(L);
  *searched = r->taken + (held >= n ? held - n + 1 : 0);
  r->wanted = held + 1;
  return AG_NEEDS_MORE;
}

static ag_taken take_kind(lua_State *L, ag_reader *r, ag_read_kind kind, int arg, size_t *searched) {
  size_t held = ag_reader_held(r);
  switch (kind) {
  case AG_READ_LINE:
  case AG_READ_LINE_KEPT:
    return take_until(L, r, kind, arg, "\n", 1, searched);
  case AG_READ_UNTIL: {
    size_t n;
    const char *separator = lua_tolstring(L, arg, &n);
    return take_until(L, r, kind, arg, separator, n, searched);
  }
  case AG_READ_SOME: {
    size_t n = (size_t)lua_tointeger(L, arg);
    if (held > 0)
      return take(L, r, held < n ? held : n, 0);
    if (r->status == AG_READ_END)
      return take_nothing(L);
    r->wanted = 1;
    return AG_NEEDS_MORE;
  }
  case AG_READ_EXACTLY: {
    size_t n = (size_t)lua_tointeger(L, arg);
    if (held >= n)
      return take(L, r, n, 0);
    if (n > r->all_limit)
      return overrun(L, kind, "asked for", held, r->all_limit);
    if (r->status == AG_READ_END)
      return incomplete(L, r, kind, arg);
    r->wanted = n;
    return AG_NEEDS_MORE;
  }
  case AG_READ_ALL:
    if (held > r->all_limit)
      return overrun(L, kind, "the stream has", held, r->all_limit);
    if (r->status == AG_READ_END)
      return take(L, r, held, 0);
    r->wanted = r->all_limit < SIZE_MAX ? r->all_limit + 1 : SIZE_MAX;
    return AG_NEEDS_MORE;
  }
  return AG_BROKEN;
}

ag_taken ag_reader_take(lua_State *L, ag_reader *r, ag_read_kind kind, int arg, size_t *searched) {
  ag_taken taken = take_kind(L, r, kind, arg, searched);
  return taken == AG_NEEDS_MORE && r->status != 0 ? AG_BROKEN : taken;
}

/* ---- limits ---- */

static void check_limit(lua_State *L, int arg, const char *name, size_t *limit) {
  if (lua_getfield(L, arg, name) != LUA_TNIL) {
    if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 1)
      luaL_argerror(
          L, arg,
          lua_pushfstring(L, "option '%s' must be a positive integer, got %s", name, luaL_tolstring(L, -1, NULL)));
    *limit = (size_t)lua_tointeger(L, -1);
  }
  lua_pop(L, 1);
}

void ag_check_limits(lua_State *L, int arg, ag_reader *r) {
  luaL_checktype(L, arg, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, arg) != 0; lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    if (strcmp(name, "line") != 0 && strcmp(name, "all") != 0) {
      lua_pushvalue(L, -2);
      luaL_argerror(L, arg, lua_pushfstring(L, "unknown option '%s'", luaL_tolstring(L, -1, NULL)));
    }
  }
  size_t line = r->line_limit, all = r->all_limit;
  check_limit(L, arg, "line", &line);
  check_limit(L, arg, "all", &all);
  r->line_limit = line;
  r->all_limit = all;
}
