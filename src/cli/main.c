/* agather: runs a Lua script as the main task. A host on the public header and nothing else.
** What the library has is there as globals: a name that is no global is looked up in the agather table. */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: agather [options] [script [args]]\n"
    "  -e code          run the code before the script\n"
    "  -l module        require the module into the global of its name\n"
    "  --debug          remember where coroutine objects were made\n"
    "  --virtual-clock  time stands still while a task can run and jumps to the next deadline when none can\n"
    "  --version        say which version this is\n"
    "  -                read the script from standard input\n";

typedef struct options {
  bool debug, is_virtual, has_code;
  int script; /* index in argv, or 0 */
} options;

/* What the script finds: the table, and its names where there is no global. */
static const char prelude[] = "agather = require 'agather' "
                              "setmetatable(_G, { __index = agather })";

/* Runs main(...) on a runner of its own: the options and the function come first. */
static const char launcher[] = "local clock, debug, main = ... "
                               "local runner <close> = agather.Runner { clock = clock, debug = debug } "
                               "return runner:run(main, select(4, ...))";

/* Protected: 1 the error, whose metamethods may fail. */
static int tell(lua_State *L) {
  fprintf(stderr, "agather: %s\n", luaL_tolstring(L, 1, NULL));
  if (lua_istable(L, 1) && lua_getfield(L, 1, "traceback") == LUA_TSTRING)
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  return 0;
}

/* Tells the error on top. */
static int fail(lua_State *L) {
  const char *kind = luaL_typename(L, -1);
  lua_pushcfunction(L, tell);
  lua_insert(L, -2);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    fprintf(stderr, "agather: an error that is a %s, and cannot be told\n", kind);
  return EXIT_FAILURE;
}

static int bad_usage(const char *what, const char *argument) {
  fprintf(stderr, "agather: %s '%s'\n%s", what, argument, usage);
  return EXIT_FAILURE;
}

/* Reads the options that are not code; returns 0, or the status to exit with plus one. */
static int read_options(int argc, char **argv, options *o) {
  for (int i = 1; i < argc; i++) {
    const char *argument = argv[i];
    if (argument[0] != '-' || argument[1] == '\0') {
      o->script = i;
      return 0;
    }
    if (strcmp(argument, "-e") == 0 || strcmp(argument, "-l") == 0) {
      if (++i == argc)
        return 1 + bad_usage("an argument is missing after", argument);
      o->has_code = o->has_code || argument[1] == 'e';
    } else if (strcmp(argument, "--debug") == 0) {
      o->debug = true;
    } else if (strcmp(argument, "--virtual-clock") == 0) {
      o->is_virtual = true;
    } else if (strcmp(argument, "--version") == 0) {
      printf("agather %s, %s\n", ag_version(), LUA_RELEASE);
      return 1 + EXIT_SUCCESS;
    } else {
      return 1 + bad_usage("unknown option", argument);
    }
  }
  return 0;
}

/* Sets the global table arg as lua does: the script at 0, what came before it at negative places. */
static void set_arg(lua_State *L, int argc, char **argv, int script) {
  lua_newtable(L);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

/* Runs the function on top and the [nargs] arguments above it as the main task. [-(nargs + 1), +0|1, -] */
static int run_main(lua_State *L, const options *o, int nargs) {
  int main = lua_gettop(L) - nargs;
  if (luaL_loadstring(L, launcher) != LUA_OK)
    return LUA_ERRRUN;
  lua_insert(L, main);
  lua_pushstring(L, o->is_virtual ? "virtual" : "real");
  lua_insert(L, main + 1);
  lua_pushboolean(L, o->debug);
  lua_insert(L, main + 2);
  return lua_pcall(L, nargs + 3, 0, 0);
}

static int require_module(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_OK)
    lua_setglobal(L, name);
  return status;
}

static int run_all(lua_State *L, int argc, char **argv, const options *o) {
  int status = luaL_dostring(L, prelude);
  int last = o->script != 0 ? o->script : argc;
  for (int i = 1; i < last && status == LUA_OK; i++) {
    if (strcmp(argv[i], "-l") == 0) {
      status = require_module(L, argv[++i]);
    } else if (strcmp(argv[i], "-e") == 0) {
      const char *code = argv[++i];
      status = luaL_loadbuffer(L, code, strlen(code), "=(command line)");
      if (status == LUA_OK)
        status = run_main(L, o, 0);
    }
  }
  if (status != LUA_OK || o->script == 0)
    return status;
  const char *file = strcmp(argv[o->script], "-") == 0 ? NULL : argv[o->script];
  status = luaL_loadfile(L, file);
  if (status != LUA_OK)
    return status;
  int nargs = argc - o->script - 1;
  luaL_checkstack(L, nargs + 10, "too many arguments");
  for (int i = 1; i <= nargs; i++)
    lua_pushstring(L, argv[o->script + i]);
  return run_main(L, o, nargs);
}

int main(int argc, char **argv) {
  options o = {false, false, false, 0};
  int stop = read_options(argc, argv, &o);
  if (stop != 0)
    return stop - 1;
  if (o.script == 0 && !o.has_code) {
    fputs(usage, stderr);
    return EXIT_FAILURE;
  }
  lua_State *L = luaL_newstate();
  if (L == NULL) {
    fprintf(stderr, "agather: not enough memory\n");
    return EXIT_FAILURE;
  }
  luaL_openlibs(L);
  set_arg(L, argc, argv, o.script);
  int status = run_all(L, argc, argv, &o) == LUA_OK ? EXIT_SUCCESS : fail(L);
  lua_close(L);
  return status;
}
