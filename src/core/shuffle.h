/* For tests: what is ready in one iteration runs in another order than it was queued, chosen by a seed. Only in builds
** made with AGATHER_SHUFFLE; in others this is nothing at all.
** The order within an iteration is part of the contract, but no invariant of a primitive may hang on it: a lock that
** is safe only because its waiter happens to run first is not safe. */
#ifndef AG_SHUFFLE_H
#define AG_SHUFFLE_H

#include "core/loop.h"

#ifdef AGATHER_SHUFFLE
/* Seeds the loop: from the registry's field "agather.shuffle", a number, where a test has set it, or else from the
** environment's AGATHER_SHUFFLE_SEED. 0 or nothing: the order stays as it is. Sets the registry's field
** "agather.shuffles" to true, so that a test sees that it runs in such a build. [-0, +0, m] */
void ag_shuffle_seed(lua_State *L, ag_loop *loop);
/* Puts a list into another order. Never fails. */
void ag_shuffle(ag_loop *loop, ag_link *list);
#else
static inline void ag_shuffle_seed(lua_State *L, ag_loop *loop) { (void)L, (void)loop; }
static inline void ag_shuffle(ag_loop *loop, ag_link *list) { (void)loop, (void)list; }
#endif

#endif
