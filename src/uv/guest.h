/* A guest: another event loop on the same thread, Lua's luv, that has its turns while agather's loop waits. The reactor
** knows when it wants one by a descriptor, and by asking it. */
#ifndef AG_UV_GUEST_H
#define AG_UV_GUEST_H

#include "uv/uv.h"

typedef struct ag_guest ag_guest;

/* Before a wait of at most [timeout] seconds: how long it may be with the guest. NULL: no guest, in all of these. */
double ag_guest_before(ag_guest *guest, double timeout);
/* After the wait. */
void ag_guest_after(ag_guest *guest);
/* Seconds until it wants a turn; negative: not before its descriptor is readable. */
double ag_guest_timeout(ag_guest *guest);
/* Whether something may still come from it. */
bool ag_guest_alive(ag_guest *guest);
/* Makes it the guest of [loop], which came from ag_uv_loop. */
void ag_uv_set_guest(uv_loop_t *loop, ag_guest *guest);
/* The loop closes: the guest is not asked any more. Its memory goes when the reactor closes its handles. */
void ag_guest_leave(ag_guest *guest);

#endif
