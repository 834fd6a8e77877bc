/* agather_uv.h: for hosts with a libuv loop of their own, which from then on also runs agather's tasks.
**
** Nothing here is in the library: these functions are compiled into the host and use the host's libuv, whichever it is.
** agather keeps its own handles in a libuv loop of its own; in the host's there are six handles at most, and their
** [data] is what ag_uv_attach returned. A host that walks its loop (uv_walk) must leave those to ag_uv_detach.
**
**   ag_uv *bridge = ag_uv_attach(L, loop, uv);
**   ag_spawn(L, loop, 0);
**   ag_uv_update(bridge);
**   uv_run(uv, UV_RUN_DEFAULT);     runs tasks and what else is in uv, until nothing is left
**   ag_uv_detach(bridge);
**   ag_loop_destroy(L, loop);
**
** Where scripts use Lua's luv too, give it the same loop, luv_set_loop(L, uv), before they load it, and take away its
** function walk: luv 1.44 ends the process when the loop has handles that are not luv's, such as any of the host's. */
#ifndef AGATHER_UV_H
#define AGATHER_UV_H

#include <agather.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

typedef struct ag_uv ag_uv;

/* Makes uv_run of [uv] step [loop], once per turn of uv and when the loop wants it. [L] is the thread to step with: the
** main one, as a rule. Until no task is left the loop keeps uv_run from returning. NULL: no memory or no descriptors.
** Thread of [uv]; it must be that of the Lua state. [-0, +0, -] */
static inline ag_uv *ag_uv_attach(lua_State *L, ag_loop *loop, uv_loop_t *uv);
/* After the host has given the loop work (ag_spawn, ag_wake ...) outside of uv_run: keeps the next uv_run from
** returning before the work is done. Needless from within callbacks. */
static inline void ag_uv_update(ag_uv *bridge);
/* Ends it. The handles close, and the memory is given back, with the next turns of uv: run it before uv_loop_close.
** Call it before ag_loop_destroy, and not from within a task. */
static inline void ag_uv_detach(ag_uv *bridge);

/* ---- How it is done ---- */

/* A descriptor that is watched; gives itself back. The copy of the loop's own descriptor stays valid, and its number
** is nobody else's, when the loop closes its own. */
typedef struct ag_uv_watch {
  uv_poll_t poll;
  int copy;
} ag_uv_watch;

struct ag_uv {
  uv_prepare_t prepare; /* before uv waits: how long it may */
  uv_check_t check;     /* after it has waited: a step, if that is due */
  uv_timer_t timer;     /* the loop's next deadline */
  uv_idle_t idle;       /* active while a task is ready: uv does not wait */
  ag_uv_watch *watch;
  int fd;   /* what is watched, or -1 */
  int open; /* handles that are not closed yet, but for the watch */
  lua_State *L;
  ag_loop *loop;
  bool due, steps;
};

static inline void ag_uv_on_closed(uv_handle_t *handle) {
  ag_uv *bridge = (ag_uv *)handle->data;
  if (--bridge->open == 0)
    free(bridge);
}

static inline void ag_uv_on_unwatched(uv_handle_t *handle) {
  ag_uv_watch *watch = (ag_uv_watch *)(void *)handle; /* its first member */
  close(watch->copy);
  free(watch);
}

static inline void ag_uv_on_idle(uv_idle_t *handle) { (void)handle; }

static inline void ag_uv_on_timer(uv_timer_t *handle) { ((ag_uv *)handle->data)->due = true; }

static inline void ag_uv_on_poll(uv_poll_t *handle, int status, int events) {
  (void)status, (void)events;
  ((ag_uv *)handle->data)->due = true;
}

static inline void ag_uv_unwatch(ag_uv *bridge) {
  if (bridge->watch != NULL)
    uv_close((uv_handle_t *)&bridge->watch->poll, ag_uv_on_unwatched);
  bridge->watch = NULL;
  bridge->fd = -1;
}

/* Watches the descriptor that the loop has now. False: it cannot be watched. */
static inline bool ag_uv_rewatch(ag_uv *bridge) {
  int fd = ag_fd(bridge->loop);
  if (fd == bridge->fd)
    return true;
  ag_uv_unwatch(bridge);
  if (fd < 0)
    return true;
  ag_uv_watch *watch = (ag_uv_watch *)calloc(1, sizeof *watch);
  if (watch == NULL)
    return false;
  watch->copy = dup(fd);
  if (watch->copy < 0 || uv_poll_init(bridge->prepare.loop, &watch->poll, watch->copy) != 0) {
    if (watch->copy >= 0)
      close(watch->copy);
    free(watch);
    return false;
  }
  watch->poll.data = bridge;
  uv_poll_start(&watch->poll, UV_READABLE, ag_uv_on_poll);
  uv_unref((uv_handle_t *)&watch->poll);
  bridge->watch = watch;
  bridge->fd = fd;
  return true;
}

/* Lets uv wait as long as the loop may wait. */
static inline void ag_uv_arm(ag_uv *bridge) {
  double seconds = ag_timeout(bridge->loop);
  if (!ag_uv_rewatch(bridge) && (seconds < 0 || seconds > 0.02))
    seconds = 0.02; /* out of descriptors: look every so often */
  if (seconds == 0)
    uv_idle_start(&bridge->idle, ag_uv_on_idle);
  else
    uv_idle_stop(&bridge->idle);
  if (seconds > 0) {
    uv_update_time(bridge->prepare.loop);
    uv_timer_start(&bridge->timer, ag_uv_on_timer, seconds > 86400 ? 86400000 : (uint64_t)(seconds * 1000) + 1, 0);
  } else {
    uv_timer_stop(&bridge->timer);
  }
}

static inline void ag_uv_step(ag_uv *bridge) {
  if (bridge->steps) /* a task runs uv */
    return;
  bridge->due = false;
  bridge->steps = true;
  ag_status status = ag_step(bridge->L, bridge->loop);
  bridge->steps = false;
  if (status == AG_ERROR)
    lua_pop(bridge->L, 1); /* no memory: the next step goes on */
  if (status == AG_DONE || status == AG_CLOSED)
    uv_unref((uv_handle_t *)&bridge->prepare);
  else
    uv_ref((uv_handle_t *)&bridge->prepare);
  ag_uv_arm(bridge);
}

static inline void ag_uv_on_prepare(uv_prepare_t *handle) {
  ag_uv *bridge = (ag_uv *)handle->data;
  if (bridge->due || ag_timeout(bridge->loop) == 0 || ag_fd(bridge->loop) < 0) /* -1: closed, or to be looked at */
    ag_uv_step(bridge);
  else
    ag_uv_arm(bridge);
}

static inline void ag_uv_on_check(uv_check_t *handle) {
  ag_uv *bridge = (ag_uv *)handle->data;
  if (bridge->due)
    ag_uv_step(bridge);
}

/* Notes which libuv loop runs by itself, so that agather does not run luv where it uses the same. */
static inline int ag_uv_note(lua_State *L) {
  lua_setfield(L, LUA_REGISTRYINDEX, "agather.uv.host");
  return 0;
}

static inline ag_uv *ag_uv_attach(lua_State *L, ag_loop *loop, uv_loop_t *uv) {
  lua_pushcfunction(L, ag_uv_note);
  lua_pushinteger(L, uv_backend_fd(uv));
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    lua_pop(L, 1);
    return NULL;
  }
  ag_uv *bridge = (ag_uv *)calloc(1, sizeof *bridge);
  if (bridge == NULL)
    return NULL;
  bridge->L = L;
  bridge->loop = loop;
  bridge->fd = -1;
  bridge->open = 4;
  uv_prepare_init(uv, &bridge->prepare);
  uv_check_init(uv, &bridge->check);
  uv_timer_init(uv, &bridge->timer);
  uv_idle_init(uv, &bridge->idle);
  bridge->prepare.data = bridge->check.data = bridge->timer.data = bridge->idle.data = bridge;
  uv_unref((uv_handle_t *)&bridge->check);
  uv_unref((uv_handle_t *)&bridge->timer);
  uv_unref((uv_handle_t *)&bridge->idle);
  uv_prepare_start(&bridge->prepare, ag_uv_on_prepare);
  uv_check_start(&bridge->check, ag_uv_on_check);
  if (!ag_uv_rewatch(bridge)) {
    ag_uv_detach(bridge);
    return NULL;
  }
  ag_uv_update(bridge);
  return bridge;
}

static inline void ag_uv_update(ag_uv *bridge) {
  bridge->due = true;
  uv_ref((uv_handle_t *)&bridge->prepare);
  uv_idle_start(&bridge->idle, ag_uv_on_idle);
}

static inline void ag_uv_detach(ag_uv *bridge) {
  lua_pushnil(bridge->L);
  (void)ag_uv_note(bridge->L); /* takes no memory: the key is there */
  ag_uv_unwatch(bridge);
  uv_close((uv_handle_t *)&bridge->prepare, ag_uv_on_closed);
  uv_close((uv_handle_t *)&bridge->check, ag_uv_on_closed);
  uv_close((uv_handle_t *)&bridge->timer, ag_uv_on_closed);
  uv_close((uv_handle_t *)&bridge->idle, ag_uv_on_closed);
}

#endif
