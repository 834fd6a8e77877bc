/* The mailbox of a loop: how other threads reach it. It outlives the loop, so a thread that still holds it finds it
** closed. Knows the loop's ready queue and poller; not what the nodes are that it carries.
** Taking from it is the loop's thread alone; putting into it and waking are any thread's, without locks, so that also
** a signal handler may. */
#ifndef AG_REMOTE_H
#define AG_REMOTE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "agather.h"
#include "core/timer.h"

/* Invariant: [mail] is the last node put, linked by link.next to those before it; NULL: none; itself: closed. */
struct ag_remote {
  _Atomic(void *) mail;
  _Atomic(ag_poller *) poller; /* whom to wake, or NULL */
  atomic_int wakers;           /* threads that are between reading [poller] and having woken it */
  atomic_int references;
};

/* With one reference. NULL where there is no memory. */
ag_remote *ag_remote_new(ag_poller *poller);
/* Puts [node], which is on no list, into the mailbox and wakes the loop. False: it is closed. Any thread. */
bool ag_remote_put(ag_remote *remote, ag_node *node);
/* From here on [poller] (or NULL) is woken; nobody touches the one before any more. Loop's thread. */
void ag_remote_set_poller(ag_remote *remote, ag_poller *poller);
/* Whether something lies in the mailbox. Loop's thread: reached once per iteration. */
static inline bool ag_remote_has_mail(ag_remote *remote) {
  return atomic_load_explicit(&remote->mail, memory_order_acquire) != NULL;
}
/* Moves what lies there to the end of [ready], in the order in which it was put. Loop's thread. */
void ag_remote_take(ag_remote *remote, ag_link *ready);
/* Closes the mailbox; what lay there is moved to [rest]. Loop's thread. */
void ag_remote_close(ag_remote *remote, ag_link *rest);

#endif
