/* The one wait list of locks, events, semaphores, conditions and queues. Knows tasks.
** A waiting task stands on the list by its `turn` link until it runs again, as the futures of asyncio's waiters do:
** so whoever was woken or cancelled keeps its place for the rest of the iteration. */
#ifndef AG_WAITERS_H
#define AG_WAITERS_H

#include "core/task.h"

enum ag_turn { AG_TURN_WAITING, AG_TURN_WOKEN, AG_TURN_CANCELLED };

/* Suspends the calling task at the end of [list]; [what] names it in tostring(task). The continuation [k] must begin
** with ag_waiters_back. Use as `return ag_waiters_park(...)`. */
int ag_waiters_park(lua_State *L, ag_task *task, ag_link *list, const char *what, lua_KContext context,
                    lua_KFunction k);
/* Takes the calling task off the list it waited on. When it was cancelled, its error is still to be thrown:
** hand on the wake-up if task->turn is AG_TURN_WOKEN, then call ag_task_raise. */
ag_task *ag_waiters_back(lua_State *L, ag_state *S);
/* The first on the list, or NULL. */
ag_task *ag_waiters_first(const ag_link *list);
/* Whether somebody is on the list who was not cancelled. */
bool ag_waiters_any(const ag_link *list);
/* Wakes the task if it still waits; it keeps its place. */
bool ag_waiters_wake(ag_state *S, ag_task *task);
/* Wakes the first [n] of those that still wait. */
void ag_waiters_wake_some(ag_state *S, ag_link *list, lua_Integer n);
/* Takes tasks off the list until one was woken. */
void ag_waiters_take_one(ag_state *S, ag_link *list);
/* For finalizers: nobody can stand on a list that goes, but tasks whose threads were closed by hand. */
void ag_waiters_clear(ag_state *S, ag_link *list);

#endif
