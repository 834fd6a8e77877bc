/* A listener hears some signals; a task waits for the next. A signal that comes again before the task has taken the
** first counts once, as in POSIX. Dispositions belong to the process: they are the one thing here that is shared by
** all loops, behind a lock. */
#include "uv/signal.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LISTENER "agather.SignalListener"

enum { SIGNALS = 65 };

/* ---- names ---- */

static const struct {
  const char *name;
  int number;
} names[] = {
    {"SIGHUP", SIGHUP},   {"SIGINT", SIGINT},     {"SIGQUIT", SIGQUIT}, {"SIGILL", SIGILL},   {"SIGTRAP", SIGTRAP},
    {"SIGABRT", SIGABRT}, {"SIGBUS", SIGBUS},     {"SIGFPE", SIGFPE},   {"SIGKILL", SIGKILL}, {"SIGUSR1", SIGUSR1},
    {"SIGSEGV", SIGSEGV}, {"SIGUSR2", SIGUSR2},   {"SIGPIPE", SIGPIPE}, {"SIGALRM", SIGALRM}, {"SIGTERM", SIGTERM},
    {"SIGCHLD", SIGCHLD}, {"SIGCONT", SIGCONT},   {"SIGSTOP", SIGSTOP}, {"SIGTSTP", SIGTSTP}, {"SIGTTIN", SIGTTIN},
    {"SIGTTOU", SIGTTOU}, {"SIGURG", SIGURG},     {"SIGXCPU", SIGXCPU}, {"SIGXFSZ", SIGXFSZ}, {"SIGVTALRM", SIGVTALRM},
    {"SIGPROF", SIGPROF}, {"SIGWINCH", SIGWINCH}, {"SIGIO", SIGIO},     {"SIGSYS", SIGSYS},
};

enum { NAMES = sizeof names / sizeof *names };

/* The number of the signal at [index]; 0: none, and the reason is pushed. */
static int find_signal(lua_State *L, int index) {
  int is_integer;
  lua_Integer number = lua_tointegerx(L, index, &is_integer);
  if (lua_type(L, index) == LUA_TNUMBER) {
    if (is_integer && number > 0 && number < SIGNALS)
      return (int)number;
    lua_pushfstring(L, "signal number must be from 1 to 64, got %s", luaL_tolstring(L, index, NULL));
    return 0;
  }
  if (lua_type(L, index) != LUA_TSTRING) {
    lua_pushfstring(L, "name of a signal expected, got %s", luaL_typename(L, index));
    return 0;
  }
  const char *name = lua_tostring(L, index);
  for (int i = 0; i < NAMES; i++)
    if (strcmp(name, names[i].name) == 0)
      return names[i].number;
  lua_pushfstring(L, "unknown signal '%s'", name);
  return 0;
}

int ag_signal_check(lua_State *L, int arg) {
  int number = find_signal(L, arg);
  return number != 0 ? number : luaL_argerror(L, arg, lua_tostring(L, -1));
}

void ag_signal_push_name(lua_State *L, int number) {
  for (int i = 0; i < NAMES; i++) {
    if (names[i].number == number) {
      lua_pushstring(L, names[i].name);
      return;
    }
  }
  lua_pushfstring(L, "SIG%d", number);
}

/* ---- dispositions ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* [before] and [libuv]: what the signal did before the first of [users], and what it does while there are any. */
static struct {
  unsigned users;
  struct sigaction before, libuv;
} dispositions[SIGNALS];

static bool is_libuv(int number, const struct sigaction *now) {
  return now->sa_handler == dispositions[number].libuv.sa_handler;
}

int ag_signal_begin(int number, int (*change)(void *data), void *data) {
  pthread_mutex_lock(&lock);
  struct sigaction before, now;
  memset(&before, 0, sizeof before);
  bool known = sigaction(number, NULL, &before) == 0;
  int status = change(data);
  if (status == 0 && known) {
    if (dispositions[number].users++ == 0) {
      dispositions[number].before = before;
      sigaction(number, NULL, &dispositions[number].libuv);
    } else if (sigaction(number, NULL, &now) == 0 && !is_libuv(number, &now)) {
      /* Somebody else took the signal in the meantime, and libuv, which listens already, does not take it back. */
      dispositions[number].before = now;
      sigaction(number, &dispositions[number].libuv, NULL);
    }
  }
  if (status != 0 && known)
    sigaction(number, &before, NULL);
  pthread_mutex_unlock(&lock);
  return status;
}

void ag_signal_end(int number, int (*change)(void *data), void *data) {
  pthread_mutex_lock(&lock);
  struct sigaction now;
  sigset_t one, mask; /* one that comes now waits: libuv sets the default, which may end the process, before ours */
  sigemptyset(&one);
  sigaddset(&one, number);
  pthread_sigmask(SIG_BLOCK, &one, &mask);
  bool known = sigaction(number, NULL, &now) == 0;
  change(data);
  bool last = dispositions[number].users > 0 && --dispositions[number].users == 0;
  if (known && !is_libuv(number, &now))
    sigaction(number, &now, NULL); /* not libuv's any longer: it stays as it was */
  else if (last && sigaction(number, NULL, &now) == 0 && !is_libuv(number, &now)) /* nobody else's loop listens */
    sigaction(number, &dispositions[number].before, NULL);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  pthread_mutex_unlock(&lock);
}

/* ---- listeners ---- */

typedef struct listener listener;

/* One signal of a listener. libuv gives the memory back in the close callback, when the listener may be gone. */
typedef struct ear {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_signal_t handle;
  listener *owner; /* NULL: nobody listens */
  struct ear *next;
  int number;
  unsigned long heard; /* which signal of the listener this was; 0: none waits to be taken */
} ear;

/* The userdata. A task that waits has it on its stack. */
struct listener {
  ear *ears;
  unsigned long count;
  bool closed;
  ag_wait wait;
};

static void on_close(uv_handle_t *handle) {
  ear *e = (ear *)handle->data;
  free(e);
}

static int stop_ear(void *data) {
  uv_close((uv_handle_t *)&((ear *)data)->handle, on_close);
  return 0;
}

static void close_ear(ear *e) {
  e->owner = NULL;
  ag_signal_end(e->number, stop_ear, e);
}

void ag_signal_shut(uv_handle_t *handle) {
  ear *e = (ear *)handle->data;
  listener *l = e->owner;
  if (l != NULL) {
    ear **place = &l->ears;
    while (*place != e)
      place = &(*place)->next;
    *place = e->next;
    l->closed = true;
    ag_wake(&l->wait);
  }
  close_ear(e);
}

static void on_signal(uv_signal_t *handle, int number) {
  ear *e = (ear *)handle->data;
  (void)number;
  if (e->owner == NULL)
    return;
  if (e->heard == 0)
    e->heard = ++e->owner->count;
  ag_wake(&e->owner->wait);
}

static int start_ear(void *data) {
  ear *e = data;
  return uv_signal_start(&e->handle, on_signal, e->number);
}

static void close_listener(listener *l) {
  l->closed = true;
  while (l->ears != NULL) {
    ear *e = l->ears;
    l->ears = e->next;
    close_ear(e);
  }
  ag_wake(&l->wait);
}

static void add_ear(lua_State *L, uv_loop_t *loop, listener *l, int number, const char *operation) {
  for (ear *e = l->ears; e != NULL; e = e->next)
    if (e->number == number)
      return;
  ear *e = calloc(1, sizeof *e);
  if (e == NULL)
    luaL_error(L, "not enough memory");
  int status = uv_signal_init(loop, &e->handle);
  if (status != 0) {
    free(e);
    ag_uv_error(L, status, operation, NULL);
  }
  e->on_close = on_close;
  e->handle.data = e;
  e->number = number;
  status = ag_signal_begin(number, start_ear, e);
  if (status != 0) {
    uv_close((uv_handle_t *)&e->handle, on_close);
    ag_signal_push_name(L, number);
    ag_uv_error(L, status, operation, lua_tostring(L, -1));
  }
  e->owner = l;
  e->next = l->ears;
  l->ears = e;
}

/* What a handler can do nothing about: the kernel does not ask, or the instruction that failed would fail again. */
static bool can_be_heard(int number) {
  return number != SIGKILL && number != SIGSTOP && number != SIGSEGV && number != SIGBUS && number != SIGFPE &&
         number != SIGILL && number != 32 && number != 33; /* 32 and 33: glibc's own */
}

/* signal_problem(value, to_hear): nil, or why it is no signal, or none that can be heard. */
static int signal_problem(lua_State *L) {
  lua_settop(L, 2);
  int number = find_signal(L, 1);
  if (number == 0)
    return 1;
  if (!lua_toboolean(L, 2) || can_be_heard(number))
    return 0;
  lua_pushfstring(L, "'%s' cannot be waited for", luaL_tolstring(L, 1, NULL));
  return 1;
}

/* signal_listener(operation, name...): hears the signals from now on. The names have been checked. */
static int signal_listener(lua_State *L) {
  const char *operation = luaL_checkstring(L, 1);
  int n = lua_gettop(L);
  uv_loop_t *loop = ag_uv_loop_for_handle(L, operation);
  listener *l = lua_newuserdatauv(L, sizeof *l, 0);
  memset(l, 0, sizeof *l);
  luaL_setmetatable(L, LISTENER);
  for (int i = 2; i <= n; i++)
    add_ear(L, loop, l, ag_signal_check(L, i), operation);
  return 1;
}

static listener *check_listener(lua_State *L) { return luaL_checkudata(L, 1, LISTENER); }

static void cancel_wait(ag_wait *wait) { (void)wait; }

static int waited(lua_State *L, int unused, lua_KContext context) {
  (void)unused, (void)context;
  listener *l = check_listener(L);
  if (l->closed)
    return ag_uv_error(L, UV_ECANCELED, "signal", NULL);
  ear *first = NULL;
  for (ear *e = l->ears; e != NULL; e = e->next)
    if (e->heard != 0 && (first == NULL || e->heard < first->heard))
      first = e;
  if (first != NULL) {
    first->heard = 0;
    ag_signal_push_name(L, first->number);
    return 1;
  }
  if (ag_waiting(&l->wait))
    return ag_error(L, "RuntimeError", "signal: another task waits already");
  l->wait.cancel = cancel_wait;
  return ag_suspend(L, &l->wait, 0, waited);
}

/* listener:wait(): the name of the next signal. */
static int listener_wait(lua_State *L) {
  lua_settop(L, 1);
  return waited(L, LUA_OK, 0);
}

/* listener:close(): hears no more; again is harmless. Also __close and __gc. */
static int listener_close(lua_State *L) {
  close_listener(check_listener(L));
  return 0;
}

void ag_open_signal(lua_State *L) {
  static const luaL_Reg methods[] = {{"wait", listener_wait}, {"close", listener_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", listener_close}, {"__close", listener_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"signal_listener", signal_listener}, {"signal_problem", signal_problem}, {NULL, NULL}};
  luaL_newmetatable(L, LISTENER);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
