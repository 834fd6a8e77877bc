/* What a job is sent: its function, with its upvalues or as the name of one in a module, and its arguments, as bytes.
** worker_state.c reads them. On the loop's thread. */
#include <string.h>

#include "uv/worker.h"

static int write_dump(lua_State *L, const void *bytes, size_t size, void *message) {
  ag_message_put_bytes(L, message, bytes, size);
  return 0;
}

/* Puts the Lua function at [index]. False: an upvalue cannot be copied, and a text on top says which. */
static bool put_function(ag_copier *c, int index) {
  lua_State *L = c->L;
  ag_message *m = c->message;
  ag_message_put_integer(L, m, FUNCTION_DUMPED);
  size_t at = m->size;
  ag_message_put_integer(L, m, 0);
  lua_pushvalue(L, index);
  lua_dump(L, write_dump, m, 0);
  lua_pop(L, 1);
  lua_Integer size = (lua_Integer)(m->size - at - sizeof size);
  memcpy(m->data + at, &size, sizeof size);
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  ag_message_put_integer(L, m, ar.nups);
  for (int i = 1; i <= ar.nups; i++) {
    const char *name = lua_getupvalue(L, index, i);
    int value = lua_gettop(L);
    lua_pushglobaltable(L);
    if (strcmp(name, "_ENV") == 0 || lua_rawequal(L, value, -1)) {
      ag_message_put_integer(L, m, UPVALUE_GLOBALS);
    } else if (lua_rawequal(L, value, index)) { /* it calls itself */
      ag_message_put_integer(L, m, UPVALUE_ITSELF);
    } else {
      ag_message_put_integer(L, m, UPVALUE_PLAIN);
      if (!ag_copier_put(c, value)) {
        const char *where = lua_tostring(L, -1);
        bool path = where[0] == '.' || where[0] == '[';
        lua_pushfstring(L, "upvalue '%s'%s%s", name, path ? "" : ": ", where);
        return false;
      }
    }
    lua_settop(L, value - 1);
  }
  return true;
}

/* Begins a job's input: kind, first place, and the function, a Lua function at 2 or a module at 2 and a name at 3.
** The copier's slot and the job are on top. False: as put_function. */
static bool job_begin(lua_State *L, ag_copier *c, enum job_kind kind, lua_Integer first) {
  job *j = ag_worker_job(L);
  ag_copier_begin(c, L, &j->input);
  ag_message_put_integer(L, &j->input, kind);
  ag_message_put_integer(L, &j->input, first);
  if (lua_isfunction(L, 2)) {
    luaL_argcheck(L, !lua_iscfunction(L, 2), 2, "Lua function expected");
    return put_function(c, 2);
  }
  luaL_checkstring(L, 2);
  ag_message_put_integer(L, &j->input, FUNCTION_NAMED);
  return ag_copier_put(c, 2) && ag_copier_put(c, 3);
}

/* nil, the number of the argument, and the text on top. */
static int refused(lua_State *L, lua_Integer argument) {
  lua_pushnil(L);
  lua_pushinteger(L, argument);
  lua_pushvalue(L, -3);
  return 3;
}

int ag_worker_call(lua_State *L) {
  int n = lua_gettop(L);
  ag_copier c;
  if (!job_begin(L, &c, JOB_CALL, 0))
    return refused(L, 1);
  ag_message_put_integer(L, c.message, n - 3);
  for (int i = 4; i <= n; i++)
    if (!ag_copier_put(&c, i))
      return refused(L, i - 2);
  lua_settop(L, c.seen - 1);
  return 1;
}

int ag_worker_map(lua_State *L) {
  lua_Integer first = luaL_checkinteger(L, 5), last = luaL_checkinteger(L, 6);
  ag_copier c;
  if (!job_begin(L, &c, JOB_MAP, first))
    return refused(L, 0);
  ag_message_put_integer(L, c.message, last - first + 1);
  for (lua_Integer i = first; i <= last; i++) {
    lua_geti(L, 4, i);
    if (!ag_copier_put(&c, lua_gettop(L)))
      return refused(L, i);
    lua_settop(L, c.seen);
  }
  lua_settop(L, c.seen - 1);
  return 1;
}
