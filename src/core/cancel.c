/* Cancelling: a future ends at once, a task passes the request on to what it waits for, a gather to its children.
** Iterative, in asyncio's order: chains of 100,000 tasks and nested gathers do not recurse in C. */
#include "core/gather.h"
#include "core/waiters.h"

static void throw_at_next_step(lua_State *L, ag_state *S, ag_task *task, int error) {
  lua_pushvalue(L, error);
  ag_task_throw(L, S, task);
}

/* Tasks wait for each other: the one at which the circle closes gets the error. */
static void wake_from_circle(lua_State *L, ag_state *S, ag_task *task, int error) {
  throw_at_next_step(L, S, task, error);
  ag_link_remove(&task->timer.node.link);
  ag_loop_ready(ag_loop_find(S, task->future.loop), &task->timer.node);
}

/* A gather whose loop has ended hears of its children no more: it ends like a future. */
static bool is_abandoned(const ag_future *future) { return future->kind == AG_GATHER && future->slot == 0; }

bool ag_cancel(lua_State *L, ag_state *S, int index) {
  int error = lua_gettop(L);
  ag_future *current = lua_touserdata(L, index);
  index = lua_absindex(L, index);
  if (current->status != AG_PENDING) {
    lua_settop(L, error - 1);
    return false;
  }
  uint32_t epoch = ++S->cancel_epoch;
  ag_task *waiter = NULL; /* the task that waits for [current] */
  ag_gather *up = NULL;   /* the gather whose child [current] is */
  bool root_accepted = false;
  for (;;) {
    bool accepted = false, descend = false;
    if (current->status != AG_PENDING) {
      accepted = false;
    } else if (current->kind == AG_FUTURE || is_abandoned(current)) {
      if (waiter != NULL) {
        ag_push_kept(L, S, waiter->waiting->slot);
      } else if (up != NULL) {
        ag_push_kept(L, S, up->future.slot);
        lua_getiuservalue(L, -1, 2);
        lua_rawgeti(L, -1, up->cancel_next);
      } else {
        lua_pushvalue(L, index);
      }
      int self = lua_gettop(L);
      lua_pushvalue(L, error);
      ag_future_set_cancelled(L, S, self);
      lua_settop(L, error);
      accepted = true;
    } else if (current->kind == AG_TASK) {
      ag_task *task = (ag_task *)current;
      accepted = true;
      task->cancels++;
      if (waiter == NULL) {
        if (up != NULL)
          up->cancel_accepted = true;
        else
          root_accepted = true;
      }
      if (task->cancel_epoch == epoch) {
        wake_from_circle(L, S, task, error);
      } else {
        task->cancel_epoch = epoch;
        if (task->wait == AG_WAIT_FUTURE) {
          waiter = task;
          current = task->waiting;
          descend = true;
        } else {
          throw_at_next_step(L, S, task, error);
          task->delivering = task->delivering || task->wait != AG_WAIT_NONE;
          if (task->wait == AG_WAIT_SLEEP) {
            ag_loop *loop = ag_loop_find(S, task->future.loop);
            ag_timer_stop(&loop->timers, &task->timer);
            ag_link_remove(&task->timer.node.link);
            task->timer.node.run = ag_task_step;
            task->wait = AG_WAIT_NONE;
            ag_loop_ready(loop, &task->timer.node);
          } else if (task->wait == AG_WAIT_TURN) {
            task->turn = AG_TURN_CANCELLED;
            task->wait = AG_WAIT_NONE;
            ag_loop_ready(ag_loop_find(S, task->future.loop), &task->timer.node);
          } else if (task->wait == AG_WAIT_OPERATION && task->operation != NULL) {
            ag_wait *wait = task->operation;
            ag_wake(wait);
            wait->cancel(wait);
          }
        }
      }
      if (descend)
        continue;
      waiter = NULL; /* whoever waits for this task is served by its end */
    } else {
      ag_gather *gather = (ag_gather *)current;
      if (gather->cancelling) {
        if (waiter != NULL)
          wake_from_circle(L, S, waiter, error);
        waiter = NULL;
        accepted = true;
      } else {
        gather->cancelling = true;
        gather->cancel_up = up;
        gather->cancel_waiter = waiter;
        gather->cancel_next = 0;
        gather->cancel_accepted = false;
        up = gather;
        waiter = NULL;
        descend = true;
      }
    }
    for (;;) { /* hand the answer up, then go on with the next child */
      if (!descend) {
        if (waiter != NULL) {
          if (!accepted)
            throw_at_next_step(L, S, waiter, error);
          waiter = NULL;
        } else if (up != NULL) {
          up->cancel_accepted = up->cancel_accepted || accepted;
        } else {
          root_accepted = root_accepted || accepted;
        }
      }
      descend = false;
      if (up == NULL) {
        lua_settop(L, error - 1);
        return root_accepted;
      }
      ag_gather *gather = up;
      if (gather->cancel_next < gather->count) {
        gather->cancel_next++;
        current = gather->children[gather->cancel_next - 1].child;
        epoch =
            ++S->cancel_epoch; /* a child may be reached twice; only a chain that comes back to itself is a circle */
        if (current == NULL)
          continue;
        break;
      }
      gather->cancelling = false;
      accepted = gather->cancel_accepted;
      if (accepted)
        gather->cancel_requested = true;
      waiter = gather->cancel_waiter;
      up = gather->cancel_up;
    }
  }
}
