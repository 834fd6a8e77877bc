/* The loop: iterations as asyncio's, timers, the clock, handles, and its methods for scripts. */
#include "core/loop.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/report.h"
#include "core/task.h"

/* A scheduled callback: user value 1 is the function, the arguments follow. */
typedef struct ag_handle {
  ag_timer timer;
  uint32_t loop;
  int slot; /* kept while scheduled */
  bool cancelled;
  double when;
  int nargs;
} ag_handle;

static double monotonic(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double ag_loop_time(const ag_loop *loop) { return loop->is_virtual ? loop->virtual_now : monotonic(); }

ag_loop *ag_loop_find(ag_state *S, uint32_t id) {
  if (S->running != NULL && S->running->id == id) return S->running;
  for (ag_link *l = S->loops.next; l != &S->loops; l = l->next) {
    ag_loop *loop = ag_container(l, ag_loop, among);
    if (loop->id == id) return loop;
  }
  return NULL;
}

ag_loop *ag_loop_check(lua_State *L, ag_state *S, const char *what) {
  if (S->running == NULL)
    ag_error_raise(L, S, "RuntimeError", "%s: no running event loop (call it inside agather.run)", what);
  return S->running;
}

ag_loop *ag_loop_new(lua_State *L, ag_state *S, bool is_virtual, bool debug) {
  ag_loop *loop = lua_newuserdatauv(L, sizeof *loop, 0);
  memset(loop, 0, sizeof *loop);
  loop->S = S;
  ag_link_init(&loop->among);
  ag_link_init(&loop->ready);
  ag_link_init(&loop->current);
  loop->closed = true;
  loop->is_virtual = is_virtual;
  loop->debug = debug;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_loop);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  loop->slot = ag_keep(L, S);
  loop->poller = ag_sleeper_new();
  if (loop->poller == NULL) {
    ag_drop(L, S, loop->slot);
    luaL_error(L, "agather: cannot make a poller");
  }
  loop->id = ++S->next_loop;
  loop->closed = false;
  ag_list_append(&S->loops, &loop->among);
  return loop;
}

/* ---- running ---- */

static void due_timers(ag_loop *loop) {
  double now = ag_loop_time(loop) + 1e-9;
  while (loop->timers.count > 0 && loop->timers.heap[0].when < now)
    ag_loop_ready(loop, &ag_timer_pop(&loop->timers)->node);
}

static int run_current(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  lua_settop(L, 0);
  while (!ag_list_empty(&loop->current)) {
    ag_node *node = ag_container(loop->current.next, ag_node, link);
    ag_link_remove(&node->link);
    node->run(loop, L, node);
    lua_settop(L, 0);
  }
  return 0;
}

/* Answers SIGINT: the first cancels the main task, another raises. */
static void answer_interrupts(lua_State *L, ag_loop *loop);

bool ag_loop_iterate(lua_State *L, ag_loop *loop, bool block) {
  if (ag_list_empty(&loop->current)) {
    if (loop->suspects) ag_report_suspects(L, loop, false);
    if (loop->interrupts != 0) answer_interrupts(L, loop);
    bool idle = ag_list_empty(&loop->ready);
    if (idle && block) {
      if (loop->timers.count > 0) {
        double when = loop->timers.heap[0].when;
        if (loop->is_virtual) {
          if (loop->poller->alive(loop->poller)) loop->poller->wait(loop->poller, 0);
          if (ag_list_empty(&loop->ready) && when > loop->virtual_now) loop->virtual_now = when;
        } else {
          double timeout = when - monotonic();
          loop->poller->wait(loop->poller, timeout > 0 ? timeout : 0);
        }
      } else if (!loop->poller->alive(loop->poller)) {
        return false;
      } else {
        loop->poller->wait(loop->poller, -1);
      }
    } else if (loop->has_io) {
      /* Tasks are ready: the system is asked only every so often, but no later than this. */
      double now = monotonic();
      if (now - loop->looked > 50e-6) {
        loop->poller->wait(loop->poller, 0);
        loop->looked = now;
      }
    }
    if (loop->interrupts != 0) answer_interrupts(L, loop);
    if (loop->timers.count > 0) due_timers(loop);
    ag_list_splice(&loop->current, &loop->ready);
  }
  lua_pushcfunction(L, run_current);
  lua_pushlightuserdata(L, loop);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    if (ag_error_is(L, loop->S, -1, "KeyboardInterrupt")) lua_error(L);
    ag_report(L, loop, "Exception in callback", 0);
  }
  return true;
}

void ag_loop_run(lua_State *L, ag_loop *loop, bool deadlock) {
  loop->stopping = false;
  while (!loop->stopping) {
    if (!ag_loop_iterate(L, loop, true)) {
      if (deadlock) return;
      loop->poller->wait(loop->poller, -1); /* run_forever: only a signal or stop can end this */
    }
  }
  loop->stopping = false;
}

static void answer_interrupts(lua_State *L, ag_loop *loop) {
  int n = loop->interrupts;
  if (n == 1 && !loop->interrupted && loop->main != 0) {
    loop->interrupted = true;
    ag_push_kept(L, loop->S, loop->main);
    lua_rawgeti(L, LUA_REGISTRYINDEX, loop->S->cancelled);
    ag_cancel(L, loop->S, -2);
    lua_pop(L, 1);
  }
  if (n >= 2) {
    loop->interrupts = 0;
    lua_pushliteral(L, "interrupted");
    ag_error_push(L, loop->S, "KeyboardInterrupt");
    lua_error(L);
  }
}

void ag_loop_close(lua_State *L, ag_loop *loop) {
  if (loop->closed) return;
  loop->closed = true;
  ag_link_remove(&loop->among);
  while (!ag_list_empty(&loop->current)) ag_link_remove(loop->current.next);
  while (!ag_list_empty(&loop->ready)) ag_link_remove(loop->ready.next);
  ag_timers_clear(&loop->timers);
  ag_poller *poller = loop->poller;
  loop->poller = NULL;
  poller->close(poller);
  ag_drop(L, loop->S, loop->handler);
  ag_drop(L, loop->S, loop->slot);
  loop->handler = loop->slot = 0;
}

/* ---- methods ---- */

static ag_loop *check_loop(lua_State *L) {
  ag_state *S = ag_self(L);
  void *p = lua_touserdata(L, 1);
  if (p != NULL && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_loop);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (same) return p;
  }
  luaL_typeerror(L, 1, "Loop");
  return NULL;
}

static ag_loop *check_open(lua_State *L) {
  ag_loop *loop = check_loop(L);
  if (loop->closed) ag_error_raise(L, loop->S, "RuntimeError", "Event loop is closed");
  return loop;
}

static void handle_run(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_handle *handle = ag_container(node, ag_handle, timer.node);
  int slot = handle->slot;
  handle->slot = 0;
  ag_push_kept(L, loop->S, slot);
  ag_drop(L, loop->S, slot);
  int self = lua_gettop(L);
  luaL_checkstack(L, handle->nargs + 4, "too many arguments");
  for (int i = 0; i <= handle->nargs; i++) lua_getiuservalue(L, self, i + 1);
  ag_task *outer = loop->task;
  loop->task = NULL;
  int status = lua_pcall(L, handle->nargs, 0, 0);
  loop->task = outer;
  if (status != LUA_OK) {
    lua_getiuservalue(L, self, 1);
    ag_push_site(L, loop->S, -1);
    const char *message = lua_pushfstring(L, "Exception in callback %s", lua_tostring(L, -1));
    ag_error_wrap(L, loop->S, self + 1);
    ag_report(L, loop, message, 0);
  }
}

static int schedule(lua_State *L, ag_loop *loop, int fn, double when, bool timed) {
  luaL_checktype(L, fn, LUA_TFUNCTION);
  int nargs = lua_gettop(L) - fn;
  ag_handle *handle = lua_newuserdatauv(L, sizeof *handle, nargs + 1);
  memset(handle, 0, sizeof *handle);
  ag_link_init(&handle->timer.node.link);
  handle->timer.node.run = handle_run;
  handle->loop = loop->id;
  handle->nargs = nargs;
  handle->when = when;
  for (int i = 0; i <= nargs; i++) {
    lua_pushvalue(L, fn + i);
    lua_setiuservalue(L, -2, i + 1);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, loop->S->mt_handle);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  handle->slot = ag_keep(L, loop->S);
  if (!timed) {
    ag_loop_ready(loop, &handle->timer.node);
  } else if (!ag_timer_start(&loop->timers, &handle->timer, when)) {
    ag_drop(L, loop->S, handle->slot);
    return luaL_error(L, "not enough memory");
  }
  return 1;
}

static int loop_call_soon(lua_State *L) {
  ag_loop *loop = check_open(L);
  return schedule(L, loop, 2, 0, false);
}

ag_poller *ag_loop_poller(ag_loop *loop) { return loop->poller; }

void ag_loop_set_poller(ag_loop *loop, ag_poller *poller) {
  ag_poller *old = loop->poller;
  loop->poller = poller;
  loop->has_io = true;
  if (old != NULL) old->close(old);
}

ag_loop *ag_running_loop(lua_State *L, const char *what) { return ag_loop_check(L, ag_state_open(L), what); }

static double check_time(lua_State *L, int arg) {
  double t = luaL_checknumber(L, arg);
  luaL_argcheck(L, !isnan(t), arg, "number expected, got nan");
  return t;
}

static int loop_call_later(lua_State *L) {
  ag_loop *loop = check_open(L);
  double delay = check_time(L, 2);
  return schedule(L, loop, 3, ag_loop_time(loop) + delay, true);
}

static int loop_call_at(lua_State *L) {
  ag_loop *loop = check_open(L);
  return schedule(L, loop, 3, check_time(L, 2), true);
}

static ag_handle *check_handle(lua_State *L) {
  ag_state *S = ag_self(L);
  void *p = lua_touserdata(L, 1);
  if (p != NULL && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_handle);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (same) return p;
  }
  luaL_typeerror(L, 1, "Handle");
  return NULL;
}

static int handle_cancel(lua_State *L) {
  ag_handle *handle = check_handle(L);
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_find(S, handle->loop);
  if (handle->cancelled) return 0;
  handle->cancelled = true;
  ag_link_remove(&handle->timer.node.link);
  if (loop != NULL) ag_timer_stop(&loop->timers, &handle->timer);
  ag_drop(L, S, handle->slot);
  handle->slot = 0;
  return 0;
}

static int handle_cancelled(lua_State *L) {
  lua_pushboolean(L, check_handle(L)->cancelled);
  return 1;
}

static int handle_when(lua_State *L) {
  lua_pushnumber(L, check_handle(L)->when);
  return 1;
}

static int loop_time(lua_State *L) {
  lua_pushnumber(L, ag_loop_time(check_loop(L)));
  return 1;
}

static int loop_create_future(lua_State *L) {
  ag_loop *loop = check_open(L);
  ag_future_new(L, loop, sizeof(ag_future), AG_FUTURE);
  return 1;
}

static int loop_stop(lua_State *L) {
  check_loop(L)->stopping = true;
  return 0;
}

static int loop_is_running(lua_State *L) {
  lua_pushboolean(L, check_loop(L)->running);
  return 1;
}

static int loop_is_closed(lua_State *L) {
  lua_pushboolean(L, check_loop(L)->closed);
  return 1;
}

static int loop_close(lua_State *L) {
  ag_loop *loop = check_loop(L);
  if (loop->running) return ag_error_raise(L, loop->S, "RuntimeError", "Cannot close a running event loop");
  if (!loop->closed) {
    ag_report_suspects(L, loop, true);
    ag_loop_close(L, loop);
  }
  return 0;
}

static int loop_gc(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  if (!loop->closed) {
    loop->slot = loop->handler = 0;
    ag_loop_close(L, loop);
  }
  return 0;
}

static int loop_set_debug(lua_State *L) {
  check_loop(L)->debug = lua_toboolean(L, 2);
  return 0;
}

static int loop_get_debug(lua_State *L) {
  lua_pushboolean(L, check_loop(L)->debug);
  return 1;
}

static int loop_set_exception_handler(lua_State *L) {
  ag_loop *loop = check_open(L);
  int slot = 0;
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    slot = ag_keep(L, loop->S);
  }
  ag_drop(L, loop->S, loop->handler);
  loop->handler = slot;
  return 0;
}

static int loop_create_task(lua_State *L) {
  ag_loop *loop = check_open(L);
  ag_ensure_future(L, loop, 2, 2);
  lua_settop(L, 2);
  return 1;
}

static int get_running_loop(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_check(L, S, "get_running_loop");
  ag_push_kept(L, S, loop->slot);
  return 1;
}

static int new_event_loop(lua_State *L) {
  ag_loop_new(L, ag_self(L), false, false);
  return 1;
}

static int loop_tostring(lua_State *L) {
  ag_loop *loop = check_loop(L);
  lua_pushfstring(L, "<Loop %s>", loop->closed ? "closed" : loop->running ? "running" : "idle");
  return 1;
}

static int handle_tostring(lua_State *L) {
  lua_pushfstring(L, "<Handle%s>", check_handle(L)->cancelled ? " cancelled" : "");
  return 1;
}

void ag_loop_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg loop_methods[] = {{"call_soon", loop_call_soon},
                                          {"call_later", loop_call_later},
                                          {"call_at", loop_call_at},
                                          {"time", loop_time},
                                          {"create_future", loop_create_future},
                                          {"create_task", loop_create_task},
                                          {"stop", loop_stop},
                                          {"is_running", loop_is_running},
                                          {"is_closed", loop_is_closed},
                                          {"close", loop_close},
                                          {"set_debug", loop_set_debug},
                                          {"get_debug", loop_get_debug},
                                          {"set_exception_handler", loop_set_exception_handler},
                                          {NULL, NULL}};
  static const luaL_Reg loop_meta[] = {{"__gc", loop_gc}, {"__tostring", loop_tostring}, {NULL, NULL}};
  static const luaL_Reg handle_methods[] = {
      {"cancel", handle_cancel}, {"cancelled", handle_cancelled}, {"when", handle_when}, {NULL, NULL}};
  static const luaL_Reg handle_meta[] = {{"__tostring", handle_tostring}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"get_running_loop", get_running_loop}, {"new_event_loop", new_event_loop}, {NULL, NULL}};
  const struct {
    const char *name;
    const luaL_Reg *methods, *meta;
    int *ref;
  } types[] = {{"Loop", loop_methods, loop_meta, &S->mt_loop}, {"Handle", handle_methods, handle_meta, &S->mt_handle}};
  for (int i = 0; i < 2; i++) {
    lua_newtable(L);
    ag_setfuncs(L, S, types[i].meta);
    lua_pushstring(L, types[i].name);
    lua_setfield(L, -2, "__name");
    lua_newtable(L);
    ag_setfuncs(L, S, types[i].methods);
    lua_setfield(L, -2, "__index");
    *types[i].ref = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  ag_setfuncs(L, S, functions);
}
