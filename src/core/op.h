/* Operations: futures that any thread may answer. Knows futures and the mailbox. */
#ifndef AG_OP_H
#define AG_OP_H

#include "core/loop.h"

/* The operation whose answer [node] carries, or NULL for a node of another kind. */
ag_op *ag_op_of(ag_node *node);
/* Its answer was used, or is dropped. */
void ag_op_finish(ag_op *op);
/* The loop closes: no answer is wanted any more. */
void ag_ops_close(ag_loop *loop);

#endif
