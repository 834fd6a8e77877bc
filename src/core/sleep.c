/* sleep: a deadline in the heap, then one turn of the loop, as asyncio's timer and future make it. */
#include "core/sleep.h"

#include <math.h>

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
  double seconds = lua_isinteger(L, 1) ? (double)lua_tointeger(L, 1) : luaL_checknumber(L, 1);
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
  if (!ag_timer_start(&loop->timers, &task->timer, ag_loop_time(loop) + seconds))
    return luaL_error(L, "not enough memory");
  task->timer.node.run = sleep_due;
  return ag_task_park(L, task, AG_WAIT_SLEEP, (lua_KContext)S, sleep_resumed);
}

void ag_sleep_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg functions[] = {{"sleep", sleep_}, {NULL, NULL}};
  ag_setfuncs(L, S, functions);
}
