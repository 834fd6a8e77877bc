/* uv.buffer(): Lua's read formats for streams that are written in Lua. feed it what came, finish it at the end, and
** take lines and the rest from it; take gives false where more is needed. */
#include <string.h>

#include "uv/reader.h"
#include "uv/uv.h"

#define BUFFER "agather.Buffer"

enum { FAILED = 2 }; /* the error to be raised is the user value */

static ag_reader *check_buffer(lua_State *L) { return luaL_checkudata(L, 1, BUFFER); }

/* uv.buffer(): an empty one. */
static int new_buffer(lua_State *L) {
  ag_reader *r = lua_newuserdatauv(L, sizeof *r, 1);
  ag_reader_init(r, NULL);
  luaL_setmetatable(L, BUFFER);
  return 1;
}

/* buffer:feed(bytes): returns how many it holds now. */
static int buffer_feed(lua_State *L) {
  ag_reader *r = check_buffer(L);
  size_t n;
  const char *bytes = luaL_checklstring(L, 2, &n);
  luaL_argcheck(L, r->status == 0 || n == 0, 2, "the buffer is finished");
  if (n > 0 && !ag_reader_add(r, bytes, n))
    return luaL_error(L, "not enough memory");
  lua_pushinteger(L, (lua_Integer)ag_reader_held(r));
  return 1;
}

/* buffer:finish([err]): nothing more comes; with an error, what is not there raises it. The first one counts. */
static int buffer_finish(lua_State *L) {
  ag_reader *r = check_buffer(L);
  lua_settop(L, 2);
  if (r->status != 0)
    return 0;
  r->status = lua_isnil(L, 2) ? AG_READ_END : FAILED;
  lua_setiuservalue(L, 1, 1);
  return 0;
}

/* A format of read, or "exactly" and "until", whose argument comes after it. */
static ag_read_kind check_kind(lua_State *L, int *arg) {
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  *arg = 3;
  if (strcmp(name, "exactly") == 0) {
    ag_check_count(L, 3);
    return AG_READ_EXACTLY;
  }
  if (strcmp(name, "until") == 0) {
    ag_check_separator(L, 3);
    return AG_READ_UNTIL;
  }
  *arg = 2;
  return ag_read_format(L, 2);
}

/* buffer:take([format] or "exactly", n or "until", separator): the string, nil at the end, false where more is needed
** and the number of bytes that the buffer must hold before another look makes sense. */
static int buffer_take(lua_State *L) {
  ag_reader *r = check_buffer(L);
  int arg;
  ag_read_kind kind = check_kind(L, &arg);
  lua_settop(L, 4); /* the fourth: where to search from, as the last take told */
  size_t searched = (size_t)luaL_optinteger(L, 4, 0);
  switch (ag_reader_take(L, r, kind, arg, &searched)) {
  case AG_TAKEN:
    return 1;
  case AG_BROKEN:
    lua_getiuservalue(L, 1, 1);
    return lua_error(L);
  case AG_NEEDS_MORE:
    break;
  }
  lua_pushboolean(L, 0);
  lua_pushinteger(L, r->wanted > LUA_MAXINTEGER ? LUA_MAXINTEGER : (lua_Integer)r->wanted);
  lua_pushinteger(L, (lua_Integer)searched);
  return 3;
}

/* buffer:finished(): whether finish was called. */
static int buffer_finished(lua_State *L) {
  lua_pushboolean(L, check_buffer(L)->status != 0);
  return 1;
}

/* buffer:set_limits{line=, all=}: most bytes of a line or up to a separator, and of "a" and "exactly". */
static int buffer_set_limits(lua_State *L) {
  ag_reader *r = check_buffer(L);
  ag_check_limits(L, 2, r);
  return 0;
}

static int buffer_length(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)ag_reader_held(check_buffer(L)));
  return 1;
}

/* Also buffer:clear(): forgets what it holds. */
static int buffer_gc(lua_State *L) {
  ag_reader_clear(check_buffer(L));
  return 0;
}

void ag_open_buffer(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"feed", buffer_feed},         {"finish", buffer_finish},         {"take", buffer_take}, {"clear", buffer_gc},
      {"finished", buffer_finished}, {"set_limits", buffer_set_limits}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", buffer_gc}, {"__len", buffer_length}, {NULL, NULL}};
  luaL_newmetatable(L, BUFFER);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, new_buffer);
  lua_setfield(L, -2, "buffer");
}
