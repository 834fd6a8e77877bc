/* How the loop waits. The built-in poller can only sleep and be woken; others bring input and output. */
#ifndef AG_POLLER_H
#define AG_POLLER_H

#include "agather.h"

/* NULL where the system gives no descriptors. */
ag_poller *ag_sleeper_new(void);

#endif
