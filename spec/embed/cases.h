/* What the programs of cases share: each case has a state and a loop of its own. Without arguments a program prints the
** names of its cases, which the specs make sentences of; with a name it runs that one. */
#ifndef AG_CASES_H
#define AG_CASES_H

#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lua_State *L;
static ag_loop *loop;

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                           \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

/* What happened, in order: "a b c". */
static char trail[400];

static inline void note(const char *word) {
  if (trail[0] != '\0')
    strcat(trail, " ");
  strcat(trail, word);
}

static inline bool trail_is(const char *expected) {
  bool same = strcmp(trail, expected) == 0;
  if (!same)
    printf("expected: %s\ngot: %s\n", expected, trail);
  trail[0] = '\0';
  return same;
}

/* note(word), for scripts. */
static int script_note(lua_State *S) {
  note(luaL_checkstring(S, 1));
  return 0;
}

/* Makes a task of the script, whose arguments are the [n] values on top; the task replaces them. */
static inline void spawn(const char *script, int n) {
  if (luaL_loadstring(L, script) != LUA_OK) {
    printf("%s\n", lua_tostring(L, -1));
    exit(1);
  }
  lua_insert(L, -n - 1);
  CHECK(ag_spawn(L, loop, n) == AG_OK);
}

/* Steps while something is ready; returns AG_IDLE or AG_DONE. */
static inline ag_status step_all(void) {
  ag_status status;
  while ((status = ag_step(L, loop)) == AG_MORE) {
  }
  return status;
}

/* Whether the text of the value on top holds [part]; pops it. */
static inline bool pops_text(const char *part) {
  const char *text = luaL_tolstring(L, -1, NULL);
  bool found = strstr(text, part) != NULL;
  if (!found)
    printf("expected: %s\ngot: %s\n", part, text);
  lua_pop(L, 2);
  return found;
}

typedef struct test_case {
  const char *name;
  void (*run)(void);
} test_case;

static inline int run_case(const test_case *cases, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++) {
    if (name == NULL) {
      printf("%s\n", cases[i].name);
    } else if (strcmp(name, cases[i].name) == 0) {
      L = luaL_newstate();
      luaL_openlibs(L);
      lua_register(L, "note", script_note);
      CHECK(ag_open(L) == AG_OK);
      lua_setglobal(L, "agather");
      CHECK(ag_loop_create(L, &loop) == AG_OK);
      CHECK(lua_gettop(L) == 0);
      cases[i].run();
      if (L != NULL && ag_loop_of(L) == loop)
        CHECK(ag_loop_destroy(L, loop) == AG_OK);
      if (L != NULL)
        lua_close(L);
      return 0;
    }
  }
  return name != NULL;
}

#endif
