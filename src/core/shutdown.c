/* The shutdown after main: cancels what is left and lets it finish, as asyncio.run does (3.11). A task that goes on
** all the same is cancelled again, but not for ever: what is still there then is reported when the loop closes. */
#include "core/shutdown.h"

#include <math.h>

#include "core/limits.h"
#include "core/report.h"
#include "core/task.h"

/* Seconds that cancelled tasks have for their cleanup, and those that then go on each time they are cancelled again. */
static const double first_grace = 5, next_grace = 0.1;
enum { ROUNDS = 10 };

typedef struct grace {
  ag_timer timer;
  bool over;
} grace;

static void grace_over(ag_loop *loop, lua_State *L, ag_node *node) {
  (void)loop, (void)L;
  ag_container(node, grace, timer.node)->over = true;
}

/* Protected: 1 loop, 2 list of tasks, 3 grace. Runs the loop until all tasks are done or the time is over. */
static int finish_tasks(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  grace *g = lua_touserdata(L, 3);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 2, i);
    ag_future *future = lua_touserdata(L, -1);
    while (future->status == AG_PENDING && !g->over) {
      bool idle = ag_list_empty(&loop->ready) && ag_list_empty(&loop->current);
      if (idle && loop->timers.count == 1 && !ag_loop_expects(loop))
        return 0; /* nothing but [g] can come */
      ag_loop_iterate(L, loop, true, true);
    }
    lua_pop(L, 1);
  }
  return 0;
}

/* Pushes the list of the loop's pending tasks. [-0, +1, m] */
static lua_Integer push_pending(lua_State *L, ag_loop *loop) {
  ag_state *S = loop->S;
  lua_newtable(L);
  lua_Integer n = 0;
  for (int i = 1; i <= S->top_slot; i++) {
    ag_push_kept(L, S, i);
    ag_future *future = ag_future_to(L, S, -1);
    if (future != NULL && future->kind == AG_TASK && future->slot == i && future->status == AG_PENDING &&
        future->loop == loop->id)
      lua_rawseti(L, -2, ++n);
    else
      lua_pop(L, 1);
  }
  return n;
}

/* Tells that the task on top took long and was cancelled again, which may have cut its cleanup short. */
static void report_slow(lua_State *L, ag_loop *loop, double seconds) {
  int task = lua_gettop(L);
  const char *message =
      lua_pushfstring(L, "Task had not ended after %f s of shutdown, and was cancelled again", seconds);
  lua_pushnil(L);
  ag_report(L, loop, message, task);
  lua_settop(L, task);
}

static void cancel_all(lua_State *L, ag_loop *loop) {
  ag_state *S = loop->S;
  double first = S->limiter != NULL && S->limiter->limits.grace > 0 ? S->limiter->limits.grace : first_grace;
  bool slow = false;
  for (int round = 0; round < ROUNDS && loop->tasks > 0; round++) {
    lua_Integer n = push_pending(L, loop);
    int list = lua_gettop(L);
    for (lua_Integer i = 1; i <= n; i++) {
      lua_rawgeti(L, list, i);
      lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
      ag_cancel(L, S, -2);
      lua_pop(L, 1);
    }
    grace g = {{{{NULL, NULL}, grace_over}, 0}, false};
    ag_link_init(&g.timer.node.link);
    if (!ag_timer_start(&loop->timers, &g.timer, ag_loop_time(loop) + (round == 0 ? first : fmin(first, next_grace))))
      return;
    lua_pushcfunction(L, finish_tasks);
    lua_pushlightuserdata(L, loop);
    lua_pushvalue(L, list);
    lua_pushlightuserdata(L, &g);
    int status = lua_pcall(L, 3, 0, 0);
    ag_timer_stop(&loop->timers, &g.timer);
    ag_link_remove(&g.timer.node.link);
    if (status != LUA_OK)
      lua_error(L);
    for (lua_Integer i = 1; i <= n; i++) {
      lua_rawgeti(L, list, i);
      ag_future *future = lua_touserdata(L, -1);
      if (round == 1 && slow && future->status == AG_CANCELLED)
        report_slow(L, loop, first);
      if (future->status == AG_FAILED && !future->asked) {
        ag_future_value(L, S, -1);
        ag_report(L, loop, "unhandled exception during agather.run() shutdown", -2);
      }
      lua_pop(L, 1);
    }
    slow = g.over;
    lua_settop(L, list - 1);
  }
  for (int i = 0; i < 4 && !ag_list_empty(&loop->ready); i++)
    ag_loop_iterate(L, loop, false, true);
}

/* Protected: 1 loop. */
static int shutdown_phase(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  cancel_all(L, loop);
  ag_report_suspects(L, loop, true);
  return 0;
}

void ag_loop_shut_down(lua_State *L, ag_loop *loop) {
  ag_loop_enter(loop);
  lua_pushcfunction(L, shutdown_phase);
  lua_pushlightuserdata(L, loop);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    lua_pop(L, 1); /* KeyboardInterrupt, or no memory: what is left is abandoned */
  ag_loop_leave(loop);
  ag_loop_close(L, loop);
}
