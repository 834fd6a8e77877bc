/* Open files: Lua's read formats and buffered writing; file_work.h says how they do their work. */
#include "uv/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uv/file_work.h"
#include "uv/job.h"

/* ---- opening ---- */

typedef struct open_job {
  job base;
  int flags, mode, fd;
  bool seekable;
} open_job;

static int run_open(job *j) {
  open_job *o = (open_job *)j;
  struct stat s;
  /* Not blocking: a pipe or terminal must not hold a thread of the pool for ever. A file does not mind. */
  do
    o->fd = open(j->path, o->flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, (mode_t)o->mode);
  while (o->fd < 0 && errno == EINTR);
  if (o->fd < 0)
    return -errno;
  if (fstat(o->fd, &s) != 0)
    return -errno;
  if (S_ISDIR(s.st_mode))
    return -EISDIR;
  o->seekable = lseek(o->fd, 0, SEEK_CUR) >= 0;
  return 0;
}

static void drop_open(job *j) {
  open_job *o = (open_job *)j;
  if (o->fd >= 0)
    close(o->fd);
  o->fd = -1;
}

static int push_file(lua_State *L, job *j) {
  open_job *o = (open_job *)j;
  uv_loop_t *loop = ag_uv_loop(L, "fs.open");
  ag_file **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, AG_FILE);
  ag_file *f = calloc(1, sizeof *f);
  if (f == NULL)
    return luaL_error(L, "not enough memory");
  int access = o->flags & O_ACCMODE;
  f->on_close = ag_file_anchor_closed;
  f->loop = loop;
  uv_prepare_init(loop, &f->anchor);
  f->anchor.data = f;
  f->anchored = f->owned = true;
  f->readable = access != O_WRONLY;
  f->writable = access != O_RDONLY;
  f->append = (o->flags & O_APPEND) != 0;
  f->seekable = o->seekable;
  f->path = j->path;
  f->fd = o->fd;
  ag_reader_init(&f->in, NULL);
  f->in.line_limit = SIZE_MAX;
  j->path = NULL;
  o->fd = -1;
  *box = f;
  return 1;
}

/* The flags of Lua's mode, which has been checked. Beside those of scripts there is "wx": the file must be new, and no
** link stands there. */
static int open_flags(const char *mode) {
  bool both = strchr(mode, '+') != NULL;
  if (strchr(mode, 'x') != NULL)
    return (both ? O_RDWR : O_WRONLY) | O_CREAT | O_EXCL;
  switch (mode[0]) {
  case 'w':
    return (both ? O_RDWR : O_WRONLY) | O_CREAT | O_TRUNC;
  case 'a':
    return (both ? O_RDWR : O_WRONLY) | O_CREAT | O_APPEND;
  default:
    return both ? O_RDWR : O_RDONLY;
  }
}

/* fs_open(path, mode, permissions): the job, to be run. */
static int fs_open(lua_State *L) {
  static const job_type type = {"fs.open", run_open, push_file, drop_open};
  const char *mode = luaL_checkstring(L, 2);
  ag_uv_loop_for_handle(L, "fs.open");
  open_job *o = ag_job_new(L, sizeof *o, &type);
  o->fd = -1;
  o->flags = open_flags(mode);
  o->mode = (int)luaL_checkinteger(L, 3);
  o->base.path = ag_job_path(L, 1);
  return 1;
}

/* ---- operations ---- */

static ag_file *check_file(lua_State *L) {
  ag_file *f = *(ag_file **)luaL_checkudata(L, 1, AG_FILE);
  if (f == NULL) /* another finalizer came too late */
    ag_os_error(L, "EBADF", EBADF, "the file is closed", "file", NULL);
  return f;
}

static int fail(lua_State *L, ag_file *f, int status, const char *operation) {
  return ag_uv_error(L, status, operation, f->path);
}

static ag_file *check_open(lua_State *L, const char *operation) {
  ag_file *f = check_file(L);
  if (f->closed)
    ag_os_error(L, "EBADF", EBADF, "the file is closed", operation, f->path);
  return f;
}

static void cancel_wait(ag_wait *wait) { (void)wait; }

static int wait_for_work(lua_State *L, ag_file *f, lua_KContext context, lua_KFunction k) {
  if (ag_waiting(&f->wait))
    return ag_error(L, "RuntimeError", "another task uses the file already");
  f->wait.cancel = cancel_wait;
  return ag_suspend(L, &f->wait, context, k);
}

static int work(lua_State *L, ag_file *f, ag_file_work kind, lua_KContext context, lua_KFunction k) {
  ag_suspend_check(L);
  ag_file_begin(f, kind);
  return wait_for_work(L, f, context, k);
}

/* Raises the error of a write that failed, once. */
static void check_written(lua_State *L, ag_file *f) {
  int status = f->write_status;
  f->write_status = 0;
  if (status != 0)
    fail(L, f, status, "write");
}

/* ---- reading ---- */

static bool make_chunk(ag_file *f, size_t wanted) {
  size_t held = ag_reader_held(&f->in);
  size_t size = wanted > held && wanted - held > AG_FILE_CHUNK ? AG_FILE_BIG_CHUNK : AG_FILE_CHUNK;
  f->chunk.length = f->chunk.size;
  if (f->chunk.size >= size)
    return true;
  char *chunk = realloc(f->chunk.data, size);
  if (chunk == NULL)
    return false;
  f->chunk.data = chunk;
  f->chunk.length = f->chunk.size = size;
  return true;
}

/* 1 the file, 2 the argument, 3 the kind, 4 where the search goes on. */
static int reading(lua_State *L, int status, lua_KContext begun) {
  (void)status;
  ag_file *f = check_open(L, "read");
  if (f->busy)
    return wait_for_work(L, f, begun, reading);
  if (f->out.length > 0)
    return work(L, f, AG_FILE_WRITE, begun, reading);
  check_written(L, f);
  if (!begun && f->in.status == AG_READ_END)
    f->in.status = 0; /* it may have grown */
  ag_read_kind kind = (ag_read_kind)lua_tointeger(L, 3);
  size_t searched = (size_t)lua_tointeger(L, 4);
  size_t wanted = kind == AG_READ_SOME ? (size_t)lua_tointeger(L, 2) : 0;
  ag_taken taken = AG_NEEDS_MORE; /* a number means as many, and fewer only at the end */
  if (wanted <= ag_reader_held(&f->in) || f->in.status != 0)
    taken = ag_reader_take(L, &f->in, kind, 2, &searched);
  if (taken == AG_TAKEN)
    return 1;
  if (taken == AG_BROKEN) {
    int error = f->in.status;
    f->in.status = 0;
    return fail(L, f, error, "read");
  }
  lua_pushinteger(L, (lua_Integer)searched);
  lua_replace(L, 4);
  if (!make_chunk(f, wanted > 0 ? wanted : f->in.wanted))
    return luaL_error(L, "not enough memory");
  return work(L, f, AG_FILE_READ, 1, reading);
}

static int start_reading(lua_State *L, ag_read_kind kind) {
  ag_file *f = check_file(L);
  if (!f->closed && !f->readable)
    return ag_os_error(L, "EBADF", EBADF, "the file is not open for reading", "read", f->path);
  lua_settop(L, 2);
  lua_pushinteger(L, kind);
  lua_pushinteger(L, 0);
  return reading(L, LUA_OK, 0);
}

static int file_read(lua_State *L) {
  check_file(L);
  return start_reading(L, ag_read_format(L, 2));
}

static int file_read_exactly(lua_State *L) {
  check_file(L);
  ag_check_count(L, 2);
  return start_reading(L, AG_READ_EXACTLY);
}

static int file_read_until(lua_State *L) {
  check_file(L);
  ag_check_separator(L, 2);
  return start_reading(L, AG_READ_UNTIL);
}

static int next_line(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  return file_read(L);
}

static int file_lines(lua_State *L) {
  check_open(L, "lines");
  ag_read_format(L, 2);
  lua_settop(L, 2);
  lua_pushcclosure(L, next_line, 2);
  return 1;
}

/* ---- writing ---- */

/* Steps back over what was read ahead, or is being read for a task that was cancelled. */
static void forget_ahead(ag_file *f) {
  f->obsolete = true;
  if (ag_reader_held(&f->in) > 0) {
    f->position -= (int64_t)ag_reader_held(&f->in);
    ag_file_share_place(f);
  }
  ag_reader_clear(&f->in);
  f->in.status = 0;
}

static bool make_room(ag_file *f, size_t n) {
  if (f->out.size - f->out.length >= n)
    return true;
  size_t size = f->out.length + n < AG_FILE_CHUNK ? AG_FILE_CHUNK : f->out.length + n;
  char *data = realloc(f->out.data, size);
  if (data == NULL)
    return false;
  f->out.data = data;
  f->out.size = size;
  return true;
}

/* Gathers the arguments. */
static void gather(lua_State *L, ag_file *f) {
  int n = lua_gettop(L);
  size_t total = 0, length;
  for (int i = 2; i <= n; i++) {
    lua_tolstring(L, i, &length);
    total += length;
  }
  if (!make_room(f, total))
    luaL_error(L, "not enough memory");
  forget_ahead(f);
  for (int i = 2; i <= n; i++) {
    const char *data = lua_tolstring(L, i, &length);
    if (length == 0)
      continue;
    memcpy(f->out.data + f->out.length, data, length);
    f->out.length += length;
  }
  f->position += (int64_t)total;
}

static int writing(lua_State *L, int status, lua_KContext gathered) {
  (void)status;
  ag_file *f = check_open(L, "write");
  check_written(L, f);
  if (!gathered)
    gather(L, f);
  if (f->busy && (f->kind == AG_FILE_WRITE || f->out.length >= AG_FILE_CHUNK))
    return wait_for_work(L, f, 1, writing);
  if (f->out.length >= AG_FILE_CHUNK)
    return work(L, f, AG_FILE_WRITE, 1, writing);
  lua_settop(L, 1);
  return 1;
}

static int file_write(lua_State *L) {
  ag_file *f = check_open(L, "write");
  if (!f->writable)
    return ag_os_error(L, "EBADF", EBADF, "the file is not open for writing", "write", f->path);
  int n = lua_gettop(L);
  for (int i = 2; i <= n; i++)
    luaL_checkstring(L, i);
  return writing(L, LUA_OK, 0);
}

static int flushing(lua_State *L, int status, lua_KContext unused) {
  (void)status, (void)unused;
  ag_file *f = check_open(L, "flush");
  if (f->busy)
    return wait_for_work(L, f, 0, flushing);
  if (f->out.length > 0)
    return work(L, f, AG_FILE_WRITE, 0, flushing);
  check_written(L, f);
  return 1;
}

static int file_flush(lua_State *L) {
  lua_settop(L, 1);
  return flushing(L, LUA_OK, 0);
}

static int syncing(lua_State *L, int status, lua_KContext begun) {
  (void)status;
  ag_file *f = check_open(L, "sync");
  if (f->busy)
    return wait_for_work(L, f, begun, syncing);
  if (f->out.length > 0)
    return work(L, f, AG_FILE_WRITE, 0, syncing);
  check_written(L, f);
  if (!begun)
    return work(L, f, AG_FILE_SYNC, 1, syncing);
  if (f->kind == AG_FILE_SYNC && f->status != 0)
    return fail(L, f, f->status, "sync");
  return 1;
}

static int file_sync(lua_State *L) {
  lua_settop(L, 1);
  return syncing(L, LUA_OK, 0);
}

/* ---- seeking ---- */

enum whence { FROM_START, FROM_HERE, FROM_END };

/* 1 the file, 2 whence, 3 offset. */
static int seeking(lua_State *L, int status, lua_KContext measured) {
  (void)status;
  ag_file *f = check_open(L, "seek");
  if (f->busy)
    return wait_for_work(L, f, measured, seeking);
  if (f->out.length > 0)
    return work(L, f, AG_FILE_WRITE, 0, seeking);
  check_written(L, f);
  if (!f->seekable)
    return fail(L, f, UV_ESPIPE, "seek");
  int whence = (int)lua_tointeger(L, 2);
  ag_file_find_place(f);
  int64_t base = whence == FROM_HERE ? f->position - (int64_t)ag_reader_held(&f->in) : 0;
  if (whence == FROM_END) {
    if (!measured)
      return work(L, f, AG_FILE_MEASURE, 1, seeking);
    if (f->kind == AG_FILE_MEASURE && f->status != 0)
      return fail(L, f, f->status, "seek");
    base = f->end;
  }
  int64_t target;
  if (__builtin_add_overflow(base, (int64_t)lua_tointeger(L, 3), &target) || target < 0)
    return fail(L, f, UV_EINVAL, "seek");
  forget_ahead(f);
  f->position = target;
  ag_file_share_place(f);
  lua_pushinteger(L, target);
  return 1;
}

static int file_seek(lua_State *L) {
  static const char *const names[] = {"set", "cur", "end", NULL};
  check_open(L, "seek");
  int whence = luaL_checkoption(L, 2, "cur", names);
  lua_Integer offset = luaL_optinteger(L, 3, 0);
  lua_settop(L, 1);
  lua_pushinteger(L, whence);
  lua_pushinteger(L, offset);
  return seeking(L, LUA_OK, 0);
}

/* ---- closing ---- */

/* [quiet]: an error is on its way already. */
static int closing(lua_State *L, int status, lua_KContext quiet) {
  (void)status;
  ag_file *f = check_file(L);
  if (f->fd >= 0)
    return wait_for_work(L, f, quiet, closing);
  int error = f->write_status;
  f->write_status = 0;
  return error != 0 && !quiet ? fail(L, f, error, "close") : 0;
}

static int close_file(lua_State *L, bool quiet) {
  ag_file *f = check_file(L);
  lua_settop(L, 1);
  if (f->closed)
    return 0;
  ag_file_shut(f);
  if (f->fd >= 0 && !lua_isyieldable(L))
    return 0; /* a callback cannot wait for what goes on all the same */
  return closing(L, LUA_OK, quiet);
}

static int file_close(lua_State *L) { return close_file(L, false); }

static int file_close_scope(lua_State *L) { return close_file(L, !lua_isnoneornil(L, 2)); }

static int file_gc(lua_State *L) {
  ag_file **box = lua_touserdata(L, 1);
  ag_file *f = *box;
  *box = NULL;
  if (f == NULL)
    return 0;
  f->owned = false;
  ag_file_shut(f);
  ag_file_free_if_unused(f);
  return 0;
}

static int file_tostring(lua_State *L) {
  ag_file *f = check_file(L);
  lua_pushfstring(L, f->closed ? "agather.File (%s, closed)" : "agather.File (%s)", f->path);
  return 1;
}

int ag_file_descriptor(lua_State *L, int index, const char *operation) {
  ag_file **box = luaL_testudata(L, index, AG_FILE);
  if (box == NULL)
    return -1;
  ag_file *f = *box;
  if (f->closed)
    ag_os_error(L, "EBADF", EBADF, "the file is closed", operation, f->path);
  if (f->seekable) {
    if (!f->busy)
      ag_file_find_place(f);
    forget_ahead(f);
    f->shared = true;
    ag_file_share_place(f);
  }
  return f->fd;
}

void ag_open_file(lua_State *L) {
  static const luaL_Reg methods[] = {{"read", file_read},
                                     {"read_exactly", file_read_exactly},
                                     {"read_until", file_read_until},
                                     {"lines", file_lines},
                                     {"write", file_write},
                                     {"flush", file_flush},
                                     {"sync", file_sync},
                                     {"seek", file_seek},
                                     {"close", file_close},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__gc", file_gc}, {"__close", file_close_scope}, {"__tostring", file_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, AG_FILE);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, fs_open);
  lua_setfield(L, -2, "fs_open");
}
