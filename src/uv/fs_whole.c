/* Files read, written and copied as a whole, each in one job: so a write that is cancelled, or that finds the disk
** full, takes its temporary file with it. libuv's own copying would go on for ever where a file shrinks meanwhile. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uv/job.h"

/* PIECE: bytes in one call, between looks at whether the job was cancelled. */
enum { FIRST_READ = 4096, PIECE = 1 << 20, COPY_PIECE = 1 << 26, TRIES = 100 };

static size_t piece(size_t left) { return left < PIECE ? left : PIECE; }

/* A pipe or terminal that is opened must not hold a thread of the pool for ever; a file does not mind. */
enum { OPEN_FLAGS = O_CLOEXEC | O_NOCTTY | O_NONBLOCK };

static int open_retrying(const char *path, int flags, mode_t mode) {
  int fd;
  do
    fd = open(path, flags | OPEN_FLAGS, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

/* ---- reading ---- */

typedef struct read_job {
  job base;
  char *data;
  size_t length, size;
} read_job;

static int grow(read_job *r, size_t size) {
  char *data = realloc(r->data, size);
  if (data == NULL)
    return -ENOMEM;
  r->data = data;
  r->size = size;
  return 0;
}

static int read_to_end(read_job *r, int fd) {
  struct stat s;
  if (fstat(fd, &s) != 0)
    return -errno;
  /* One byte more than is known to come, so that the end is seen without another buffer. */
  size_t expected = S_ISREG(s.st_mode) && s.st_size > 0 ? (size_t)s.st_size + 1 : FIRST_READ;
  int status = grow(r, expected);
  while (status == 0) {
    if (r->base.cancelled)
      return -ECANCELED;
    ssize_t n = read(fd, r->data + r->length, piece(r->size - r->length));
    if (n == 0)
      return 0;
    if (n < 0 && errno != EINTR)
      return -errno;
    if (n > 0)
      r->length += (size_t)n;
    if (r->length == r->size)
      status = grow(r, r->size * 2);
  }
  return status;
}

static int run_read(job *j) {
  int fd = open_retrying(j->path, O_RDONLY, 0);
  if (fd < 0)
    return -errno;
  int status = read_to_end((read_job *)j, fd);
  close(fd);
  return status;
}

static int push_data(lua_State *L, job *j) {
  read_job *r = (read_job *)j;
  lua_pushlstring(L, r->data, r->length);
  return 1;
}

static void drop_read(job *j) {
  read_job *r = (read_job *)j;
  free(r->data);
  r->data = NULL;
}

static int fs_read_file(lua_State *L) {
  static const job_type type = {"fs.read_file", run_read, push_data, drop_read};
  read_job *r = ag_job_new(L, sizeof *r, &type);
  r->base.path = ag_job_path(L, 1);
  return ag_job_run(L, &r->base);
}

/* ---- writing ---- */

typedef struct write_job {
  job base;
  char *data;
  size_t length;
  int mode; /* -1: what the file has, or the default */
  bool atomic;
} write_job;

static int write_all(const write_job *w, int fd) {
  size_t done = 0;
  while (done < w->length) {
    if (w->base.cancelled)
      return -ECANCELED;
    ssize_t n = write(fd, w->data + done, piece(w->length - done));
    if (n < 0 && errno != EINTR)
      return -errno;
    if (n > 0)
      done += (size_t)n;
  }
  return 0;
}

static int write_in_place(const write_job *w) {
  int fd = open_retrying(w->base.path, O_WRONLY | O_CREAT | O_TRUNC, w->mode < 0 ? 0666 : (mode_t)w->mode);
  if (fd < 0)
    return -errno;
  int status = write_all(w, fd);
  if (status == 0 && w->mode >= 0 && fchmod(fd, (mode_t)w->mode) != 0)
    status = -errno;
  if (close(fd) != 0 && status == 0 && errno != EINTR)
    status = -errno;
  return status;
}

/* Opens a new file beside [path]; its name is written to [name]. Returns the descriptor or a negative errno. */
static int open_beside(const char *path, size_t folder, char *name, mode_t mode) {
  for (int i = 0; i < TRIES; i++) {
    unsigned long long number = 0;
    if (getrandom(&number, sizeof number, 0) < 0)
      return -errno;
    sprintf(name, "%.*s.agather-%016llx", (int)folder, path, number);
    int fd = open_retrying(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    if (fd >= 0 || errno != EEXIST)
      return fd >= 0 ? fd : -errno;
  }
  return -EEXIST;
}

/* So that the new name survives a loss of power. A file system that cannot is none of the caller's business. */
static void sync_folder(const char *path, size_t folder) {
  char *name = folder > 0 ? strndup(path, folder) : strdup(".");
  int fd = name != NULL ? open_retrying(name, O_RDONLY | O_DIRECTORY, 0) : -1;
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
  free(name);
}

/* The mode that the new file gets beside what umask leaves of the default: -1 for none. */
static int wanted_mode(const write_job *w) {
  struct stat s;
  if (w->mode >= 0)
    return w->mode;
  return stat(w->base.path, &s) == 0 ? (int)(s.st_mode & 07777) : -1;
}

static int write_beside(const write_job *w) {
  const char *slash = strrchr(w->base.path, '/');
  size_t folder = slash != NULL ? (size_t)(slash - w->base.path) + 1 : 0;
  char *name = malloc(folder + 32);
  if (name == NULL)
    return -ENOMEM;
  int mode = wanted_mode(w);
  int fd = open_beside(w->base.path, folder, name, mode < 0 ? 0666 : 0600);
  if (fd < 0) {
    free(name);
    return fd;
  }
  int status = write_all(w, fd);
  if (status == 0 && mode >= 0 && fchmod(fd, (mode_t)mode) != 0)
    status = -errno;
  if (status == 0 && fsync(fd) != 0)
    status = -errno;
  if (close(fd) != 0 && status == 0 && errno != EINTR)
    status = -errno;
  if (status == 0 && w->base.cancelled)
    status = -ECANCELED;
  if (status == 0 && rename(name, w->base.path) != 0)
    status = -errno;
  if (status == 0)
    sync_folder(w->base.path, folder);
  else
    unlink(name);
  free(name);
  return status;
}

static int run_write(job *j) {
  const write_job *w = (write_job *)j;
  return w->atomic ? write_beside(w) : write_in_place(w);
}

static void drop_write(job *j) {
  write_job *w = (write_job *)j;
  free(w->data);
  w->data = NULL;
}

/* write_file(path, data, mode or nil, atomic) */
static int fs_write_file(lua_State *L) {
  static const job_type type = {"fs.write_file", run_write, NULL, drop_write};
  size_t length;
  const char *data = luaL_checklstring(L, 2, &length);
  write_job *w = ag_job_new(L, sizeof *w, &type);
  w->base.path = ag_job_path(L, 1);
  w->mode = (int)luaL_optinteger(L, 3, -1);
  w->atomic = lua_toboolean(L, 4);
  w->data = malloc(length + 1);
  if (w->data == NULL)
    return luaL_error(L, "not enough memory");
  memcpy(w->data, data, length);
  w->length = length;
  return ag_job_run(L, &w->base);
}

/* ---- copying ---- */

typedef struct copy_job {
  job base;
  bool exclusive;
} copy_job;

static int write_piece(int fd, const char *data, size_t length) {
  while (length > 0) {
    ssize_t n = write(fd, data, length);
    if (n < 0 && errno != EINTR)
      return -errno;
    if (n > 0) {
      data += n;
      length -= (size_t)n;
    }
  }
  return 0;
}

/* Through the kernel alone, as long as it can: returns 0 where it cannot, or thinks that this is the end. */
static int copy_in_kernel(const job *j, int from, int to) {
  ssize_t n = 1;
  while (n > 0 && !j->cancelled)
    n = copy_file_range(from, NULL, to, NULL, COPY_PIECE, 0);
  return n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) ? -errno : 0;
}

/* To the end, whatever the file was said to hold. */
static int copy_by_hand(const job *j, int from, int to) {
  char *data = malloc(PIECE);
  int status = data != NULL ? 0 : -ENOMEM;
  while (status == 0) {
    if (j->cancelled) {
      status = -ECANCELED;
      break;
    }
    ssize_t n = read(from, data, PIECE);
    if (n == 0)
      break;
    if (n < 0 && errno != EINTR)
      status = -errno;
    if (n > 0)
      status = write_piece(to, data, (size_t)n);
  }
  free(data);
  return status;
}

static int copy_open_files(const job *j, int from, int to, bool created, const struct stat *source) {
  struct stat target;
  if (fstat(to, &target) != 0)
    return -errno;
  if (target.st_dev == source->st_dev && target.st_ino == source->st_ino)
    return -EINVAL; /* emptying the one would empty the other */
  if (!created && S_ISREG(target.st_mode) && ftruncate(to, 0) != 0)
    return -errno;
  if (S_ISREG(target.st_mode) && fchmod(to, source->st_mode & 07777) != 0)
    return -errno;
  int status = copy_in_kernel(j, from, to);
  return status != 0 ? status : copy_by_hand(j, from, to);
}

static int copy_to(const copy_job *c, int from) {
  const char *path = c->base.other;
  struct stat source;
  if (fstat(from, &source) != 0)
    return -errno;
  if (S_ISDIR(source.st_mode))
    return -EISDIR;
  int to = open_retrying(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  bool created = to >= 0;
  if (!created && errno == EEXIST && !c->exclusive)
    to = open_retrying(path, O_WRONLY, 0);
  if (to < 0)
    return -errno;
  int status = copy_open_files(&c->base, from, to, created, &source);
  if (close(to) != 0 && status == 0 && errno != EINTR)
    status = -errno;
  if (status != 0 && created)
    unlink(path);
  return status;
}

static int run_copy(job *j) {
  int from = open_retrying(j->path, O_RDONLY, 0);
  if (from < 0)
    return -errno;
  int status = copy_to((copy_job *)j, from);
  close(from);
  return status;
}

/* copy_file(from, to, exclusive) */
static int fs_copy_file(lua_State *L) {
  static const job_type type = {"fs.copy_file", run_copy, NULL, NULL};
  copy_job *c = ag_job_new(L, sizeof *c, &type);
  c->base.path = ag_job_path(L, 1);
  c->base.other = ag_job_path(L, 2);
  c->exclusive = lua_toboolean(L, 3);
  return ag_job_run(L, &c->base);
}

void ag_open_fs_whole(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"fs_read_file", fs_read_file}, {"fs_write_file", fs_write_file}, {"fs_copy_file", fs_copy_file}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
