/* Children: started with an argument vector, waited for by any number of tasks, sent signals, reaped. What a script
** says about them is made plain in lua/agather/process.lua.
**
** The struct outlives its userdata while libuv has the handle, so a child that nobody refers to is still reaped. One
** that runs when its loop closes is killed: it would be a zombie, or nobody's. */
#include "uv/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uv/file.h"
#include "uv/signal.h"
#include "uv/stream.h"

#define PROCESS "agather.Process"

typedef struct waiter waiter;

typedef struct process {
  uv_close_cb on_close; /* first, as in all handles; the reactor calls ag_process_shut instead */
  uv_process_t handle;
  waiter *waiters;
  int status, signal; /* how it ended */
  bool group;         /* it leads a process group, which signals go to */
  bool ending;        /* what is left of its group when it ends is killed */
  bool ended;
  bool lost;  /* somebody else has reaped it: how it ended is unknown */
  bool open;  /* libuv has the handle */
  bool owned; /* a userdata refers to it */
} process;

/* One task that waits; a userdata on its stack. */
struct waiter {
  ag_wait wait;
  waiter *next, **place; /* place: what points here; NULL: on no list */
};

/* ---- life ---- */

static void free_if_unused(process *p) {
  if (!p->open && !p->owned)
    free(p);
}

static void on_close(uv_handle_t *handle) {
  process *p = handle->data;
  p->open = false;
  free_if_unused(p);
}

static int close_handle(void *data) {
  uv_close((uv_handle_t *)&((process *)data)->handle, on_close);
  return 0;
}

static void take_off(waiter *w) {
  if (w->place == NULL)
    return;
  *w->place = w->next;
  if (w->next != NULL)
    w->next->place = w->place;
  w->place = NULL;
}

/* The child is reaped: its handle goes, and with the last handle libuv's hold on SIGCHLD. */
static void finish(process *p, int status, int signal_number) {
  p->ended = true;
  p->status = status;
  p->signal = signal_number;
  while (p->waiters != NULL) {
    waiter *w = p->waiters;
    take_off(w);
    ag_wake(&w->wait);
  }
  ag_signal_end(SIGCHLD, close_handle, p);
}

static int send_signal(const process *p, int number) {
  return kill(p->group ? -p->handle.pid : p->handle.pid, number) == 0 ? 0 : -errno;
}

/* It has just been reaped, so no other process can have its id yet; and none can while the group has members. */
static void reaped(process *p, int status, int signal_number) {
  if (p->group && p->ending)
    send_signal(p, SIGKILL);
  finish(p, status, signal_number);
}

static void on_exit_status(uv_process_t *handle, int64_t status, int signal_number) {
  reaped(handle->data, (int)status, signal_number);
}

static int exit_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 0; }
static int exit_signal(int status) { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }

/* Sees for itself whether the child has ended. libuv does not hear of it where the host has taken SIGCHLD away, and
** forgets a child that the host has reaped: its id may be another process's by now. */
static void look_after(process *p) {
  int status = 0;
  pid_t id = p->ended ? 0 : waitpid(p->handle.pid, &status, WNOHANG);
  if (id > 0) {
    reaped(p, exit_status(status), exit_signal(status));
  } else if (id < 0 && errno == ECHILD) {
    p->lost = true;
    finish(p, 0, 0);
  }
}

void ag_process_shut(uv_handle_t *handle) {
  process *p = handle->data;
  int status = 0;
  int unkillable = send_signal(p, SIGKILL) == -EPERM ? WNOHANG : 0; /* it runs as another user: not to be waited for */
  while (waitpid(p->handle.pid, &status, unkillable) < 0 && errno == EINTR) {
  }
  finish(p, exit_status(status), exit_signal(status));
}

static process *check_process(lua_State *L) {
  process *p = *(process **)luaL_checkudata(L, 1, PROCESS);
  if (p == NULL)
    ag_os_error(L, "EBADF", EBADF, "the process was collected", "process", NULL);
  return p;
}

static int process_gc(lua_State *L) {
  process **box = lua_touserdata(L, 1);
  process *p = *box;
  *box = NULL;
  if (p != NULL) {
    p->owned = false;
    free_if_unused(p);
  }
  return 0;
}

/* ---- standard input, output and error ---- */

/* What one of them is to be. A pipe has our end in [stream]. */
typedef struct channel {
  ag_stream *stream; /* of a pipe: ours; borrowed from its userdata */
  ag_stream *given;  /* the stream that the child takes over; borrowed */
  int fd;            /* the child's; -1: /dev/null */
  bool ours;         /* fd is to be closed after the start */
  bool merged;       /* the same as standard output */
} channel;

enum { FIRST_CHANNEL = 6 }; /* index of the argument that tells about standard input */

/* Why the value at [index] cannot be handed to a child, or NULL. Of a stream the child takes the descriptor, and would
** miss what has been read already. */
static const char *channel_problem(lua_State *L, int index) {
  ag_stream **stream = luaL_testudata(L, index, AG_STREAM);
  luaL_Stream *file = luaL_testudata(L, index, LUA_FILEHANDLE);
  if (file != NULL)
    return file->closef == NULL ? "the file is closed" : NULL;
  if (stream == NULL)
    return NULL;
  uv_os_fd_t fd;
  ag_stream *s = *stream;
  if (s == NULL || s->closed || uv_fileno(&s->handle.any, &fd) != 0)
    return "the stream is closed";
  if (ag_reader_held(&s->in) != 0 || ag_waiting(&s->reader))
    return "the stream has been read from";
  if (uv_stream_get_write_queue_size(&s->handle.stream) != 0)
    return "the stream has bytes to be written";
  return NULL;
}

/* process_problem(value): nil, or why it cannot be handed to a child. */
static int process_problem(lua_State *L) {
  lua_pushstring(L, channel_problem(L, 1));
  return 1;
}

static void use_stream(channel *c, ag_stream *s) {
  uv_os_fd_t fd;
  c->given = s;
  c->fd = uv_fileno(&s->handle.any, &fd) == 0 ? fd : -1;
}

static void use_lua_file(channel *c, luaL_Stream *file) {
  fflush(file->f);
  c->fd = fileno(file->f);
}

/* Makes no pipe yet, but the userdata of a stream for one, in its place. */
static void prepare_channel(lua_State *L, channel *c, int number) {
  int arg = FIRST_CHANNEL + number;
  if (lua_type(L, arg) != LUA_TSTRING || strcmp(lua_tostring(L, arg), "pipe") != 0)
    return;
  c->stream = ag_stream_new(L, UV_NAMED_PIPE, "process.spawn");
  lua_replace(L, arg);
}

/* Reads what the argument says. Takes no memory, for a finalizer could close what was read. */
static void check_channel(lua_State *L, channel *c, int number) {
  int arg = FIRST_CHANNEL + number;
  c->fd = -1;
  if (c->stream != NULL)
    return;
  const char *problem = channel_problem(L, arg);
  if (problem != NULL)
    luaL_argerror(L, arg, problem);
  if (luaL_testudata(L, arg, AG_STREAM) != NULL) {
    use_stream(c, *(ag_stream **)lua_touserdata(L, arg));
  } else if (luaL_testudata(L, arg, LUA_FILEHANDLE) != NULL) {
    use_lua_file(c, lua_touserdata(L, arg));
  } else if (luaL_testudata(L, arg, AG_FILE) != NULL) {
    c->fd = ag_file_descriptor(L, arg, "process.spawn");
  } else {
    const char *what = luaL_checkstring(L, arg);
    c->merged = strcmp(what, "stdout") == 0;
    if (strcmp(what, "inherit") == 0)
      c->fd = number;
  }
}

/* Makes the pipe of a channel: a real one, which children may open again by /dev/stdin, as they may not a socket. */
static int open_pipe(channel *c, int number) {
  uv_file ends[2];
  bool to_child = number == 0;
  int status = uv_pipe(ends, to_child ? 0 : UV_NONBLOCK_PIPE, to_child ? UV_NONBLOCK_PIPE : 0);
  if (status != 0)
    return status;
  int ours = ends[to_child ? 1 : 0];
  c->fd = ends[to_child ? 0 : 1];
  c->ours = true;
  status = uv_pipe_open(&c->stream->handle.pipe, ours);
  if (status != 0)
    close(ours);
  return status;
}

static int open_pipes(channel channels[3]) {
  for (int i = 0; i < 3; i++) {
    int status = channels[i].stream != NULL ? open_pipe(&channels[i], i) : 0;
    if (status != 0)
      return status;
  }
  return 0;
}

static void fill_stdio(uv_stdio_container_t stdio[3], const channel channels[3]) {
  for (int i = 0; i < 3; i++) {
    const channel *c = channels[i].merged ? &channels[1] : &channels[i];
    stdio[i].flags = c->fd < 0 ? UV_IGNORE : UV_INHERIT_FD;
    stdio[i].data.fd = c->fd;
  }
}

/* After the start: the child's ends of pipes are the child's alone, and so are streams that it took over. The child
** that was not to be has made their descriptors blocking. */
static void finish_channels(channel channels[3], bool started) {
  for (int i = 0; i < 3; i++) {
    channel *c = &channels[i];
    if (c->ours)
      close(c->fd);
    if (c->stream != NULL && !started)
      ag_stream_drop(c->stream);
    if (c->given != NULL && started)
      ag_stream_drop(c->given);
    else if (c->given != NULL)
      fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
  }
}

/* ---- starting ---- */

/* A vector of the strings in the list at [arg]; the list and a userdata on the stack keep it. */
static char **check_vector(lua_State *L, int arg) {
  luaL_checktype(L, arg, LUA_TTABLE);
  lua_Integer n = (lua_Integer)lua_rawlen(L, arg);
  char **vector = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *vector, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, arg, i);
    size_t length;
    const char *text = luaL_checklstring(L, -1, &length);
    luaL_argcheck(L, strlen(text) == length, arg, "string contains a zero byte");
    vector[i - 1] = (char *)text;
    lua_pop(L, 1);
  }
  vector[n] = NULL;
  return vector;
}

typedef struct start {
  uv_loop_t *loop;
  process *p;
  const uv_process_options_t *options;
} start;

/* libuv listens to SIGCHLD also for a child that was not to be, until its handle is closed. */
static int begin_process(void *data) {
  start *s = data;
  int status = uv_spawn(s->loop, &s->p->handle, s->options);
  if (status != 0)
    close_handle(s->p);
  return status;
}

static bool is_directory(const char *path) {
  struct stat s;
  return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static int spawn(lua_State *L, process *p, channel channels[3], uv_process_options_t *options) {
  uv_stdio_container_t stdio[3];
  start s = {ag_uv_loop_for_handle(L, "process.spawn"), p, options};
  int status = open_pipes(channels);
  if (status == 0) {
    fill_stdio(stdio, channels);
    options->stdio = stdio;
    options->stdio_count = 3;
    options->exit_cb = on_exit_status;
    p->handle.data = p;
    p->open = true; /* whatever comes of it, libuv knows the handle now */
    status = ag_signal_begin(SIGCHLD, begin_process, &s);
  }
  finish_channels(channels, status == 0);
  return status;
}

/* process_spawn(vector, environment or nil, cwd or nil, group, operation, stdin, stdout, stderr): the process, and the
** streams of those that are pipes, nil for the others. stderr may be "stdout". */
static int process_spawn(lua_State *L) {
  lua_settop(L, FIRST_CHANNEL + 2);
  const char *operation = luaL_checkstring(L, 5);
  channel channels[3];
  memset(channels, 0, sizeof channels);
  uv_process_options_t options;
  memset(&options, 0, sizeof options);
  options.args = check_vector(L, 1);
  options.file = options.args[0];
  options.env = lua_isnil(L, 2) ? NULL : check_vector(L, 2);
  options.cwd = luaL_optstring(L, 3, NULL);
  options.flags = lua_toboolean(L, 4) ? UV_PROCESS_DETACHED : 0;
  process **box = lua_newuserdatauv(L, sizeof(void *), 0);
  *box = NULL;
  luaL_setmetatable(L, PROCESS);
  int result = lua_gettop(L);
  ag_uv_loop(L, operation);
  for (int i = 0; i < 3; i++)
    prepare_channel(L, &channels[i], i);
  for (int i = 0; i < 3; i++)
    check_channel(L, &channels[i], i);
  process *p = calloc(1, sizeof *p);
  if (p == NULL)
    return luaL_error(L, "not enough memory");
  p->on_close = on_close;
  p->group = lua_toboolean(L, 4);
  p->owned = true;
  *box = p;
  int status = spawn(L, p, channels, &options);
  if (status != 0) {
    bool no_folder = options.cwd != NULL && !is_directory(options.cwd);
    return ag_uv_error(L, status, operation, no_folder ? options.cwd : options.file);
  }
  lua_pushvalue(L, result);
  for (int i = 0; i < 3; i++) {
    if (channels[i].stream != NULL)
      lua_pushvalue(L, FIRST_CHANNEL + i);
    else
      lua_pushnil(L);
  }
  return 4;
}

/* ---- methods ---- */

static int process_pid(lua_State *L) {
  lua_pushinteger(L, check_process(L)->handle.pid);
  return 1;
}

static int process_running(lua_State *L) {
  process *p = check_process(L);
  look_after(p);
  lua_pushboolean(L, !p->ended);
  return 1;
}

static void cancel_wait(ag_wait *wait) { take_off((waiter *)wait); }

/* The exit status or nil, and the name of the signal that ended it or nil. */
static int waited(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  process *p = check_process(L);
  if (p->lost)
    return ag_uv_error(L, -ECHILD, "process.wait", lua_pushfstring(L, "%d", p->handle.pid));
  if (p->signal != 0) {
    lua_pushnil(L);
    ag_signal_push_name(L, p->signal);
  } else {
    lua_pushinteger(L, p->status);
    lua_pushnil(L);
  }
  return 2;
}

static int process_wait(lua_State *L) {
  process *p = check_process(L);
  lua_settop(L, 1);
  if (!p->ended)
    ag_suspend_check(L);
  waiter *w = lua_newuserdatauv(L, sizeof *w, 0);
  memset(w, 0, sizeof *w);
  if (p->ended) /* asked last: a finalizer may have let the loop run */
    return waited(L, LUA_OK, 0);
  w->wait.cancel = cancel_wait;
  w->place = &p->waiters;
  w->next = p->waiters;
  if (w->next != NULL)
    w->next->place = &w->next;
  p->waiters = w;
  return ag_suspend(L, &w->wait, 0, waited);
}

/* kill(signal): whether the child was there to get it. */
static int process_kill(lua_State *L) {
  process *p = check_process(L);
  int number = ag_signal_check(L, 2);
  look_after(p);
  if (p->ended) {
    lua_pushboolean(L, false);
    return 1;
  }
  int status = send_signal(p, number);
  if (status != 0 && status != UV_ESRCH)
    return ag_uv_error(L, status, "process.kill", lua_pushfstring(L, "%d", p->handle.pid));
  lua_pushboolean(L, status == 0);
  return 1;
}

/* end_group(): from now on what is left of its group when it ends is killed. */
static int process_end_group(lua_State *L) {
  check_process(L)->ending = true;
  return 0;
}

/* process_environment(): a list of "NAME=value". */
static int process_environment(lua_State *L) {
  extern char **environ;
  lua_newtable(L);
  for (lua_Integer i = 0; environ != NULL && environ[i] != NULL; i++) {
    lua_pushstring(L, environ[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

void ag_open_process(lua_State *L) {
  static const luaL_Reg methods[] = {{"pid", process_pid},   {"running", process_running},     {"wait", process_wait},
                                     {"kill", process_kill}, {"end_group", process_end_group}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"process_spawn", process_spawn},
                                       {"process_environment", process_environment},
                                       {"process_problem", process_problem},
                                       {NULL, NULL}};
  luaL_newmetatable(L, PROCESS);
  lua_pushcfunction(L, process_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
