/* The mailbox: a stack that any thread puts onto and the loop takes as a whole, and waking a poller that may be
** replaced meanwhile. */
#include "core/remote.h"

#include <sched.h>
#include <stdlib.h>

ag_remote *ag_remote_new(ag_poller *poller) {
  ag_remote *remote = malloc(sizeof *remote);
  if (remote == NULL)
    return NULL;
  atomic_init(&remote->mail, NULL);
  atomic_init(&remote->poller, poller);
  atomic_init(&remote->wakers, 0);
  atomic_init(&remote->references, 1);
  return remote;
}

ag_remote *ag_remote_ref(ag_remote *remote) {
  atomic_fetch_add(&remote->references, 1);
  return remote;
}

void ag_remote_unref(ag_remote *remote) {
  if (remote != NULL && atomic_fetch_sub(&remote->references, 1) == 1)
    free(remote);
}

/* Who replaces the poller waits until no waker is left that may have read the old one. No lock: a signal handler may
** interrupt whoever holds it. */
void ag_remote_wakeup(ag_remote *remote) {
  atomic_fetch_add(&remote->wakers, 1);
  ag_poller *poller = atomic_load(&remote->poller);
  if (poller != NULL)
    poller->wake(poller);
  atomic_fetch_sub(&remote->wakers, 1);
}

void ag_remote_set_poller(ag_remote *remote, ag_poller *poller) {
  atomic_store(&remote->poller, poller);
  while (atomic_load(&remote->wakers) != 0)
    sched_yield();
}

bool ag_remote_put(ag_remote *remote, ag_node *node) {
  void *last = atomic_load(&remote->mail);
  do {
    if (last == remote)
      return false;
    node->link.next = last;
  } while (!atomic_compare_exchange_weak(&remote->mail, &last, &node->link));
  if (last == NULL) /* who finds it empty wakes; the others' mail is taken together with the first */
    ag_remote_wakeup(remote);
  return true;
}

/* Links [last] and those before it to the end of [list], the first put first. */
static void append_all(ag_link *list, ag_link *last) {
  ag_link all;
  ag_link_init(&all);
  while (last != NULL) {
    ag_link *before = last->next;
    ag_list_append(all.next, last); /* before the first: the list is circular */
    last = before;
  }
  ag_list_splice(list, &all);
}

void ag_remote_take(ag_remote *remote, ag_link *ready) { append_all(ready, atomic_exchange(&remote->mail, NULL)); }

void ag_remote_close(ag_remote *remote, ag_link *rest) {
  void *last = atomic_exchange(&remote->mail, remote);
  if (last != remote)
    append_all(rest, last);
}
