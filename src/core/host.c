/* The public functions by which a host drives a loop. Each is protected: nothing raises into the host. */
#include <math.h>

#include "core/report.h"
#include "core/run.h"
#include "core/shutdown.h"
#include "core/task.h"

static ag_status status_of(int lua_status) { return lua_status == LUA_OK ? AG_OK : AG_ERROR; }

static int open_module(lua_State *L) {
  luaL_requiref(L, "agather.core", luaopen_agather_core, 0);
  return 1;
}

ag_status ag_open(lua_State *L) {
  lua_pushcfunction(L, open_module);
  return status_of(lua_pcall(L, 0, 1, 0));
}

/* The host's pointer stays good when the loop is closed, until the state is. */
static int create(lua_State *L) {
  ag_state *S = ag_state_open(L);
  lua_pushboolean(L, true); /* holds the place: nothing may fail once there is a loop */
  int place = luaL_ref(L, LUA_REGISTRYINDEX);
  ag_loop *loop = ag_loop_new(L, S, false, false);
  lua_rawseti(L, LUA_REGISTRYINDEX, place);
  lua_pushlightuserdata(L, loop);
  return 1;
}

ag_status ag_loop_create(lua_State *L, ag_loop **loop) {
  *loop = NULL;
  lua_pushcfunction(L, open_module);
  lua_pushcfunction(L, create);
  int status = lua_pcall(L, 0, 1, 0);
  if (status != LUA_OK) {
    lua_remove(L, -2);
    return AG_ERROR;
  }
  *loop = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return AG_OK;
}

/* 1 the loop, then the function and its arguments. */
static int spawn(lua_State *L) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  ag_task_spawn(L, lua_touserdata(L, 1), lua_gettop(L) - 2);
  return 1;
}

ag_status ag_spawn(lua_State *L, ag_loop *loop, int nargs) {
  if (loop->closed) {
    lua_pop(L, nargs + 1);
    return AG_CLOSED;
  }
  int base = lua_gettop(L) - nargs;
  lua_pushcfunction(L, spawn);
  lua_insert(L, base);
  lua_pushlightuserdata(L, loop);
  lua_insert(L, base + 1);
  return status_of(lua_pcall(L, nargs + 2, 1, 0));
}

static bool anything_ready(const ag_loop *loop) {
  return !ag_list_empty(&loop->ready) || !ag_list_empty(&loop->current) || ag_remote_has_mail(loop->remote);
}

static int step(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  loop->poller->wait(loop->poller, 0);
  do
    ag_loop_iterate(L, loop, false, true);
  while (loop->slice_end != 0 && anything_ready(loop) && !ag_loop_out_of_time(loop));
  loop->poller->wait(loop->poller, 0); /* what the tasks have just asked for must be known to ag_fd */
  return 0;
}

ag_status ag_step(lua_State *L, ag_loop *loop) {
  if (loop->closed)
    return AG_CLOSED;
  if (loop->S->running != NULL)
    return AG_REENTRANT;
  ag_loop_enter(loop);
  lua_pushcfunction(L, step);
  lua_pushlightuserdata(L, loop);
  int status = lua_pcall(L, 1, 0, 0);
  ag_loop_leave(loop);
  if (status != LUA_OK)
    return AG_ERROR;
  if (anything_ready(loop))
    return AG_MORE;
  return ag_alive(loop) ? AG_IDLE : AG_DONE;
}

bool ag_alive(const ag_loop *loop) {
  if (loop->closed)
    return false;
  return anything_ready(loop) || loop->tasks > 0 || loop->timers.count > 0 || ag_loop_expects(loop);
}

/* Protected: 1 the loop, 2 the future. */
static int run_until(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  ag_future *future = ag_future_to(L, loop->S, 2);
  if (future == NULL)
    return luaL_error(L, "Future or Task expected, got %s", ag_type_name(L, 2));
  if (future->loop != loop->id)
    return luaL_error(L, "the awaitable belongs to another loop");
  ag_run_until_done(L, loop, 2);
  if (future->status == AG_FAILED && !future->asked && !future->watched)
    ag_watch(L, loop->S, 2); /* the wait counted as somebody who asks: now the host must */
  return 0;
}

ag_status ag_run_until(lua_State *L, ag_loop *loop, int index) {
  if (loop->closed)
    return AG_CLOSED;
  if (loop->S->running != NULL)
    return AG_REENTRANT;
  index = lua_absindex(L, index);
  ag_loop_enter(loop);
  loop->stopping = false;
  lua_pushcfunction(L, run_until);
  lua_pushlightuserdata(L, loop);
  lua_pushvalue(L, index);
  int status = lua_pcall(L, 2, 0, 0);
  loop->stopping = false;
  ag_loop_leave(loop);
  return status_of(status);
}

ag_loop *ag_loop_of(lua_State *L) {
  ag_state *S = ag_state_find(L);
  if (S == NULL || S->running != NULL || ag_list_empty(&S->loops))
    return S != NULL ? S->running : NULL;
  return ag_container(S->loops.prev, ag_loop, among);
}

ag_status ag_step_for(lua_State *L, ag_loop *loop, double seconds) {
  if (loop->closed)
    return AG_CLOSED;
  if (loop->S->running != NULL)
    return AG_REENTRANT;
  loop->slice_end = ag_loop_time(loop) + (seconds > 0 ? seconds : 0);
  ag_status status = ag_step(L, loop);
  loop->slice_end = 0;
  return status;
}

double ag_timeout(const ag_loop *loop) {
  if (loop->closed)
    return -1;
  if (anything_ready(loop))
    return 0;
  double left = loop->poller->timeout != NULL ? loop->poller->timeout(loop->poller) : -1;
  double due = ag_suspects_due(loop);
  if (due >= 0 && (left < 0 || due < left))
    left = due;
  if (loop->timers.count == 0 || loop->timers.heap[0].when == INFINITY)
    return left;
  double timer = loop->is_virtual ? 0 : loop->timers.heap[0].when - ag_loop_time(loop);
  if (timer < 0)
    timer = 0;
  return left < 0 || timer < left ? timer : left;
}

int ag_fd(const ag_loop *loop) {
  if (loop->closed || loop->poller->fd == NULL)
    return -1;
  return loop->poller->fd(loop->poller);
}

void ag_wakeup(ag_loop *loop) { ag_remote_wakeup(loop->remote); }

ag_status ag_loop_destroy(lua_State *L, ag_loop *loop) {
  if (loop->closed)
    return AG_CLOSED;
  if (loop->S->running != NULL)
    return AG_REENTRANT;
  ag_loop_shut_down(L, loop);
  return AG_OK;
}
