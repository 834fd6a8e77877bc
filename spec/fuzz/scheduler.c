/* A libFuzzer target: the bytes are programs, which a host and its tasks run on several loops, with every outcome
** checked against a model (scheduler/model.h). 0xFF separates the programs; the first is the host's, and those that
** tasks run are named by number. After the host's program all that tasks may wait for is given, and then: every task
** has ended as it must, every callback has come exactly once, and when the state is closed all memory is back. */
#include <lualib.h>
#include <string.h>
#include <unistd.h>

#include "scheduler/program.h"

size_t __sanitizer_get_current_allocated_bytes(void);

enum { BUDGET = 500 };

static void sink(const ag_unhandled *what, void *data) {
  if (what->message == NULL)
    wrong("a report without a message");
}

static void make_loop(lua_State *L, int i, bool is_virtual) {
  if (W.made[i])
    return;
  if (is_virtual) { /* the one made last */
    push_call(L, "virtual_loop");
    lua_call(L, 0, 1);
    W.loops[i] = ag_loop_of(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "handles");
    lua_insert(L, -2);
    lua_rawseti(L, -2, -1 - i);
    lua_pop(L, 1);
  } else if (ag_loop_create(L, &W.loops[i]) != AG_OK) {
    wrong("no loop: %s", lua_tostring(L, -1));
  }
  W.made[i] = true;
  W.virtual_clock[i] = is_virtual;
  ag_set_error_sink(W.loops[i], sink, NULL);
}

static bool open_loop(int i) { return W.made[i] && !W.destroyed[i]; }

static ag_status step(lua_State *L, int i, double seconds_given) {
  ag_status status = seconds_given < 0 ? ag_step(L, W.loops[i]) : ag_step_for(L, W.loops[i], seconds_given);
  if (status < 0)
    wrong("a step gave %d: %s", status, status == AG_ERROR ? luaL_tolstring(L, -1, NULL) : "");
  if ((status == AG_DONE) == ag_alive(W.loops[i]))
    wrong("a step gave %d, but alive is %d", status, ag_alive(W.loops[i]));
  if (status == AG_MORE && ag_timeout(W.loops[i]) != 0)
    wrong("there is more, but the loop wants no step");
  return status;
}

/* Runs until some time has passed on the loop's clock. */
static void advance(lua_State *L, int i, double duration) {
  push_call(L, "sleep");
  lua_pushnumber(L, duration);
  ag_status status = ag_spawn(L, W.loops[i], 1);
  if (status == AG_OK)
    status = ag_run_until(L, W.loops[i], -1);
  if (status != AG_OK && !(status == AG_ERROR && (W.limited || P.stopped)))
    wrong("running gave %d: %s", status, status == AG_ERROR ? luaL_tolstring(L, -1, NULL) : "");
  P.stopped = false;
  lua_settop(L, 0);
}

static void run_until(lua_State *L, int i, node *n) {
  if (n == NULL || would_block(i))
    return;
  push_value(L, n);
  P.blocking[i]++;
  ag_status status = n->loop == i ? ag_run_until(L, W.loops[i], -1) : AG_OK;
  P.blocking[i]--;
  if (status != AG_OK && status != AG_ERROR)
    wrong("running until a node is done gave %d", status);
  if (n->loop == i && status == AG_OK && observe(L, n) == AG_PENDING)
    wrong("run until node %d was done, but it is not", number(n));
  if (status == AG_ERROR && observe(L, n) != AG_PENDING)
    wrong("node %d is done, but: %s", number(n), luaL_tolstring(L, -1, NULL));
  if (status == AG_OK && n->known) /* it may have been given away meanwhile */
    ask(L, n);
  P.stopped = false;
  lua_settop(L, 0);
}

static void check_loop_done(lua_State *L, int i) {
  for (node *n = W.nodes; n < W.nodes + W.count; n++) {
    if (n->loop != i)
      continue;
    ag_future_status state = observe(L, n);
    if (n->watches != n->watched)
      wrong("node %d: %d callbacks of %d", number(n), n->watched, n->watches);
    if (n->kind == OPERATION && n->answered && !n->given_up && !n->answer_failed && n->released != 1)
      wrong("node %d: its answer was released %d times", number(n), n->released);
    if (state != AG_PENDING || W.destroyed[i])
      continue;
    if (n->known || n->started)
      wrong("node %d never ends: a wake-up is lost", number(n));
  }
}

static void destroy(lua_State *L, int i) {
  if (!open_loop(i))
    return;
  while (P.held[i] > 0) {
    ag_loop_release(W.loops[i]);
    P.held[i]--;
  }
  W.loose = W.destroyed[i] = P.closing[i] = true;
  if (ag_loop_destroy(L, W.loops[i]) != AG_OK)
    wrong("a loop is not destroyed");
  W.gone[i] = true;
  if (ag_loop_destroy(L, W.loops[i]) != AG_CLOSED || ag_step(L, W.loops[i]) != AG_CLOSED || ag_alive(W.loops[i]) ||
      ag_loop_remote(W.loops[i]) != NULL)
    wrong("a loop that was destroyed is there");
  for (node *n = W.nodes; n < W.nodes + W.count; n++)
    if (n->loop == i && n->kind == TASK && n->known && observe(L, n) == AG_PENDING)
      wrong("task %d has outlived its loop", number(n));
  check_loop_done(L, i);
}

static void host(lua_State *L, program *code) {
  int operation = next(code);
  int i = operation / 64 % LOOPS;
  if (!open_loop(i))
    i = 0;
  if (!open_loop(i)) {
    next(code);
    return;
  }
  if (operation % 64 < 40) {
    code->pc--;
    act(L, code, i, false);
  } else if (operation % 64 < 52) {
    step(L, i, -1);
  } else if (operation % 64 < 55) {
    step(L, i, next(code) * 1e-6);
  } else if (operation % 64 < 59) {
    advance(L, i, seconds(next(code), i));
  } else if (operation % 64 < 61) {
    run_until(L, i, pick_known(next(code)));
  } else if (operation % 64 < 63) {
    make_loop(L, 1 + next(code) % (LOOPS - 1), W.virtual_clock[0]);
  } else {
    destroy(L, next(code) % LOOPS);
  }
  lua_settop(L, 0);
}

/* Gives all that a task may wait for. */
static void give_everything(lua_State *L, int i) {
  P.closing[i] = true;
  for (node *n = W.nodes; n < W.nodes + W.count; n++) {
    if (n->loop != i || !n->known)
      continue;
    set(L, n->kind == FUTURE && observe(L, n) == AG_PENDING ? n : NULL, false);
    if (n->kind == OPERATION && n->op != NULL && !n->answered)
      answer(n, 2);
  }
  while (P.held[i] > 0) {
    ag_loop_release(W.loops[i]);
    P.held[i]--;
  }
  with_primitives(L, "close", i);
}

/* Whether nothing is left. */
static bool drain(lua_State *L, int i) {
  for (int turns = 0; turns < 3000; turns++) {
    ag_status status = step(L, i, -1);
    if (status == AG_DONE)
      return true;
    double timeout = ag_timeout(W.loops[i]);
    if (status == AG_IDLE && timeout < 0)
      return false;
    if (status == AG_IDLE && W.virtual_clock[i])
      advance(L, i, 5);
    if (status == AG_IDLE && (timeout > 0 || !W.virtual_clock[i]))
      usleep((useconds_t)(timeout * 1e6) + 1);
  }
  wrong("the loop never ends");
}

/* Whether tasks wait for each other that nobody knows, so that nobody can cancel them. */
static bool locked(int i) {
  for (node *n = W.nodes; n < W.nodes + W.count; n++)
    if (n->loop == i && n->kind == TASK && !n->known && n->waits != NULL && reaches(n->waits, n))
      return true;
  return false;
}

static void finish(lua_State *L) {
  P.budget = 0;
  static const ag_limits generous = {.grace = 0.001};
  if (W.limited && ag_set_limits(L, &generous) != AG_OK)
    wrong("limits cannot be lifted");
  for (int i = 0; i < LOOPS; i++) {
    if (!open_loop(i))
      continue;
    give_everything(L, i);
    bool done = drain(L, i);
    for (int round = 0; round < 5 && !done && W.circles; round++) { /* who waits for each other must be cancelled */
      for (node *n = W.nodes; n < W.nodes + W.count; n++)
        if (n->loop == i && n->kind == TASK && n->known && observe(L, n) == AG_PENDING)
          cancel_node(L, n);
      done = drain(L, i);
    }
    for (node *n = W.nodes; n < W.nodes + W.count; n++)
      observe(L, n);
    if (!done && (W.knots || W.spent || locked(i))) {
      destroy(L, i);
      continue;
    }
    if (!done)
      check_loop_done(L, i);
    if (!done)
      wrong("something waits that nothing will wake");
    check_loop_done(L, i);
  }
  for (node *n = W.nodes; n < W.nodes + W.count; n++)
    if (n->known)
      ask(L, n);
  long left = 0;
  for (int i = 0; i < LOOPS; i++) {
    if (!W.made[i])
      continue;
    push_call(L, "sizes");
    push_primitives(L, i);
    lua_call(L, 1, 1);
    left += lua_tointeger(L, -1);
    lua_settop(L, 0);
  }
  if (P.items_put != P.items_got + left && !W.spent)
    wrong("%ld items were put, %ld got, %ld are left", P.items_put, P.items_got, left);
  for (int i = 0; i < LOOPS; i++)
    destroy(L, i);
  for (node *n = W.nodes; n < W.nodes + W.count; n++)
    if (n->op != NULL)
      ag_op_unref(n->op);
}

static void prepare(lua_State *L) {
  if (ag_open(L) != AG_OK)
    wrong("not opened: %s", lua_tostring(L, -1));
  lua_getfield(L, -1, "current_task");
  lua_setfield(L, LUA_REGISTRYINDEX, "current_task");
  lua_pushcfunction(L, go_inside);
  lua_setfield(L, LUA_REGISTRYINDEX, "go_on");
  if (luaL_dofile(L, "spec/fuzz/scheduler/prelude.lua") != LUA_OK)
    wrong("%s", lua_tostring(L, -1));
  lua_getfield(L, -1, "is_cancelled");
  lua_setfield(L, LUA_REGISTRYINDEX, "is_cancelled");
  lua_setfield(L, LUA_REGISTRYINDEX, "calls");
  static const char *const tables[] = {"values", "handles", "primitives"};
  for (int i = 0; i < 3; i++) {
    lua_newtable(L);
    lua_setfield(L, LUA_REGISTRYINDEX, tables[i]);
  }
  lua_settop(L, 0);
}

static void forget_all(void) {
  memset(&W, 0, sizeof W);
  memset(&P, 0, sizeof P);
  W.next_tag = 1000;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  static bool warm;
  size_t before = __sanitizer_get_current_allocated_bytes();
  forget_all();
  int kind = size > 0 ? bytes[0] : 0;
  split(bytes + (size > 0), size - (size > 0));
  P.budget = BUDGET;
  ag_memory memory = {0};
  lua_State *L = ag_newstate(ag_alloc, &memory);
  luaL_openlibs(L);
  prepare(L);
  bool is_virtual = (kind & 1) == 0;
  if (kind & 2)
    lua_gc(L, LUA_GCGEN, 0, 0);
  if (kind & 4)
    lua_gc(L, LUA_GCINC, 1, 1000, 1);
  W.limited = (kind & 8) != 0;
  ag_limits limits = {.grace = 0.001};
  if (W.limited) {
    limits = (ag_limits){.grace = 0.001, .tasks = 12, .timers = 8, .callbacks = 8, .handles = 6};
    limits.instructions = kind & 32 ? 1000 : 100000; /* some spend that, or hardly any */
  }
  if (!is_virtual || W.limited)
    ag_set_limits(L, &limits);
  make_loop(L, 0, is_virtual);
  program code = P.programs[0];
  while (code.pc < code.end && P.budget-- > 0)
    host(L, &code);
  if (kind & 16) /* as it is */
    W.loose = true;
  else
    finish(L);
  for (int i = 0; i < LOOPS; i++) /* a state that closes closes them, too */
    W.destroyed[i] = true;
  lua_close(L);
  for (node *n = W.nodes; n < W.nodes + W.count && (kind & 16) != 0; n++)
    if (n->op != NULL)
      ag_op_unref(n->op);
  for (callback *c = P.posts; c < P.posts + P.post_count; c++)
    if (c->called + c->dropped != 1)
      wrong("a posted function was called %d times, dropped %d times", c->called, c->dropped);
  if (memory.used != 0)
    wrong("%zu bytes are left when the state is closed", memory.used);
  size_t after = __sanitizer_get_current_allocated_bytes();
  if (warm && after != before)
    wrong("%ld bytes are left when all is closed", (long)(after - before));
  warm = true;
  return 0;
}
