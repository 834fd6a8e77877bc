/* sleep: a deadline in the heap, then one turn of the loop, as asyncio's timer and future make it. */
#include "core/sleep.h"

#include <math.h>

#include "core/limits.h"
#include "core/task.h"

static int sleep_resumed(lua_State *L, int status, lua_KContext context) {
  (void)status;
  ag_task_resumed(L, (ag_state *)context);
  return lua_gettop(L) - 1;
}

/* The deadline has passed: the task runs in the next iteration. */
static void sleep_due(ag_loop *loop, lua_State *L, ag_node *node) {
  (void)L;
  ag_task *task = ag_container(node, ag_task, timer.node);
  node->run = ag_task_step;
  task->wait = AG_WAIT_NONE;
  ag_loop_ready(loop, node);
}

/* sleep(seconds [, ...]): waits, then returns the other arguments. asyncio.sleep, 3.11. */
static int sleep_(lua_State *L) {
  ag_state *S = ag_self(L);
  int whole;
  double seconds = (double)lua_tointegerx(L, 1, &whole);
  if (!whole)
    seconds = luaL_checknumber(L, 1);
  luaL_argcheck(L, !isnan(seconds), 1, "number expected, got nan");
  ag_task *task = ag_task_check(L, S, "sleep");
  ag_loop *loop = S->running;
  if (seconds <= 0) {
    ag_loop_ready(loop, &task->timer.node);
    return ag_task_park(L, task, AG_WAIT_NONE, (lua_KContext)S, sleep_resumed);
  }
  if (task->must_cancel) { /* cancelled itself before this wait: asyncio cancels the new future at once */
    task->delivering = true;
    ag_loop_ready(loop, &task->timer.node);
    return ag_task_park(L, task, AG_WAIT_NONE, (lua_KContext)S, sleep_resumed);
  }
  ag_limit_check(L, S, timers, loop->timers.count);
  if (!ag_timer_start(&loop->timers, &task->timer, ag_loop_time(loop) + seconds))
    return luaL_error(L, "not enough memory");
  task->timer.node.run = sleep_due;
  return ag_task_park(L, task, AG_WAIT_SLEEP, (lua_KContext)S, sleep_resumed);
}

/* ---- spawn(sleep, ...): a task that is nothing but a sleep needs no Lua thread ---- */

static void direct_step(ag_loop *loop, lua_State *L, ag_node *node);

/* The deadline has passed and the turn after it has come: the arguments but the first are the results. */
static void direct_end(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_task *task = ag_container(node, ag_task, timer.node);
  node->run = ag_task_step;
  if (task->must_cancel) {
    ag_task_step(loop, L, node);
    return;
  }
  int base = lua_gettop(L), count = task->future.count - 1;
  ag_push_kept(L, loop->S, task->future.slot);
  luaL_checkstack(L, count + 2, "too many results");
  for (int i = 1; i <= count; i++)
    lua_getiuservalue(L, base + 1, i + 2);
  ag_future_resolve(L, loop->S, base + 1, count);
  lua_pushnil(L);
  lua_setiuservalue(L, base + 1, count + 2); /* where the last argument stood */
  lua_settop(L, base);
}

static void direct_due(ag_loop *loop, lua_State *L, ag_node *node) {
  (void)L;
  node->run = direct_end;
  ag_container(node, ag_task, timer.node)->wait = AG_WAIT_NONE;
  ag_loop_ready(loop, node);
}

/* The first step. Whatever is not plain waiting goes the way of all tasks, on a thread. */
static void direct_step(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_task *task = ag_container(node, ag_task, timer.node);
  ag_push_kept(L, loop->S, task->future.slot);
  lua_getiuservalue(L, -1, 2);
  double seconds = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
  lua_pop(L, 2);
  if (!task->must_cancel && seconds > 0 && task->future.count > 0 &&
      !ag_limit_reached(loop->S, timers, loop->timers.count) &&
      ag_timer_start(&loop->timers, &task->timer, ag_loop_time(loop) + seconds)) {
    node->run = direct_due;
    task->wait = AG_WAIT_SLEEP;
    return;
  }
  node->run = ag_task_step;
  ag_task_step(loop, L, node);
}

void ag_sleep_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg functions[] = {{"sleep", sleep_}, {NULL, NULL}};
  ag_setfuncs(L, S, functions);
  S->direct = sleep_;
  S->direct_step = direct_step;
}
