/* A circular doubly linked list of embedded links. A link is on at most one list;
** one that is on none points to itself, so taking it off twice is harmless. */
#ifndef AG_LIST_H
#define AG_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct ag_link {
  struct ag_link *prev, *next;
} ag_link;

/* The struct that embeds [link] as its [member]. */
#define ag_container(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void ag_link_init(ag_link *l) { l->prev = l->next = l; }

static inline bool ag_list_empty(const ag_link *head) { return head->next == head; }

static inline void ag_link_remove(ag_link *l) {
  l->prev->next = l->next;
  l->next->prev = l->prev;
  ag_link_init(l);
}

/* Appends [l], which must be on no list. */
static inline void ag_list_append(ag_link *head, ag_link *l) {
  l->prev = head->prev;
  l->next = head;
  head->prev->next = l;
  head->prev = l;
}

/* Moves all of [from] behind all of [to], in order, in constant time. */
static inline void ag_list_splice(ag_link *to, ag_link *from) {
  if (ag_list_empty(from))
    return;
  from->next->prev = to->prev;
  to->prev->next = from->next;
  from->prev->next = to;
  to->prev = from->prev;
  ag_link_init(from);
}

#endif
