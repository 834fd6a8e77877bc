/* Children, as the reactor needs them. */
#ifndef AG_UV_PROCESS_H
#define AG_UV_PROCESS_H

#include "uv/uv.h"

/* Kills the child of [handle] and reaps it, and closes the handle: the reactor closes. */
void ag_process_shut(uv_handle_t *handle);

#endif
