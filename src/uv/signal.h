/* Signals: their names, and who answers them. libuv gives a signal that nobody listens to any longer its default
** action; ours gives it back what it had before, so that run's answer to SIGINT and a host's handlers survive. */
#ifndef AG_UV_SIGNAL_H
#define AG_UV_SIGNAL_H

#include "uv/uv.h"

/* The number of the signal named at [arg], such as "SIGTERM", or given as an integer. Raises an argument error. */
int ag_signal_check(lua_State *L, int arg);
/* Pushes the name of a signal; "SIG34" for one without. */
void ag_signal_push_name(lua_State *L, int number);

/* Calls [change] with [data]: a call of libuv that begins to listen to a signal. Where it succeeds, the signal is
** libuv's until ag_signal_end has been called as often. Any thread. Returns what [change] returned. */
int ag_signal_begin(int number, int (*change)(void *data), void *data);
/* The same for a call that ends listening. The last puts back the disposition from before the first. */
void ag_signal_end(int number, int (*change)(void *data), void *data);

/* Closes the handle of a listener when the reactor closes under it. */
void ag_signal_shut(uv_handle_t *handle);

#endif
