/* libuv's thread pool, before its first use. */
#ifndef AG_UV_POOL_H
#define AG_UV_POOL_H

/* 0, or a negative error number where the system gives no threads for the pool: libuv would abort. */
int ag_pool_check(void);

#endif
