/* A timer on the processor time of the calling thread, whose signal calls a function there. For budgets of time that
** cost nothing until they are spent. Knows nothing of Lua. */
#ifndef AG_TICKER_H
#define AG_TICKER_H

#include <stdbool.h>

typedef struct ag_ticker ag_ticker;

/* A ticker that calls tick(data) on each tick, in the handler of the signal [number]. NULL: none can be had. */
ag_ticker *ag_ticker_new(int number, double seconds, void (*tick)(void *data), void *data);
/* Sees to it that the calling thread's time counts. False: no timer can be had. */
bool ag_ticker_here(ag_ticker *ticker);
/* No tick comes from here on. */
void ag_ticker_free(ag_ticker *ticker);

#endif
