/* The guest is asked through a function in Lua, look(readable), which returns the seconds that it can wait for, or nil
** where it wants nothing, and which schedules its turn on agather's loop when one is due. It is called on a thread of
** its own: a wait may come from any. */
#include "uv/guest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

struct ag_guest {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_poll_t poll;
  int copy;     /* of the guest's descriptor: valid whatever the guest does to its own */
  lua_State *L; /* a thread; the registry has [look] under its address */
  int anchor;   /* registry reference of the thread */
  bool readable, limits;
};

static const double nothing = -1;

static void on_poll(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  ((ag_guest *)poll->data)->readable = true;
}

/* Seconds, or [nothing]. The descriptor is watched, and keeps the reactor alive, while the guest wants anything. */
static double look(ag_guest *guest) {
  lua_State *L = guest->L;
  int top = lua_gettop(L); /* a finalizer in [look] may run the loop, which looks again: the stack is not ours alone */
  if (!lua_checkstack(L, 3))
    return 0.01;
  lua_rawgetp(L, LUA_REGISTRYINDEX, L);
  lua_pushboolean(L, guest->readable);
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_ERRMEM) {
    lua_settop(L, top);
    return 0.01; /* ask again soon */
  }
  guest->readable = false;
  double seconds = status == LUA_OK && lua_isnumber(L, -1) ? lua_tonumber(L, -1) : nothing;
  lua_settop(L, top);
  if (seconds == nothing)
    uv_poll_stop(&guest->poll);
  else if (!uv_is_active((uv_handle_t *)&guest->poll))
    uv_poll_start(&guest->poll, UV_READABLE, on_poll);
  return seconds;
}

double ag_guest_before(ag_guest *guest, double timeout) {
  if (guest == NULL)
    return timeout;
  double left = look(guest);
  guest->limits = false;
  if (left == nothing || (timeout >= 0 && timeout <= left))
    return timeout;
  guest->limits = true;
  return left;
}

void ag_guest_after(ag_guest *guest) {
  if (guest != NULL && (guest->readable || guest->limits))
    look(guest);
}

double ag_guest_timeout(ag_guest *guest) {
  double left = guest != NULL ? look(guest) : nothing;
  return isinf(left) ? -1 : left;
}

bool ag_guest_alive(ag_guest *guest) { return guest != NULL && look(guest) != nothing; }

/* Takes a thread and its function out of the registry. */
static void forget(lua_State *L, const lua_State *thread, int anchor) {
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, thread);
  luaL_unref(L, LUA_REGISTRYINDEX, anchor);
}

void ag_guest_leave(ag_guest *guest) {
  if (guest == NULL)
    return;
  uv_poll_stop(&guest->poll);
  forget(guest->L, guest->L, guest->anchor);
}

static void on_close(uv_handle_t *handle) {
  ag_guest *guest = (ag_guest *)handle->data;
  close(guest->copy);
  free(guest);
}

/* join(fd, look): the loop whose backend descriptor is [fd] gets its turns with the running loop. False: the host runs
** it already (see agather_uv.h). */
static int join(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_getfield(L, LUA_REGISTRYINDEX, "agather.uv.host");
  if (lua_isinteger(L, -1) && lua_tointeger(L, -1) == fd) {
    lua_pushboolean(L, false);
    return 1;
  }
  uv_loop_t *loop = ag_uv_loop(L, "join");
  lua_State *thread = lua_newthread(L);
  int anchor = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, thread);
  ag_guest *guest = calloc(1, sizeof *guest);
  if (guest == NULL) {
    forget(L, thread, anchor);
    return luaL_error(L, "not enough memory");
  }
  int copy = dup(fd);
  int status = copy >= 0 ? uv_poll_init(loop, &guest->poll, copy) : uv_translate_sys_error(errno);
  if (status != 0) {
    if (copy >= 0)
      close(copy);
    free(guest);
    forget(L, thread, anchor);
    return ag_uv_error(L, status, "join", NULL);
  }
  guest->on_close = on_close;
  guest->copy = copy;
  guest->L = thread;
  guest->anchor = anchor;
  guest->poll.data = guest;
  ag_uv_set_guest(loop, guest);
  lua_pushboolean(L, true);
  return 1;
}

void ag_open_guest(lua_State *L) {
  lua_pushcfunction(L, join);
  lua_setfield(L, -2, "join");
}
