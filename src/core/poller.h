/* How the loop waits. The built-in poller can only sleep and be woken; others bring input and output. */
#ifndef AG_POLLER_H
#define AG_POLLER_H

#include <stdbool.h>

typedef struct ag_poller ag_poller;
struct ag_poller {
  /* Returns after [timeout] seconds (negative: no limit, 0: only a look), or when something came, or when woken.
  ** Runs on the loop's thread and never raises. */
  void (*wait)(ag_poller *poller, double timeout);
  /* Ends a wait, or the next one. Any thread, also from a signal handler. */
  void (*wake)(ag_poller *poller);
  /* Whether something may still come without being asked for. */
  bool (*alive)(ag_poller *poller);
  void (*close)(ag_poller *poller);
};

/* NULL where the system gives no descriptors. */
ag_poller *ag_sleeper_new(void);

#endif
