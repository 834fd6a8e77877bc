/* Interrupting a state's loop from a signal handler on its thread: what a second SIGINT does, for any thread. */
#include "core/loop.h"

void *ag_interruptible(lua_State *L) { return ag_state_open(L); }

lua_State *ag_interrupt(void *interruptible) {
  ag_state *S = interruptible;
  ag_loop *loop = S->running;
  if (loop == NULL)
    return NULL;
  loop->interrupts = 2;
  ag_remote_wakeup(loop->remote);
  return loop->task != NULL ? loop->here : NULL; /* set in this order: see ag_task_go_on */
}
