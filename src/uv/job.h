/* Work for libuv's thread pool that one task waits for: what would block the loop. A job owns all it works on, so a
** cancelled task is free at once while the work goes on; what it then brings is dropped. */
#ifndef AG_UV_JOB_H
#define AG_UV_JOB_H

#include <stdatomic.h>

#include "uv/uv.h"

typedef struct job job;

typedef struct job_type {
  const char *operation; /* for errors, such as "fs.stat" */
  /* Does the work and returns 0 or a negative errno. A thread of the pool: no Lua, nothing but the job. */
  int (*run)(job *j);
  /* Pushes the results of work that returned 0, and returns their number. Loop's thread; NULL: no results. */
  int (*push)(lua_State *L, job *j);
  /* Lets go of what the job holds, also of results that nobody took. Once, loop's thread; NULL: holds nothing. */
  void (*drop)(job *j);
} job_type;

/* Embed it as the first member. */
struct job {
  const job_type *type;
  uv_work_t work;
  ag_wait wait;
  char *other; /* owned: where the path goes, may be NULL */
  char *path;  /* owned; for errors, may be NULL */
  int status;  /* what run returned */
  bool busy;   /* given to the pool, and not back */
  bool owned;  /* its userdata lives */
  bool dropped;
  atomic_bool cancelled; /* run may look at it, to stop early */
};

/* Makes a job of [size] zeroed bytes and pushes its userdata, which must stay on the stack. [-0, +1, e] */
void *ag_job_new(lua_State *L, size_t size, const job_type *type);
/* Copies the path at [arg] for the job to own; raises an argument error for one with a zero byte. [-0, +0, e] */
char *ag_job_path(lua_State *L, int arg);
/* Gives the job to the pool and suspends the task until it is done. Use as `return ag_job_run(...)`. [-0, +n, e] */
int ag_job_run(lua_State *L, job *j);

#endif
