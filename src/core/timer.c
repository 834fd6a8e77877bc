/* A binary heap of (deadline, order of creation). */
#include "core/timer.h"

#include <stdlib.h>

static bool earlier(const ag_timer_entry *a, const ag_timer_entry *b) {
  return a->when < b->when || (a->when == b->when && a->order < b->order);
}

static void place(ag_timers *timers, uint32_t i, ag_timer_entry entry) {
  timers->heap[i] = entry;
  entry.timer->place = i + 1;
}

static void sift_up(ag_timers *timers, uint32_t i, ag_timer_entry entry) {
  while (i > 0) {
    uint32_t parent = (i - 1) / 2;
    if (!earlier(&entry, &timers->heap[parent]))
      break;
    place(timers, i, timers->heap[parent]);
    i = parent;
  }
  place(timers, i, entry);
}

static void sift_down(ag_timers *timers, uint32_t i, ag_timer_entry entry) {
  for (;;) {
    uint32_t child = 2 * i + 1;
    if (child >= timers->count)
      break;
    if (child + 1 < timers->count && earlier(&timers->heap[child + 1], &timers->heap[child]))
      child++;
    if (!earlier(&timers->heap[child], &entry))
      break;
    place(timers, i, timers->heap[child]);
    i = child;
  }
  place(timers, i, entry);
}

bool ag_timer_start(ag_timers *timers, ag_timer *timer, double when) {
  if (timers->count == timers->size) {
    uint32_t size = timers->size ? timers->size * 2 : 16;
    ag_timer_entry *heap = realloc(timers->heap, size * sizeof *heap);
    if (heap == NULL)
      return false;
    timers->heap = heap;
    timers->size = size;
  }
  ag_timer_entry entry = {when, timers->order++, timer};
  sift_up(timers, timers->count++, entry);
  return true;
}

void ag_timer_stop(ag_timers *timers, ag_timer *timer) {
  if (timer->place == 0)
    return;
  uint32_t i = timer->place - 1;
  timer->place = 0;
  ag_timer_entry last = timers->heap[--timers->count];
  if (i == timers->count)
    return;
  if (i > 0 && earlier(&last, &timers->heap[(i - 1) / 2]))
    sift_up(timers, i, last);
  else
    sift_down(timers, i, last);
}

ag_timer *ag_timer_pop(ag_timers *timers) {
  ag_timer *first = timers->heap[0].timer;
  ag_timer_stop(timers, first);
  return first;
}

void ag_timers_clear(ag_timers *timers) {
  for (uint32_t i = 0; i < timers->count; i++)
    timers->heap[i].timer->place = 0;
  free(timers->heap);
  timers->heap = NULL;
  timers->count = timers->size = 0;
}
