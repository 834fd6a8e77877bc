/* A libFuzzer target whose test is a driver in Lua: AGATHER_FUZZ=NAME takes spec/fuzz/NAME.lua; it
** may be a path, too.
** The driver returns a function, which is called with each input: driver(bytes, reached). An error that it raises is a
** finding: its traceback and the input are printed, and the program aborts. reached(number) tells libFuzzer that this
** input came to a place of which the number stands (modulo PLACES): what C code an input runs it sees by itself, what
** Lua code it does not see. With AGATHER_FUZZ_COARSE=1 these places do not count: for a small corpus.
** The driver's chunk gets a function that makes an empty directory, which becomes the working directory until the
** program ends, and is removed then; it gives the path. Called again it empties the directory.
** The state is kept over inputs, and closed and made anew every AGATHER_FUZZ_INPUTS (1000). */
#define _GNU_SOURCE
#include <ftw.h>
#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PLACES = 1 << 14 };

/* libFuzzer looks for counters in this section, too. */
__attribute__((used, section("__libfuzzer_extra_counters"))) static uint8_t places[PLACES];

static lua_State *state; /* with a message handler and the driver's function at the bottom of its stack */
static long inputs_left;

static int reached(lua_State *L) {
  uint8_t *place = &places[(lua_Unsigned)luaL_checkinteger(L, 1) % PLACES];
  if (*place < UINT8_MAX && getenv("AGATHER_FUZZ_COARSE") == NULL)
    ++*place;
  return 0;
}

static char directory[] = "/tmp/agather-fuzz-XXXXXX", driver[PATH_MAX];
static pid_t owner; /* of the directory: not a child that was forked */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *at) {
  (void)status, (void)type;
  return at->level == 0 ? 0 : remove(path);
}

static void empty_directory(void) { nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

static void remove_directory(void) {
  if (owner != getpid())
    return;
  empty_directory();
  rmdir(directory);
}

static int enter_directory(lua_State *L) {
  if (owner != 0) {
    empty_directory();
  } else {
    if (mkdtemp(directory) == NULL)
      return luaL_error(L, "no directory can be made");
    owner = getpid();
    atexit(remove_directory);
  }
  if (chdir(directory) != 0)
    return luaL_error(L, "%s cannot be entered", directory);
  lua_pushstring(L, directory);
  return 1;
}

static int traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

static void print_quoted(const uint8_t *bytes, size_t size) {
  fputs("input: \"", stderr);
  for (size_t i = 0; i < size; i++)
    fprintf(stderr, bytes[i] >= ' ' && bytes[i] < 127 && bytes[i] != '"' && bytes[i] != '\\' ? "%c" : "\\x%02x",
            bytes[i]);
  fputs("\"\n", stderr);
}

static void close_state(void) {
  if (state != NULL)
    lua_close(state);
  state = NULL;
}

static void open_state(void) {
  const char *inputs = getenv("AGATHER_FUZZ_INPUTS");
  inputs_left = inputs != NULL ? strtol(inputs, NULL, 10) : 1000;
  state = luaL_newstate();
  luaL_openlibs(state);
  lua_pushcfunction(state, traceback);
  bool loaded = luaL_loadfile(state, driver) == LUA_OK;
  if (loaded) {
    lua_pushcfunction(state, enter_directory);
    loaded = lua_pcall(state, 1, 1, 1) == LUA_OK && lua_isfunction(state, 2);
  }
  if (!loaded) {
    fprintf(stderr, "AGATHER_FUZZ names no driver: %s: %s\n", driver, luaL_tolstring(state, -1, NULL));
    exit(2);
  }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  const char *name = getenv("AGATHER_FUZZ");
  char path[PATH_MAX];
  bool whole = name != NULL && strchr(name, '/') != NULL;
  snprintf(path, sizeof path, whole ? "%s" : "spec/fuzz/%s.lua", name != NULL ? name : "");
  if (realpath(path, driver) == NULL)
    snprintf(driver, sizeof driver, "%s", path);
  open_state(); /* so that a driver that cannot be loaded is no crashing input */
  return atexit(close_state);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  if (inputs_left-- <= 0)
    close_state();
  if (state == NULL)
    open_state();
  lua_pushvalue(state, 2);
  lua_pushlstring(state, (const char *)bytes, size);
  lua_pushcfunction(state, reached);
  if (lua_pcall(state, 2, 0, 1) != LUA_OK) {
    fprintf(stderr, "%s\n", lua_tostring(state, -1));
    print_quoted(bytes, size);
    remove_directory();
    abort();
  }
  return 0;
}
