/* Watching a file or folder for changes. What happened is kept in a bounded queue until a task takes it; where it is
** full, one event says that some were lost. */
#include <stdlib.h>
#include <string.h>

#include "uv/uv.h"

#define WATCHER "agather.Watcher"

enum { QUEUE_LIMIT = 1024 };

typedef struct event {
  struct event *next;
  const char *kind;
  char name[];
} event;

typedef struct watcher {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_fs_event_t handle;
  event *first, **last; /* last: where the next goes */
  const event *newest;
  size_t count, taken;
  int status; /* an error of the system's, to be raised once */
  char *path;
  bool lost;   /* some events are not in the queue */
  bool closed; /* for the script */
  bool open;   /* libuv has the handle */
  bool owned;  /* a userdata refers to it */
  ag_wait wait;
} watcher;

static void free_if_unused(watcher *w) {
  if (w->open || w->owned)
    return;
  free(w->path);
  free(w);
}

static void take_first(watcher *w) {
  event *e = w->first;
  w->first = e->next;
  if (w->first == NULL) {
    w->last = &w->first;
    w->newest = NULL;
  }
  w->count--;
  w->taken++;
  free(e);
}

static void on_close(uv_handle_t *handle) {
  watcher *w = handle->data;
  w->open = false;
  w->closed = true;
  while (w->first != NULL)
    take_first(w);
  ag_wake(&w->wait);
  free_if_unused(w);
}

static void shut(watcher *w) {
  if (w->closed)
    return;
  w->closed = true;
  uv_close((uv_handle_t *)&w->handle, on_close);
  ag_wake(&w->wait);
}

/* The system repeats itself, so what equals the newest event is none. */
static void add(watcher *w, const char *kind, const char *name) {
  if (w->newest != NULL && w->newest->kind == kind && strcmp(w->newest->name, name) == 0)
    return;
  size_t length = strlen(name);
  event *e = w->count < QUEUE_LIMIT ? malloc(sizeof *e + length + 1) : NULL;
  if (e == NULL) {
    w->lost = true;
    return;
  }
  e->next = NULL;
  e->kind = kind;
  memcpy(e->name, name, length + 1);
  *w->last = e;
  w->last = &e->next;
  w->newest = e;
  w->count++;
}

static void on_event(uv_fs_event_t *handle, const char *name, int events, int status) {
  static const char renamed[] = "rename", changed[] = "change";
  watcher *w = handle->data;
  if (status != 0)
    w->status = status;
  else
    add(w, events & UV_RENAME ? renamed : changed, name != NULL ? name : "");
  ag_wake(&w->wait);
}

static watcher *check_watcher(lua_State *L) {
  watcher *w = *(watcher **)luaL_checkudata(L, 1, WATCHER);
  if (w == NULL)
    ag_os_error(L, "EBADF", 9, "the watcher is closed", "fs.watch", NULL);
  return w;
}

static int watcher_gc(lua_State *L) {
  watcher **box = lua_touserdata(L, 1);
  watcher *w = *box;
  *box = NULL;
  if (w != NULL) {
    w->owned = false;
    if (w->open)
      shut(w);
    free_if_unused(w);
  }
  return 0;
}

static int watcher_close(lua_State *L) {
  shut(check_watcher(L));
  return 0;
}

/* fs_watch(path) */
static int fs_watch(lua_State *L) {
  size_t length;
  const char *path = luaL_checklstring(L, 1, &length);
  luaL_argcheck(L, strlen(path) == length, 1, "path contains a zero byte");
  uv_loop_t *loop = ag_uv_loop_for_handle(L, "fs.watch");
  watcher **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, WATCHER);
  watcher *w = calloc(1, sizeof *w);
  char *copy = w != NULL ? strdup(path) : NULL;
  if (copy == NULL) {
    free(w);
    return luaL_error(L, "not enough memory");
  }
  w->path = copy;
  w->last = &w->first;
  w->on_close = on_close;
  uv_fs_event_init(loop, &w->handle);
  w->handle.data = w;
  w->open = w->owned = true;
  *box = w;
  int status = uv_fs_event_start(&w->handle, on_event, path, 0);
  if (status != 0) {
    shut(w);
    return ag_uv_error(L, status, "fs.watch", path);
  }
  return 1;
}

static void cancel_wait(ag_wait *wait) { (void)wait; }

static int waited(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  watcher *w = check_watcher(L);
  if (w->closed)
    return ag_os_error(L, "EBADF", 9, "the watcher is closed", "fs.watch", w->path);
  int status = w->status;
  w->status = 0;
  if (status != 0)
    return ag_uv_error(L, status, "fs.watch", w->path);
  if (w->first != NULL) {
    const char *kind = w->first->kind;
    size_t taken = w->taken;
    lua_pushstring(L, w->first->name);
    lua_pushstring(L, kind);
    if (w->closed || w->taken != taken) { /* by a finalizer, or by whom it let run */
      lua_settop(L, 1);
      return waited(L, LUA_OK, 0);
    }
    take_first(w);
    lua_insert(L, -2);
    return 2;
  }
  if (w->lost) {
    w->lost = false;
    lua_pushliteral(L, "overflow");
    return 1;
  }
  if (ag_waiting(&w->wait))
    return ag_error(L, "RuntimeError", "fs.watch: another task waits already");
  w->wait.cancel = cancel_wait;
  return ag_suspend(L, &w->wait, 0, waited);
}

/* watcher:wait(): "change" or "rename" and the name; "overflow" when some were lost. */
static int watcher_wait(lua_State *L) {
  lua_settop(L, 1);
  return waited(L, LUA_OK, 0);
}

/* watcher:events(): an iterator over wait. */
static int watcher_events(lua_State *L) {
  check_watcher(L);
  lua_pushcfunction(L, watcher_wait);
  lua_pushvalue(L, 1);
  return 2;
}

void ag_open_watch(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"wait", watcher_wait}, {"events", watcher_events}, {"close", watcher_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", watcher_gc}, {"__close", watcher_close}, {NULL, NULL}};
  luaL_newmetatable(L, WATCHER);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, fs_watch);
  lua_setfield(L, -2, "fs_watch");
}
