/* libuv's thread pool: what is given to it first, and all the rest. */
#ifndef AG_UV_POOL_H
#define AG_UV_POOL_H

/* Calls submit(data), which gives work to libuv's pool, and returns what it does: 0 or a negative error number. So does
** this where the system gives no threads for the pool: libuv would abort. */
int ag_pool_submit(int (*submit)(void *data), void *data);

#endif
