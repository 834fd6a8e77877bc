/* Files by their path: one job for each operation. Arguments have been checked in lua/agather/fs.lua, which also says
** what each does. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uv/job.h"

/* An operation on a path. */
typedef struct path_job {
  job base;
  int mode;
  bool flag;
  struct stat stat;
} path_job;

static path_job *new_path_job(lua_State *L, const job_type *type) {
  path_job *p = ag_job_new(L, sizeof *p, type);
  p->base.path = ag_job_path(L, 1);
  return p;
}

static int result_of(int returned) { return returned == 0 ? 0 : -errno; }

/* ---- what a path is ---- */

static const char *type_name(mode_t mode) {
  switch (mode & S_IFMT) {
  case S_IFREG:
    return "file";
  case S_IFDIR:
    return "directory";
  case S_IFLNK:
    return "link";
  case S_IFIFO:
    return "fifo";
  case S_IFSOCK:
    return "socket";
  case S_IFCHR:
    return "char";
  case S_IFBLK:
    return "block";
  default:
    return "unknown";
  }
}

static void set_time(lua_State *L, const char *name, struct timespec time) {
  lua_pushnumber(L, (lua_Number)time.tv_sec + (lua_Number)time.tv_nsec * 1e-9);
  lua_setfield(L, -2, name);
}

static void set_integer(lua_State *L, const char *name, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

static int push_stat(lua_State *L, job *j) {
  const struct stat *s = &((path_job *)j)->stat;
  lua_createtable(L, 0, 12);
  lua_pushstring(L, type_name(s->st_mode));
  lua_setfield(L, -2, "type");
  set_integer(L, "size", (lua_Integer)s->st_size);
  set_integer(L, "mode", (lua_Integer)(s->st_mode & 07777));
  set_integer(L, "uid", (lua_Integer)s->st_uid);
  set_integer(L, "gid", (lua_Integer)s->st_gid);
  set_integer(L, "dev", (lua_Integer)s->st_dev);
  set_integer(L, "ino", (lua_Integer)s->st_ino);
  set_integer(L, "nlink", (lua_Integer)s->st_nlink);
  set_time(L, "mtime", s->st_mtim);
  set_time(L, "atime", s->st_atim);
  set_time(L, "ctime", s->st_ctim);
  return 1;
}

static int run_stat(job *j) { return result_of(stat(j->path, &((path_job *)j)->stat)); }

static int run_lstat(job *j) { return result_of(lstat(j->path, &((path_job *)j)->stat)); }

static int fs_stat(lua_State *L) {
  static const job_type type = {"fs.stat", run_stat, push_stat, NULL};
  return ag_job_run(L, &new_path_job(L, &type)->base);
}

static int fs_lstat(lua_State *L) {
  static const job_type type = {"fs.lstat", run_lstat, push_stat, NULL};
  return ag_job_run(L, &new_path_job(L, &type)->base);
}

static int run_exists(job *j) {
  int status = run_stat(j);
  ((path_job *)j)->flag = status == 0;
  return status == -ENOENT || status == -ENOTDIR ? 0 : status;
}

static int push_flag(lua_State *L, job *j) {
  lua_pushboolean(L, ((path_job *)j)->flag);
  return 1;
}

static int fs_exists(lua_State *L) {
  static const job_type type = {"fs.exists", run_exists, push_flag, NULL};
  return ag_job_run(L, &new_path_job(L, &type)->base);
}

/* ---- folders ---- */

typedef struct entry {
  char *name;
  unsigned char type;
} entry;

typedef struct scan_job {
  job base;
  entry *entries;
  size_t count, size;
} scan_job;

static int compare_entries(const void *a, const void *b) {
  return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static int add_entry(scan_job *s, const struct dirent *d) {
  if (s->count == s->size) {
    size_t size = s->size ? s->size * 2 : 32;
    entry *entries = realloc(s->entries, size * sizeof *entries);
    if (entries == NULL)
      return -ENOMEM;
    s->entries = entries;
    s->size = size;
  }
  char *name = strdup(d->d_name);
  if (name == NULL)
    return -ENOMEM;
  entry *e = &s->entries[s->count++];
  e->name = name;
  e->type = d->d_type;
  return 0;
}

static bool is_self_or_parent(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

/* Some file systems do not tell what an entry is: then lstat does. */
static void find_type(DIR *dir, entry *e) {
  struct stat s;
  if (e->type == DT_UNKNOWN && fstatat(dirfd(dir), e->name, &s, AT_SYMLINK_NOFOLLOW) == 0)
    e->type = (unsigned char)IFTODT(s.st_mode);
}

static int run_scandir(job *j) {
  scan_job *s = (scan_job *)j;
  DIR *dir;
  do
    dir = opendir(j->path);
  while (dir == NULL && errno == EINTR);
  if (dir == NULL)
    return -errno;
  int status = 0;
  while (status == 0 && !j->cancelled) {
    errno = 0;
    const struct dirent *d = readdir(dir);
    if (d == NULL) {
      status = -errno;
      break;
    }
    if (is_self_or_parent(d->d_name))
      continue;
    status = add_entry(s, d);
    if (status == 0)
      find_type(dir, &s->entries[s->count - 1]);
  }
  closedir(dir);
  if (s->count > 0)
    qsort(s->entries, s->count, sizeof *s->entries, compare_entries);
  return status;
}

static int push_entries(lua_State *L, job *j) {
  scan_job *s = (scan_job *)j;
  lua_createtable(L, (int)s->count, 0);
  for (size_t i = 0; i < s->count; i++) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, s->entries[i].name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, type_name(DTTOIF(s->entries[i].type)));
    lua_setfield(L, -2, "type");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static void drop_entries(job *j) {
  scan_job *s = (scan_job *)j;
  for (size_t i = 0; i < s->count; i++)
    free(s->entries[i].name);
  free(s->entries);
}

static int fs_scandir(lua_State *L) {
  static const job_type type = {"fs.scandir", run_scandir, push_entries, drop_entries};
  scan_job *s = ag_job_new(L, sizeof *s, &type);
  s->base.path = ag_job_path(L, 1);
  return ag_job_run(L, &s->base);
}

static bool is_directory(const char *path) {
  struct stat s;
  return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

/* 0 where a folder is at the path that mkdir gave [error] for, or why there is none. */
static int folder_there(const char *path, int error) {
  struct stat s;
  int found = stat(path, &s);
  if (found == 0 && S_ISDIR(s.st_mode))
    return 0;
  if (error != EEXIST)
    return -error;
  return found == 0 ? -ENOTDIR : -errno;
}

/* Makes the folders above the last, each with the default mode, then the last. */
static int make_parents(char *path, int mode) {
  for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    int status = mkdir(path, 0777) == 0 ? 0 : folder_there(path, errno);
    *slash = '/';
    if (status != 0)
      return status;
  }
  if (mkdir(path, (mode_t)mode) == 0)
    return 0;
  int error = errno;
  return is_directory(path) ? 0 : -error;
}

static int run_mkdir(job *j) {
  path_job *p = (path_job *)j;
  if (p->flag && j->path[0] != '\0')
    return make_parents(j->path, p->mode);
  return result_of(mkdir(j->path, (mode_t)p->mode));
}

/* mkdir(path, mode, parents) */
static int fs_mkdir(lua_State *L) {
  static const job_type type = {"fs.mkdir", run_mkdir, NULL, NULL};
  path_job *p = new_path_job(L, &type);
  p->mode = (int)luaL_checkinteger(L, 2);
  p->flag = lua_toboolean(L, 3);
  return ag_job_run(L, &p->base);
}

/* ---- moving and removing ---- */

static int run_rename(job *j) { return result_of(rename(j->path, j->other)); }

static int fs_rename(lua_State *L) {
  static const job_type type = {"fs.rename", run_rename, NULL, NULL};
  path_job *p = new_path_job(L, &type);
  p->base.other = ag_job_path(L, 2);
  return ag_job_run(L, &p->base);
}

static int remove_entry(const job *j, int parent, const char *name);

/* Removes what is in the open folder. [removed] tells whether there was anything. */
static int empty_folder(const job *j, DIR *dir, bool *removed) {
  for (;;) {
    errno = 0;
    const struct dirent *d = readdir(dir);
    if (d == NULL)
      return -errno;
    if (is_self_or_parent(d->d_name))
      continue;
    int status = j->cancelled ? -ECANCELED : remove_entry(j, dirfd(dir), d->d_name);
    if (status != 0 && status != -ENOENT)
      return status;
    *removed = true;
  }
}

/* Each step goes from an open folder to a name in it that is no link, so nobody can lead it out of the tree. */
static int remove_entry(const job *j, int parent, const char *name) {
  if (unlinkat(parent, name, 0) == 0)
    return 0;
  if (errno != EISDIR && errno != EPERM)
    return -errno;
  int error = errno;
  int fd;
  do
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  if (fd < 0)
    return errno == ENOTDIR || errno == ELOOP ? -error : -errno;
  DIR *dir = fdopendir(fd);
  if (dir == NULL) {
    error = errno;
    close(fd);
    return -error;
  }
  int status;
  bool removed;
  do {
    removed = false;
    rewinddir(dir);
    status = empty_folder(j, dir, &removed);
    if (status == 0)
      status = result_of(unlinkat(parent, name, AT_REMOVEDIR));
  } while (status == -ENOTEMPTY && removed); /* others write into it, or the file system skipped some */
  closedir(dir);
  return status;
}

static int run_remove(job *j) {
  if (((path_job *)j)->flag)
    return remove_entry(j, AT_FDCWD, j->path);
  return result_of(remove(j->path));
}

/* remove(path, recursive) */
static int fs_remove(lua_State *L) {
  static const job_type type = {"fs.remove", run_remove, NULL, NULL};
  path_job *p = new_path_job(L, &type);
  p->flag = lua_toboolean(L, 2);
  return ag_job_run(L, &p->base);
}

void ag_open_fs(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"fs_stat", fs_stat},   {"fs_lstat", fs_lstat},   {"fs_exists", fs_exists}, {"fs_scandir", fs_scandir},
      {"fs_mkdir", fs_mkdir}, {"fs_rename", fs_rename}, {"fs_remove", fs_remove}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
