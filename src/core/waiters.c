/* The wait list: parking, waking, and coming back. */
#include "core/waiters.h"

int ag_waiters_park(lua_State *L, ag_task *task, ag_link *list, const char *what, lua_KContext context,
                    lua_KFunction k) {
  ag_list_append(list, &task->turn_link);
  task->what = what;
  if (task->must_cancel) { /* cancelled itself before this wait */
    task->delivering = true;
    task->turn = AG_TURN_CANCELLED;
    task->wait = AG_WAIT_NONE;
    ag_loop_ready(ag_loop_find(ag_self(L), task->future.loop), &task->timer.node);
  } else {
    task->turn = AG_TURN_WAITING;
    task->wait = AG_WAIT_TURN;
  }
  task->parked = true;
  return lua_yieldk(L, 0, context, k);
}

ag_task *ag_waiters_back(lua_State *L, ag_state *S) {
  ag_task *task = ag_task_back(L, S);
  ag_link_remove(&task->turn_link);
  return task;
}

ag_task *ag_waiters_first(const ag_link *list) {
  return ag_list_empty(list) ? NULL : ag_container(list->next, ag_task, turn_link);
}

bool ag_waiters_any(const ag_link *list) {
  for (ag_link *l = list->next; l != list; l = l->next)
    if (ag_container(l, ag_task, turn_link)->turn != AG_TURN_CANCELLED)
      return true;
  return false;
}

bool ag_waiters_wake(ag_state *S, ag_task *task) {
  if (task->turn != AG_TURN_WAITING)
    return false;
  task->turn = AG_TURN_WOKEN;
  task->wait = AG_WAIT_NONE;
  ag_loop *loop = ag_loop_find(S, task->future.loop);
  if (loop != NULL)
    ag_loop_ready(loop, &task->timer.node);
  return true;
}

void ag_waiters_wake_some(ag_state *S, ag_link *list, lua_Integer n) {
  for (ag_link *l = list->next; l != list && n > 0; l = l->next)
    if (ag_waiters_wake(S, ag_container(l, ag_task, turn_link)))
      n--;
}

void ag_waiters_take_one(ag_state *S, ag_link *list) {
  while (!ag_list_empty(list)) {
    ag_task *task = ag_waiters_first(list);
    ag_link_remove(&task->turn_link);
    if (ag_waiters_wake(S, task))
      return;
  }
}

void ag_waiters_clear(ag_state *S, ag_link *list) {
  while (!ag_list_empty(list)) {
    ag_task *task = ag_waiters_first(list);
    ag_link_remove(&task->turn_link);
    ag_waiters_wake(S, task);
  }
}
