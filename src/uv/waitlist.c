/* A list of waiting tasks whose nodes belong to Lua. */
#include "uv/waitlist.h"

#include <string.h>

#define WAITER "agather.Waiter"

typedef struct ag_waiter {
  ag_wait wait;
  ag_waitlist *list; /* NULL when it is on none */
  struct ag_waiter *next;
  size_t until;
} waiter;

static void unlink_waiter(waiter *w) {
  if (w->list == NULL)
    return;
  waiter **place = &w->list->first;
  while (*place != w)
    place = &(*place)->next;
  *place = w->next;
  w->list = NULL;
}

static void cancel_waiter(ag_wait *wait) { unlink_waiter((waiter *)wait); }

static int waiter_gc(lua_State *L) {
  unlink_waiter(lua_touserdata(L, 1));
  return 0;
}

void ag_waitlist_prepare(lua_State *L) {
  waiter *w = lua_newuserdatauv(L, sizeof *w, 0);
  memset(w, 0, sizeof *w);
  luaL_setmetatable(L, WAITER);
}

int ag_waitlist_suspend(lua_State *L, ag_waitlist *list, size_t until, lua_KContext context, lua_KFunction k) {
  waiter *w = lua_touserdata(L, -1);
  waiter **last = &list->first;
  while (*last != NULL)
    last = &(*last)->next;
  *last = w;
  w->list = list;
  w->until = until;
  w->wait.cancel = cancel_waiter;
  return ag_suspend(L, &w->wait, context, k);
}

void ag_waitlist_wake(ag_waitlist *list, size_t level) {
  waiter **place = &list->first;
  while (*place != NULL) {
    waiter *w = *place;
    if (level > w->until) {
      place = &w->next;
      continue;
    }
    *place = w->next;
    w->list = NULL;
    ag_wake(&w->wait);
  }
}

void ag_open_waitlist(lua_State *L) {
  static const luaL_Reg meta[] = {{"__gc", waiter_gc}, {NULL, NULL}};
  luaL_newmetatable(L, WAITER);
  luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
}
