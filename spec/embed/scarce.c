/* A host whose memory fails: for every n, all allocations of Lua from the n-th on fail while it opens the library,
** makes futures and operations, posts, watches, steps and runs. No call may raise (there is nothing to catch it), each
** tells by its status; what was promised exactly once comes exactly once; and when there is memory again the loop goes
** on. Prints the number of runs. */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct memory {
  long count, fail_at; /* 0: nothing fails */
  bool collect, failed;
} memory;

static void *allocate(void *data, void *block, size_t old, size_t size) {
  memory *m = data;
  if (size == 0) {
    free(block);
    return NULL;
  }
  if (block == NULL || size > old) {
    if (++m->count >= m->fail_at && m->fail_at > 0)
      return NULL;
    m->failed = m->collect && !m->failed;
    if (m->failed)
      return NULL;
  }
  return realloc(block, size);
}

static long run_number;
static int watched, called, dropped, released; /* how often */
static int watchers, posts, answers;           /* how often it should be */

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      printf("%s:%d: %s, memory failing from allocation %ld on\n", __FILE__, __LINE__, #condition, run_number);        \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

static int unprotected(lua_State *L) {
  (void)L;
  CHECK(!"a call raised");
  return 0;
}

static void count_watch(lua_State *L, void *data) {
  (void)L, (void)data;
  watched++;
}

static void count_post(lua_State *L, void *data) {
  called++;
  if (data != NULL)
    luaL_error(L, "%s", (const char *)data);
}

static void count_drop(void *data) {
  (void)data;
  dropped++;
}

static void count_release(void *data) {
  (void)data;
  released++;
}

static void sink(const ag_unhandled *what, void *data) {
  (void)data;
  CHECK(what->message != NULL);
}

static int push_three(lua_State *L, void *data) {
  lua_pushstring(L, data);
  lua_pushstring(L, "some other string, too long to be one of the short ones that Lua keeps made");
  lua_newtable(L);
  return 3;
}

static void watch(lua_State *L, int index) {
  ag_status status = ag_future_watch(L, index, count_watch, NULL);
  CHECK(status == AG_OK || status == AG_ERROR);
  watchers += status == AG_OK;
  lua_settop(L, 1); /* without the error, if there was one */
}

static void use_futures(lua_State *L, ag_loop *loop) {
  for (int kind = 0; kind < 4; kind++) {
    lua_settop(L, 0);
    if (ag_future_create(L, loop) != AG_OK)
      continue;
    watch(L, 1);
    ag_status status = AG_OK;
    if (kind == 0) {
      lua_pushinteger(L, 1);
      lua_pushinteger(L, 2);
      lua_pushinteger(L, 3);
      status = ag_future_set_result(L, 1, 3);
    } else if (kind == 1) {
      lua_pushinteger(L, 1);
      status = ag_future_set_error(L, 1);
    } else if (kind == 2) {
      status = ag_future_cancel(L, 1, "a reason");
    }
    CHECK(status == AG_OK || status == AG_ERROR);
    CHECK(lua_gettop(L) == (status == AG_OK ? 1 : 2));
    if (kind < 3 && status == AG_OK)
      ag_future_outcome(L, 1);
  }
}

static void use_operations(lua_State *L, ag_loop *loop) {
  for (int kind = 0; kind < 4; kind++) {
    lua_settop(L, 0);
    ag_op *op;
    if (ag_op_create(L, loop, NULL, NULL, &op) != AG_OK)
      continue;
    watch(L, 1);
    if (kind == 0) {
      ag_op_resolve(op, push_three, count_release, "result");
      answers++;
    } else if (kind == 1) {
      ag_op_reject(op, "TimeoutError", "too late");
    } else if (kind == 2) {
      ag_future_cancel(L, 1, NULL);
    }
    ag_op_unref(op); /* of the last one nobody ever answers */
  }
}

static void use_posts(ag_loop *loop) {
  ag_remote *remote = ag_loop_remote(loop);
  for (int i = 0; i < 3; i++, posts++)
    CHECK(ag_post(remote, count_post, count_drop, i == 1 ? "oops" : NULL) == AG_OK);
  ag_remote_unref(remote);
}

static void run_task(lua_State *L, ag_loop *loop) {
  lua_settop(L, 0);
  if (luaL_loadstring(L, "local agather = require 'agather.core' "
                         "local waiting = agather.spawn(agather.sleep, 100) "
                         "agather.sleep(0) waiting:cancel() return 1, 2, 3") == LUA_OK &&
      ag_spawn(L, loop, 0) == AG_OK && ag_run_until(L, loop, 1) == AG_OK)
    ag_future_outcome(L, 1);
}

static void use_host(lua_State *L, ag_loop **loop) {
  if (ag_open(L) != AG_OK || ag_loop_create(L, loop) != AG_OK)
    return;
  ag_set_error_sink(*loop, sink, NULL);
  use_futures(L, *loop);
  use_operations(L, *loop);
  use_posts(*loop);
  for (int i = 0; i < 5; i++) {
    lua_settop(L, 0);
    CHECK(ag_step(L, *loop) != AG_REENTRANT);
  }
  run_task(L, *loop);
}

/* The loop runs another task, ends, and everything has come once. */
static void end_host(lua_State *L, ag_loop *loop) {
  lua_settop(L, 0);
  CHECK(ag_open(L) == AG_OK);
  if (loop == NULL)
    CHECK(ag_loop_create(L, &loop) == AG_OK);
  CHECK(luaL_loadstring(L, "require('agather.core').sleep(0) return 'fine'") == LUA_OK);
  CHECK(ag_spawn(L, loop, 0) == AG_OK);
  CHECK(ag_run_until(L, loop, -1) == AG_OK && ag_future_outcome(L, -1) == AG_OK);
  lua_settop(L, 0);
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  CHECK(watched == watchers);
  CHECK(called + dropped == posts);
  CHECK(released == answers);
}

static long run(long fail_at, bool collect) {
  run_number = fail_at;
  watched = called = dropped = released = watchers = posts = answers = 0;
  memory m = {0, 0, false, false};
  lua_State *L = ag_newstate(allocate, &m);
  lua_atpanic(L, unprotected);
  luaL_openlibs(L);
  ag_loop *loop = NULL;
  m.count = 0;
  m.fail_at = fail_at;
  m.collect = collect;
  use_host(L, &loop);
  long count = m.count;
  m.fail_at = 0;
  m.collect = false;
  end_host(L, loop);
  lua_close(L);
  return count;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "collect") == 0) {
    run(0, true);
    CHECK(answers == 1 && posts == 3 && watchers == 8); /* nothing has failed */
    printf("1 run\n");
    return 0;
  }
  long count = run(0, false);
  for (long n = 1; n <= count + 1; n++)
    run(n, false);
  printf("%ld runs\n", count + 1);
  return 0;
}
