/* What tasks do: they wait, in every way there is, and what they get is checked. */
#include "program.h"

enum { DEEPEST = 4 };

/* A program that a task runs: its body, or a call inside it. */
typedef struct frame {
  node *task;
  program code;
  int depth;
  bool outermost, refusing; /* no wait may work in it */
  bool ended;
  lua_Integer error; /* tag of what left it */
  /* the wait in progress */
  enum { ELSE, AWAIT, INSIDE, WITHIN, RUN, HOLD, HELD, PUT, GET } wait;
  bool swallow, queue_shut, was_pending, got_hold;
  bool waits_itself; /* the call inside which a program runs, and a cancellation may end there */
  node *awaited;
  struct frame *inner;
  int primitive;
} frame;

static frame frames[FRAMES];

/* ---- what tasks do: they wait ---- */

static int go_on(lua_State *L, frame *f);

static frame *new_frame(node *task, int program_number, int depth) {
  if (P.frame_count == FRAMES)
    return NULL;
  frame *f = &frames[P.frame_count++];
  *f = (frame){.task = task, .code = program_of(program_number), .depth = depth};
  return f;
}

/* The program ends: with a result, or with the error on top. */
static int end_frame(lua_State *L, frame *f, bool failed) {
  f->ended = true;
  node *n = f->task;
  if (failed) {
    f->error = tag_of(L, -1);
    if (f->outermost)
      settle(n, is_cancelled_error(L, -1) ? AG_CANCELLED : AG_FAILED, f->error);
    return lua_error(L);
  }
  if (!f->outermost)
    return 0;
  lua_Integer tag = push_tagged(L, false);
  settle(n, n->must_cancel && !W.loose ? AG_CANCELLED : AG_RESULT, tag);
  return 1;
}

/* What a wait gave is what it must. [suspended]: the loop ran meanwhile. */
static void check_wait(lua_State *L, frame *f, bool failed, bool suspended) {
  node *t = f->task, *n = f->awaited;
  if (failed && f->wait == RUN && !f->refusing && !n->started && n->state == AG_PENDING &&
      is_limit_error(L, -1, NULL)) {
    t->must_cancel = t->must_cancel || n->must_cancel; /* no task was made: it has not taken the cancellation */
    settle(n, AG_CANCELLED, 0);
    note_if_spent(L, -1, t);
    return;
  }
  bool of_another = n != NULL && n->kind == TASK && n->stopped; /* its budget, not that of this task */
  if (failed && !of_another && note_if_spent(L, -1, t))
    return;
  if (f->wait == INSIDE) {
    if (!W.loose && failed && f->inner->ended && tag_of(L, -1) != f->inner->error)
      wrong("another error than that raised inside: %s", luaL_tolstring(L, -1, NULL));
    if (!W.loose && !failed && (!f->inner->ended || f->inner->error != 0))
      wrong("the error raised inside is gone");
    return;
  }
  if (f->wait == WITHIN || (f->refusing && failed))
    return;
  if (f->refusing && suspended && f->wait != ELSE) /* what catches errors itself goes on in a continuation, too */
    wrong("a wait across a C call worked");
  bool cancelled = failed && is_cancelled_error(L, -1), must = suspended && t->must_cancel;
  if (n != NULL && f->wait == RUN && !n->started && n->must_cancel && n->state == AG_PENDING)
    settle(n, AG_CANCELLED, 0);
  if (must && !cancelled && !W.loose)
    wrong("task %d was cancelled and does not hear of it", number(t));
  if (cancelled && suspended)
    t->must_cancel = false;
  if (cancelled && (must || W.loose))
    return;
  if (n == NULL) {
    if (failed && !(f->queue_shut || P.closing[t->loop] || W.limited))
      wrong("a wait raised: %s", luaL_tolstring(L, -1, NULL));
    return;
  }
  if (n->loop != t->loop && failed && f->was_pending)
    return; /* of another loop */
  if (observe(L, n) == AG_PENDING && !(failed && W.circles))
    wrong("node %d was awaited and is not done", number(n));
  if (failed ? !(fits_error(L, lua_gettop(L), n) || (W.circles && n == t)) : !fits_result(L, lua_gettop(L), n))
    wrong("awaiting node %d gave something else: %s", number(n), luaL_tolstring(L, -1, NULL));
}

/* A wait is over; its result or error is on top, and taken. Whether the program goes on. */
static bool waited(lua_State *L, frame *f, int status, bool suspended) {
  bool failed = status != LUA_OK && status != LUA_YIELD;
  f->task->waits = NULL;
  if (failed && f->refusing) /* a continuation gets errors that came without a wait, too */
    suspended = false;
  else if (failed && (f->wait == AWAIT || f->wait == RUN))
    suspended = f->was_pending;
  else if (failed)
    suspended = is_cancelled_error(L, -1) || !(f->queue_shut || W.limited);
  check_wait(L, f, failed, suspended);
  if (f->waits_itself) /* groups and deadlines take cancellations back, and a __close may catch one */
    f->task->must_cancel = false;
  P.items_put += f->wait == PUT && !failed;
  P.items_got += f->wait == GET && !failed;
  f->got_hold = f->wait == HOLD && !failed;
  if (f->got_hold && ++P.holders[f->task->loop][f->primitive] > f->primitive + 1)
    wrong("%d tasks hold what %d may", P.holders[f->task->loop][f->primitive], f->primitive + 1);
  f->awaited = NULL;
  if (!failed || f->swallow)
    lua_pop(L, 1);
  return !failed || f->swallow;
}

static int resumed(lua_State *L, int status, lua_KContext context);

/* Calls the function and its [nargs] arguments on top, which may wait. Whether the program goes on. */
static bool wait(lua_State *L, frame *f, int nargs) {
  return waited(L, f, lua_pcallk(L, nargs, 1, 0, (lua_KContext)f, resumed), false);
}

static void push_primitive(lua_State *L, frame *f) {
  push_primitives(L, f->task->loop);
  lua_getfield(L, -1, f->primitive == 0 ? "lock" : "semaphore");
  lua_remove(L, -2);
}

static void let_go(lua_State *L, frame *f) {
  P.holders[f->task->loop][f->primitive]--;
  push_call(L, "release");
  push_primitive(L, f);
  call_prelude(L, 1, 0);
}

static bool sleep_for(lua_State *L, frame *f, int operand) {
  push_call(L, "sleep");
  lua_pushnumber(L, operand < 100 ? 0 : seconds(operand - 100, f->task->loop));
  return wait(L, f, 1);
}

static bool hold(lua_State *L, frame *f, int operand) {
  f->wait = HOLD;
  f->primitive = operand % 2;
  push_call(L, "hold");
  push_primitive(L, f);
  return wait(L, f, 1);
}

/* Goes on with the wait that had two parts. */
static bool hold_on(lua_State *L, frame *f) {
  f->wait = HELD;
  bool goes_on = sleep_for(L, f, next(&f->code));
  f->wait = ELSE;
  let_go(L, f);
  return goes_on;
}

static bool await_node(lua_State *L, frame *f, node *n) {
  node *t = f->task;
  if (n == NULL || (n->loop == t->loop && reaches(n, t) && !(f->code.pc < f->code.end && next(&f->code) == 7)))
    return true;
  W.circles = W.circles || reaches(n, t);
  f->wait = AWAIT;
  f->awaited = n;
  f->was_pending = observe(L, n) == AG_PENDING;
  if (!f->refusing && n != t && n->loop == t->loop && observe(L, n) == AG_PENDING) {
    t->waits = n;
    if (t->must_cancel) {
      t->waits = NULL;
      t->must_cancel = false;
      bool accepted = cancel(L, n); /* in a circle it comes back */
      t->must_cancel = t->must_cancel || !accepted;
      t->waits = n;
    }
  }
  push_call(L, "await");
  push_value(L, n);
  return wait(L, f, 1);
}

static bool run_inside(lua_State *L, frame *f, const char *kind, int count, int operand) {
  int how = next(&f->code) % count, duration = next(&f->code);
  frame *inner = f->depth < DEEPEST ? new_frame(f->task, operand, f->depth + 1) : NULL;
  if (inner == NULL)
    return true;
  inner->refusing = f->refusing || kind[0] == 'r';
  f->waits_itself = kind[0] == 'w' || (kind[0] == 'i' && how == count - 1);
  W.loose = W.loose || f->waits_itself;
  W.knots = W.knots || (kind[0] == 'w' && how == 2); /* its child may wait for this task */
  W.circles = W.circles || W.knots;
  f->inner = inner;
  f->wait = kind[0] == 'i' ? INSIDE : WITHIN;
  node *child = kind[0] == 'w' && how == 2 ? new_node(TASK, f->task->loop) : NULL;
  if (kind[0] == 'w' && how == 2 && child == NULL)
    return true;
  push_call(L, kind);
  lua_rawgeti(L, -1, how + 1);
  lua_remove(L, -2);
  lua_getfield(L, LUA_REGISTRYINDEX, "go_on");
  lua_pushinteger(L, inner - frames);
  lua_pushnumber(L, seconds(duration, f->task->loop));
  lua_pushcfunction(L, body);
  lua_pushinteger(L, child != NULL ? number(child) : 0);
  if (child != NULL)
    child->tag = duration;
  return wait(L, f, 5);
}

static bool run_main(lua_State *L, frame *f, int operand) {
  node *t = f->task;
  if (f->refusing && (would_block(t->loop) || P.nested >= 2))
    return true;
  node *n = new_node(TASK, t->loop);
  if (n == NULL)
    return true;
  n->tag = operand;
  f->wait = RUN;
  f->awaited = n;
  f->was_pending = true;
  if (!f->refusing) {
    t->waits = n;
    if (t->must_cancel)
      t->must_cancel = !cancel(L, n);
  }
  push_call(L, "run");
  lua_pushcfunction(L, body);
  lua_pushinteger(L, number(n));
  if (!f->refusing)
    return wait(L, f, 2);
  P.nested++;
  P.blocking[t->loop]++; /* it has the loop run on until [n] is done */
  bool goes_on = wait(L, f, 2);
  P.blocking[t->loop]--;
  P.nested--;
  return goes_on;
}

static bool wait_for_some(lua_State *L, frame *f, bool as_completed) {
  int flags = next(&f->code), count = 1 + flags % CHILDREN, found = 0;
  push_call(L, as_completed ? "as_completed" : "wait");
  lua_pushnumber(L, seconds(next(&f->code), f->task->loop));
  if (!as_completed)
    lua_pushinteger(L, flags / CHILDREN);
  for (int i = 0; i < count; i++) {
    node *n = pick_known(next(&f->code));
    if (n == NULL || n->loop != f->task->loop)
      continue;
    push_value(L, n);
    found++;
  }
  if (found == 0) {
    lua_pop(L, as_completed ? 2 : 3);
    return true;
  }
  return wait(L, f, found + (as_completed ? 1 : 2));
}

static bool use_queue(lua_State *L, frame *f, int operand) {
  f->wait = operand % 2 ? PUT : GET;
  f->queue_shut = P.closing[f->task->loop];
  push_call(L, operand % 2 ? "put" : "get");
  push_primitives(L, f->task->loop);
  lua_getfield(L, -1, operand % 4 < 2 ? "queue" : "open_queue");
  lua_remove(L, -2);
  lua_pushinteger(L, 1);
  return wait(L, f, 2);
}

/* One step of a task's program. False: it fails with the error on top. */
static bool step_frame(lua_State *L, frame *f, bool *ends) {
  int operation = next(&f->code);
  if (operation < 128) {
    f->code.pc--;
    act(L, &f->code, f->task->loop, true);
    return true;
  }
  P.budget--;
  int operand = next(&f->code);
  f->swallow = operation & 1;
  f->queue_shut = f->waits_itself = false;
  f->wait = ELSE;
  switch ((operation - 128) / 2 % 15) {
  case 0:
  case 1:
    return sleep_for(L, f, operand);
  case 2:
  case 3:
  case 4:
    return await_node(L, f, pick_known(operand));
  case 5:
    return run_inside(L, f, "inside", 7, operand);
  case 6:
    return run_inside(L, f, "within", 3, operand);
  case 7:
    return run_inside(L, f, "refusing", 2, operand);
  case 8:
    return run_main(L, f, operand);
  case 9:
    return hold(L, f, operand) && (!f->got_hold || hold_on(L, f));
  case 10:
    push_call(L, "wait_event");
    push_primitives(L, f->task->loop);
    return wait(L, f, 1);
  case 11:
    return use_queue(L, f, operand);
  case 12:
    return wait_for_some(L, f, operand % 2);
  case 13:
    push_tagged(L, true);
    return false;
  default:
    *ends = true;
    return true;
  }
}

static int go_on(lua_State *L, frame *f) {
  bool ends = false, fine = true;
  luaL_checkstack(L, 30, NULL);
  while (fine && !ends && P.budget > 0 && f->code.pc < f->code.end)
    fine = step_frame(L, f, &ends);
  return end_frame(L, f, !fine);
}

static int resumed(lua_State *L, int status, lua_KContext context) {
  frame *f = (frame *)context;
  bool holding = f->wait == HOLD && (status == LUA_YIELD || status == LUA_OK), held_on = f->wait == HELD;
  bool fine = waited(L, f, status, true);
  if (held_on)
    let_go(L, f);
  if (holding && fine)
    fine = hold_on(L, f);
  return fine ? go_on(L, f) : end_frame(L, f, true);
}

/* Goes on with the program of the frame whose number it gets, inside a call. */
int go_inside(lua_State *L) {
  frame *f = &frames[lua_tointeger(L, 1)];
  lua_settop(L, 0);
  return go_on(L, f);
}

/* What a task runs: gets the number of its node. */
int body(lua_State *L) {
  node *n = &W.nodes[lua_tointeger(L, 1) - 1];
  if (n->started)
    wrong("task %d is started twice", number(n));
  if (n->must_cancel && !W.loose)
    wrong("task %d was cancelled and begins", number(n));
  n->started = true;
  if (!n->known) {
    lua_getfield(L, LUA_REGISTRYINDEX, "current_task");
    lua_call(L, 0, 1);
    set_value(L, n);
  }
  lua_settop(L, 0);
  frame *f = new_frame(n, (int)n->tag, 0);
  if (f == NULL) {
    static frame empty;
    empty = (frame){.task = n, .outermost = true};
    return end_frame(L, &empty, false);
  }
  f->outermost = true;
  return go_on(L, f);
}
