/* A job has two owners: the pool while it is busy, and a userdata on the stack of the function that waits. The last
** frees it. Where a result must not wait for the collector, Lua holds the userdata: job:run() waits, and <close> lets
** go of what came for a task that was cancelled when it had been woken and had not run yet. */
#include "uv/job.h"

#include <stdlib.h>
#include <string.h>

#include "uv/pool.h"

#define JOB "agather.Job"

static void drop(job *j) {
  if (j->dropped)
    return;
  j->dropped = true;
  if (j->type->drop != NULL)
    j->type->drop(j);
}

static void free_if_unused(job *j) {
  if (j->busy || j->owned)
    return;
  drop(j);
  free(j->path);
  free(j->other);
  free(j);
}

/* Also __close. */
static int job_gc(lua_State *L) {
  job **box = lua_touserdata(L, 1);
  job *j = *box;
  *box = NULL;
  if (j != NULL) {
    j->owned = false;
    free_if_unused(j);
  }
  return 0;
}

void *ag_job_new(lua_State *L, size_t size, const job_type *type) {
  job **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, JOB);
  job *j = calloc(1, size);
  if (j == NULL)
    luaL_error(L, "not enough memory");
  j->type = type;
  j->owned = true;
  *box = j;
  return j;
}

char *ag_job_path(lua_State *L, int arg) {
  size_t length;
  const char *path = luaL_checklstring(L, arg, &length);
  luaL_argcheck(L, strlen(path) == length, arg, "path contains a zero byte");
  char *copy = malloc(length + 1);
  if (copy == NULL)
    luaL_error(L, "not enough memory");
  return memcpy(copy, path, length + 1);
}

static void on_work(uv_work_t *work) {
  job *j = work->data;
  j->status = j->type->run(j);
}

static void on_done(uv_work_t *work, int status) {
  job *j = work->data;
  j->busy = false;
  if (status != 0)
    j->status = status; /* taken back before it began */
  if (j->cancelled)
    drop(j);
  ag_wake(&j->wait);
  free_if_unused(j);
}

static void cancel_job(ag_wait *wait) {
  job *j = (job *)((char *)wait - offsetof(job, wait));
  j->cancelled = true;
  uv_cancel((uv_req_t *)&j->work);
}

static int finished(lua_State *L, int unused, lua_KContext context) {
  (void)unused;
  job *j = (job *)context;
  if (j->status != 0) {
    const char *address = j->other == NULL ? j->path : lua_pushfstring(L, "%s -> %s", j->path, j->other);
    return ag_uv_error(L, j->status, j->type->operation, address);
  }
  int results = j->type->push != NULL ? j->type->push(L, j) : 0;
  drop(j);
  return results;
}

static int submit(void *data) {
  job *j = data;
  return uv_queue_work(j->work.loop, &j->work, on_work, on_done);
}

int ag_job_run(lua_State *L, job *j) {
  ag_suspend_check(L);
  j->work.loop = ag_uv_loop(L, j->type->operation);
  j->work.data = j;
  j->wait.cancel = cancel_job;
  int status = ag_pool_submit(submit, j);
  if (status != 0)
    return ag_uv_error(L, status, j->type->operation, j->path);
  j->busy = true;
  return ag_suspend(L, &j->wait, (lua_KContext)j, finished);
}

static int job_run(lua_State *L) {
  job *j = *(job **)luaL_checkudata(L, 1, JOB);
  luaL_argcheck(L, j != NULL && !j->busy && !j->dropped, 1, "the job was run");
  lua_settop(L, 1);
  return ag_job_run(L, j);
}

void ag_open_job(lua_State *L) {
  static const luaL_Reg methods[] = {{"run", job_run}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", job_gc}, {"__close", job_gc}, {NULL, NULL}};
  luaL_newmetatable(L, JOB);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
