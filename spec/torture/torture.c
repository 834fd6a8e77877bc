/* Memory that fails while a script uses the library, in a state of its own.
**   torture memory SCRIPT [PLACES]     of Lua's allocations all from the n-th on fail (single failures are masked by
**                                      Lua, which collects and tries again)
**   torture collect SCRIPT             each of Lua's allocations fails at the first attempt, so that Lua collects each
**                                      time: what is not anchored is gone
**   torture malloc SCRIPT [PLACES]     of what agather's modules and libuv ask malloc for, all from the n-th on fail
**   torture once SCRIPT [PLACES]       the same, but only the n-th fails
**   torture libraries SCRIPT [PLACES]  as malloc, but it is OpenSSL, libcurl, jansson and the C library that ask
**   torture uses SCRIPT                nothing fails; prints the names of the builtins that are called (uses.lua)
** PLACES is how many n are tried, spread over all of them; 0: each. With $TORTURE_AT, only that n.
**
** A script returns a table: run() uses the library, as the main task; clock = "virtual" where it does no I/O; before()
** makes what run() finds, and after() checks it, with memory; alone() runs before the loop, for what makes one of its
** own. Each n is tried twice: memory comes back while the loop runs, and only after it has closed. In the first, other
** tasks run in the same loop; in both, then, in another. When the state is closed, as many blocks of memory,
** descriptors, threads and children are left as there were before. lead.lua is the part in Lua.
**
** Prints the number of places and of runs; what is wrong is told with n and the script. */
#include <agather.h>
#include <dirent.h>
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "faults.h"
#include "memory.h"

enum { WATCH = 20 }; /* seconds that a run may take */

typedef struct attempt {
  const char *mode, *script;
  long at;
  bool inside; /* memory comes back while the loop runs */
} attempt;

static memory lua_memory;
static long lost_runs; /* those in which Lua could not call a finalizer */
static char what[300]; /* which run it is, for whoever ends it */

/* ---- what a run leaves ---- */

static void wrong(const char *text) {
  printf("%s: %s\n", what, text);
  fflush(stdout);
  _exit(1);
}

static void tell(const char *text) {
  size_t length = strlen(what);
  if (write(STDOUT_FILENO, what, length) < 0 || write(STDOUT_FILENO, text, strlen(text)) < 0)
    _exit(2);
}

static void on_alarm(int number) {
  (void)number;
  tell(": still not over\n");
  abort();
}

static void on_crash(int number) {
  tell(": crashed\n");
  signal(number, SIG_DFL);
  raise(number);
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void on_death(void) { tell(": was ended\n"); }

static int entries(const char *folder) {
  DIR *open = opendir(folder);
  int count = 0;
  while (readdir(open) != NULL)
    count++;
  closedir(open);
  return count;
}

typedef struct census {
  int descriptors, threads;
} census;

static census count_all(void) { return (census){entries("/proc/self/fd"), entries("/proc/self/task")}; }

static void list_descriptors(void) {
  char command[60];
  snprintf(command, sizeof command, "ls -l /proc/%d/fd", (int)getpid());
  fflush(stdout);
  if (system(command) != 0)
    return;
}

/* Threads and children that were told to end may take a moment. */
static void compare(census before) {
  for (int i = 0; i < 2000; i++) {
    int status;
    bool child = waitpid(-1, &status, WNOHANG) == 0;
    census now = count_all();
    if (!child && now.threads <= before.threads && now.descriptors <= before.descriptors)
      return;
    if (i == 1999 && child)
      wrong("a child is left");
    if (i == 1999 && now.threads > before.threads)
      wrong("a thread is left");
    nanosleep(&(struct timespec){0, 1000000}, NULL);
  }
  list_descriptors();
  wrong("a descriptor is left");
}

/* ---- a run ---- */

static bool is_mode(const attempt *a, const char *mode) { return strcmp(a->mode, mode) == 0; }

static void arm(const attempt *a) {
  if (is_mode(a, "memory") || is_mode(a, "collect"))
    memory_arm(&lua_memory, a->at, is_mode(a, "collect"));
  else
    faults_arm(is_mode(a, "libraries") ? FAULTS_LIBRARIES : FAULTS_AGATHER | FAULTS_LIBUV, a->at, !is_mode(a, "once"));
}

/* Memory is back; returns how many allocations were counted. */
static long disarm(void) {
  long lua = lua_memory.armed ? lua_memory.count : 0;
  lua_memory.armed = false;
  return lua + faults_disarm();
}

static long counted; /* when memory came back while the loop ran */

static int script_arm(lua_State *L) {
  arm(lua_touserdata(L, lua_upvalueindex(1)));
  return 0;
}

/* Whether it is now that memory is back. */
static int script_disarm(lua_State *L) {
  const attempt *a = lua_touserdata(L, lua_upvalueindex(1));
  if (a->inside)
    counted = disarm();
  lua_pushboolean(L, a->inside);
  return 1;
}

static int script_wrong(lua_State *L) {
  disarm();
  wrong(luaL_checkstring(L, 1));
  return 0;
}

static void must(lua_State *L, int status, const char *doing) {
  if (status == LUA_OK)
    return;
  char text[2000];
  disarm();
  snprintf(text, sizeof text, "%s: %s", doing, luaL_tolstring(L, -1, NULL));
  wrong(text);
}

static void call(lua_State *L, const char *name, bool needed) {
  lua_getfield(L, 1, name);
  if (needed || !lua_isnil(L, -1))
    must(L, lua_pcall(L, 0, 0, 0), name);
  lua_settop(L, 1);
}

static long run(attempt *a) {
  snprintf(what, sizeof what, "%s %s, failing at %ld, memory back %s", a->mode, a->script, a->at,
           a->inside ? "while the loop runs" : "after the loop");
  alarm(WATCH);
  faults_mark();
  lua_State *L = memory_state(&lua_memory);
  luaL_openlibs(L);
  const luaL_Reg functions[] = {{"arm", script_arm}, {"disarm", script_disarm}, {"wrong", script_wrong}, {NULL, NULL}};
  luaL_newlibtable(L, functions);
  lua_pushlightuserdata(L, a);
  luaL_setfuncs(L, functions, 1);
  lua_pushboolean(L, is_mode(a, "uses"));
  lua_setfield(L, -2, "uses");
  must(L, luaL_loadfile(L, "spec/torture/lead.lua"), "loading");
  lua_insert(L, 1);
  lua_pushstring(L, a->script);
  must(L, lua_pcall(L, 2, 1, 0), "loading");
  faults_look();
  call(L, "before", false);
  lua_getfield(L, 1, "main");
  counted = 0;
  int status = lua_pcall(L, 0, 0, 0);
  long count = a->inside && counted > 0 ? counted : 0;
  long late = disarm();
  if (a->at == 0)
    must(L, status, "using the library");
  lua_settop(L, 1);
  call(L, "afterwards", true);
  lua_close(L);
  return count > 0 ? count : late;
}

/* A run, and what it has left. */
static long try_at(attempt *a, long at, bool inside, const census *before) {
  a->at = at;
  a->inside = inside;
  time_t began = time(NULL);
  long count = run(a);
  if (getenv("TORTURE_SLOW") != NULL && time(NULL) - began > 1)
    printf("%s: took %ld s\n", what, (long)(time(NULL) - began));
  if (before == NULL)
    return count;
  lost_runs += lua_memory.lost;
  if (lua_memory.lost)
    return count;
  compare(*before);
  if (lua_memory.blocks != 0)
    wrong("blocks of Lua's are left");
  if (faults_left(FAULTS_AGATHER | FAULTS_LIBUV, what) > 0)
    wrong("blocks are left");
  return count;
}

int main(int argc, char **argv) {
  static char buffer[BUFSIZ];
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  const char *modes = " memory collect malloc once libraries uses ";
  if (argc < 3 || strstr(modes, argv[1]) == NULL) {
    fprintf(stderr, "usage: torture memory|collect|malloc|once|libraries|uses SCRIPT [PLACES]\n");
    return 2;
  }
  if (__sanitizer_set_death_callback != NULL) {
    __sanitizer_set_death_callback(on_death);
  } else {
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    signal(SIGABRT, on_crash);
  }
  signal(SIGALRM, on_alarm);
  signal(SIGUSR1, SIG_IGN); /* a script sends it to itself */
  attempt a = {argv[1], argv[2], 0, false};
  if (is_mode(&a, "uses")) {
    run(&a);
    return 0;
  }
  if (is_mode(&a, "collect")) {
    run(&a);
    if (lua_memory.blocks != 0)
      wrong("blocks of Lua's are left");
    printf("1 run\n");
    return 0;
  }
  /* What libraries make once and keep is there after a run or two. */
  try_at(&a, 0, true, NULL);
  long count = try_at(&a, 0, false, NULL);
  census before = count_all();
  try_at(&a, 0, true, &before);
  if (getenv("TORTURE_AT") != NULL) {
    long at = atol(getenv("TORTURE_AT"));
    try_at(&a, at, false, &before);
    try_at(&a, at, true, &before);
    printf("1 of %ld places, 2 runs, %ld of them lost a finalizer\n", count, lost_runs);
    return 0;
  }
  long places = argc > 3 ? atol(argv[3]) : 0, tried = 0;
  if (places <= 0 || places > count)
    places = count;
  for (; tried < places; tried++) {
    long at = 1 + tried * count / places;
    try_at(&a, at, false, &before);
    try_at(&a, at, true, &before);
  }
  printf("%ld of %ld places, %ld runs, %ld of them lost a finalizer\n", tried, count, 2 * tried, lost_runs);
  return 0;
}
