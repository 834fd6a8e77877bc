/* What other threads post to a loop: see remote.h for the way it takes. */
#ifndef AG_POST_H
#define AG_POST_H

#include "core/loop.h"

/* The loop closes: operations are no longer wanted, what was posted and has not run is dropped. Calls the C side's
** functions, no Lua. */
void ag_post_close(ag_loop *loop);

#endif
