/* A heap of deadlines. Knows nothing of loops and tasks. Ties are broken by the order of creation. */
#ifndef AG_TIMER_H
#define AG_TIMER_H

#include "core/list.h"
#include <stdbool.h>
#include <stdint.h>

struct lua_State;
struct ag_loop;

/* Something that will run on the loop: embedded in tasks, handles, gathers. It is on the ready queue,
** on the wait list of a future, or nowhere. */
typedef struct ag_node {
  ag_link link;
  void (*run)(struct ag_loop *loop, struct lua_State *L, struct ag_node *node);
} ag_node;

/* A node that may also stand in the heap; [place] is its index + 1 there, 0 when it is not in it. */
typedef struct ag_timer {
  ag_node node;
  uint32_t place;
} ag_timer;

typedef struct ag_timer_entry {
  double when; /* seconds of the loop's clock */
  uint64_t order;
  ag_timer *timer;
} ag_timer_entry;

typedef struct ag_timers {
  ag_timer_entry *heap;
  uint32_t count, size;
  uint64_t order;
} ag_timers;

/* Returns false when there is no memory; nothing has changed then. */
bool ag_timer_start(ag_timers *timers, ag_timer *timer, double when);
void ag_timer_stop(ag_timers *timers, ag_timer *timer);
/* Takes the first timer off the heap. The heap must not be empty. */
ag_timer *ag_timer_pop(ag_timers *timers);
void ag_timers_clear(ag_timers *timers);

#endif
