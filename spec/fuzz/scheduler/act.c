/* What tasks, callbacks and the host can do without waiting: make, settle, cancel, watch and ask for things. */
#include "program.h"

enum { HIGHEST = 3 };

play P;

void split(const uint8_t *bytes, size_t size) {
  const uint8_t *start = bytes, *end = bytes + size;
  P.program_count = 0;
  for (const uint8_t *p = bytes; p <= end && P.program_count < PROGRAMS; p++) {
    if (p < end && *p != 0xFF)
      continue;
    P.programs[P.program_count++] = (program){start, p};
    start = p + 1;
  }
}

int next(program *p) { return p->pc < p->end ? *p->pc++ : 0; }

program program_of(int n) { return P.programs[n % P.program_count]; }

/* ---- calling Lua ---- */

/* Pushes a function of the prelude. [-0, +1] */
void push_call(lua_State *L, const char *name) {
  luaL_checkstack(L, 20, NULL);
  lua_getfield(L, LUA_REGISTRYINDEX, "calls");
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

/* Calls what may only fail at a limit. [-(nargs + 1), +1 | 0]: whether it went well. */
static bool call(lua_State *L, int nargs, const char *what) {
  if (lua_pcall(L, nargs, 1, 0) == LUA_OK)
    return true;
  if (!W.limited)
    wrong("%s raised: %s", what, luaL_tolstring(L, -1, NULL));
  note_if_spent(L, -1, NULL);
  lua_pop(L, 1);
  return false;
}

void push_primitives(lua_State *L, int loop) {
  lua_getfield(L, LUA_REGISTRYINDEX, "primitives");
  if (lua_rawgeti(L, -1, loop + 1) == LUA_TNIL) {
    lua_pop(L, 1);
    push_call(L, "primitives");
    call_prelude(L, 0, 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, loop + 1);
  }
  lua_remove(L, -2);
}

/* Whether the loop would wait for what only the host, who is blocked, can give. */
bool would_block(int loop) {
  for (const node *n = W.nodes; n < W.nodes + W.count; n++)
    if (n->loop == loop && n->kind == OPERATION && n->state == AG_PENDING && !n->answered && n->op != NULL)
      return true;
  return P.held[loop] > 0;
}

/* ---- what needs no waiting: tasks, callbacks and the host do it ---- */

static node *pick(int operand) { return W.count == 0 ? NULL : &W.nodes[W.count - 1 - operand % W.count]; }

node *pick_known(int operand) {
  node *n = pick(operand);
  return n != NULL && n->known ? n : NULL;
}

double seconds(int operand, int loop) { return W.virtual_clock[loop] ? operand * 0.01 : operand % 50 * 1e-6; }

static void check_status(lua_State *L, node *n, ag_status status, bool was_pending, const char *what) {
  if (status != (was_pending ? AG_OK : AG_SETTLED))
    wrong("%s of node %d gave %d: %s", what, number(n), status, status == AG_ERROR ? luaL_tolstring(L, -1, NULL) : "");
}

void set(lua_State *L, node *n, bool error) {
  if (n == NULL || n->kind != FUTURE)
    return;
  bool pending = observe(L, n) == AG_PENDING;
  push_value(L, n);
  lua_Integer tag = push_tagged(L, error);
  if (pending)
    settle(n, error ? AG_FAILED : AG_RESULT, tag);
  check_status(L, n, error ? ag_future_set_error(L, -2) : ag_future_set_result(L, -2, 1), pending, "settling");
  lua_pop(L, 1);
}

void cancel_node(lua_State *L, node *n) {
  if (n == NULL)
    return;
  bool pending = observe(L, n) == AG_PENDING;
  cancel(L, n);
  push_value(L, n);
  check_status(L, n, ag_future_cancel(L, -1, number(n) % 2 == 0 ? "enough" : NULL), pending, "cancelling");
  lua_pop(L, 1);
}

static void came(lua_State *L, void *data) {
  node *n = data;
  n->watched++;
  if (observe(L, n) == AG_PENDING && !W.destroyed[n->loop])
    wrong("node %d is watched before it is done", number(n));
}

static void watch(lua_State *L, node *n) {
  if (n == NULL)
    return;
  push_value(L, n);
  ag_status status = ag_future_watch(L, -1, came, n);
  if (status == AG_OK)
    n->watches++;
  else if (status == AG_ERROR && W.limited)
    lua_pop(L, 1);
  else if (status != AG_CLOSED || !W.destroyed[n->loop])
    wrong("watching gave %d", status);
  lua_pop(L, 1);
}

static void spawn(lua_State *L, int program_number, int loop, bool running, int how) {
  node *n = new_node(TASK, loop);
  if (n == NULL)
    return;
  n->tag = program_number;
  bool done;
  if (running && how % 3 != 0) {
    push_call(L, how % 3 == 1 ? "spawn" : "create");
    lua_pushcfunction(L, body);
    lua_pushinteger(L, number(n));
    bool eager = how % 2 == 0 && P.nested < 2;
    lua_pushboolean(L, eager);
    P.nested += eager;
    done = call(L, 3, "spawning");
    P.nested -= eager;
  } else {
    lua_pushcfunction(L, body);
    lua_pushinteger(L, number(n));
    ag_status status = ag_spawn(L, W.loops[loop], 1);
    done = status == AG_OK;
    if (status == AG_ERROR && !W.limited)
      wrong("spawning: %s", luaL_tolstring(L, -1, NULL));
    if (status == AG_ERROR)
      lua_pop(L, 1);
    if (status == AG_CLOSED && !W.destroyed[loop])
      wrong("the loop is closed");
  }
  if (done)
    set_value(L, n);
  else
    n->state = AG_CANCELLED;
}

static void make_future(lua_State *L, int loop) {
  node *n = new_node(FUTURE, loop);
  if (n == NULL)
    return;
  if (ag_future_create(L, W.loops[loop]) != AG_OK)
    n->state = AG_CANCELLED;
  else
    set_value(L, n);
}

static void gather(lua_State *L, program *code, int loop) {
  node *children[CHILDREN];
  int flags = next(code), count = 1 + flags % CHILDREN, found = 0, height = 0;
  for (int i = 0; i < count; i++) {
    node *child = pick_known(next(code));
    if (child == NULL || child->loop != loop || child->height == HIGHEST)
      continue; /* cancelling a gather that stands twice in others, which do, takes as long as asyncio's */
    children[found++] = child;
    height = child->height > height ? child->height : height;
  }
  node *n = found > 0 ? new_node(GATHER, loop) : NULL;
  if (n == NULL)
    return;
  n->height = height + 1;
  n->return_exceptions = flags & 64;
  W.loose = W.loose || (flags & 128) != 0;
  push_call(L, "gather");
  lua_pushboolean(L, flags & 64);
  lua_pushboolean(L, flags & 128);
  for (int i = 0; i < found; i++) {
    n->children[i] = children[i];
    push_value(L, children[i]);
  }
  n->count = found;
  if (call(L, found + 2, "gather"))
    set_value(L, n);
}

static void shield(lua_State *L, node *inner, int loop) {
  if (inner == NULL || inner->loop != loop || observe(L, inner) != AG_PENDING)
    return; /* what is done is given back */
  node *n = new_node(SHIELD, loop);
  if (n == NULL)
    return;
  n->height = inner->height;
  n->children[0] = inner;
  n->count = 1;
  push_call(L, "shield");
  push_value(L, inner);
  if (call(L, 1, "shield"))
    set_value(L, n);
}

static void unwanted(ag_op *op, void *data) {
  node *n = data;
  if (++n->unwanted > 1 || n->answered)
    wrong("node %d: unwanted, though answered or told before", number(n));
  if (ag_op_wanted(op))
    wrong("an unwanted operation is wanted");
}

static void make_operation(lua_State *L, int loop) {
  node *n = P.blocking[loop] ? NULL : new_node(OPERATION, loop);
  if (n == NULL)
    return;
  ag_status status = ag_op_create(L, W.loops[loop], unwanted, n, &n->op);
  if (status == AG_OK)
    set_value(L, n);
  else
    n->state = AG_CANCELLED;
  if (status == AG_ERROR)
    lua_pop(L, 1);
}

static int push_answer(lua_State *L, void *data) {
  node *n = data;
  if (++n->pushed > 1 || n->released > 0)
    wrong("node %d: its answer is pushed again", number(n));
  settle(n, AG_RESULT, push_tagged(L, false));
  return 1;
}

static void release_answer(void *data) { ((node *)data)->released++; }

void answer(node *n, int how) {
  if (n == NULL || n->kind != OPERATION || n->op == NULL)
    return;
  bool wanted = !n->answered && n->unwanted == 0;
  if (ag_op_wanted(n->op) != wanted)
    wrong("node %d: is it wanted?", number(n));
  ag_status status = AG_OK, expected = n->answered ? AG_SETTLED : n->unwanted ? AG_CLOSED : AG_OK;
  if (how % 4 == 0) {
    n->given_up = n->given_up || wanted;
    n->answered = n->answered || wanted;
    ag_op *op = n->op;
    n->op = NULL;
    ag_op_unref(op);
    return;
  }
  int released = n->released;
  n->answer_failed = n->answer_failed || (wanted && how % 4 == 1);
  if (how % 4 == 1)
    status = ag_op_reject(n->op, "OSError", "no");
  else
    status = ag_op_resolve(n->op, push_answer, release_answer, n);
  if (how % 4 != 1 && !wanted && n->released != ++released)
    wrong("node %d: an answer that was refused is not released", number(n));
  n->released -= how % 4 != 1 && !wanted;
  n->answered = n->answered || wanted;
  if (status != expected)
    wrong("node %d: answering gave %d, expected %d", number(n), status, expected);
}

static void posted(lua_State *L, void *data) {
  callback *c = data;
  c->called++;
  if (ag_loop_of(L) != W.loops[c->loop])
    wrong("a posted function runs on another loop");
  for (int i = 0; i < 4 && c->code.pc < c->code.end; i++)
    act(L, &c->code, c->loop, true);
}

static void dropped(void *data) { ((callback *)data)->dropped++; }

static void post(int loop, int program_number) {
  if (P.post_count == CALLBACKS || W.destroyed[loop])
    return;
  callback *c = &P.posts[P.post_count++];
  *c = (callback){.code = program_of(program_number), .loop = loop};
  ag_remote *remote = ag_loop_remote(W.loops[loop]);
  ag_status status = ag_post(remote, posted, dropped, c);
  ag_remote_unref(remote);
  if (status != AG_OK && c->dropped != 1)
    wrong("posting gave %d", status);
}

static int call_handle(lua_State *L) {
  callback *c = &P.handles[lua_tointeger(L, 1)];
  if (c->cancelled)
    wrong("a handle that was cancelled is called");
  c->called++;
  for (int i = 0; i < 4 && c->code.pc < c->code.end; i++)
    act(L, &c->code, c->loop, true);
  return 0;
}

static void schedule(lua_State *L, int loop, int program_number, int later) {
  if (P.handle_count == CALLBACKS)
    return;
  int i = P.handle_count++;
  P.handles[i] = (callback){.code = program_of(program_number), .loop = loop, .cancelled = true};
  push_call(L, later > 0 ? "call_later" : "call_soon");
  lua_pushcfunction(L, call_handle);
  lua_pushinteger(L, i);
  lua_pushnumber(L, seconds(later, loop));
  if (!call(L, 3, "scheduling"))
    return;
  P.handles[i].cancelled = false;
  lua_getfield(L, LUA_REGISTRYINDEX, "handles");
  lua_insert(L, -2);
  lua_rawseti(L, -2, i + 1);
  lua_pop(L, 1);
}

static void cancel_handle(lua_State *L, int operand) {
  if (P.handle_count == 0)
    return;
  int i = P.handle_count - 1 - operand % P.handle_count;
  lua_getfield(L, LUA_REGISTRYINDEX, "handles");
  push_call(L, "cancel_handle");
  if (lua_rawgeti(L, -2, i + 1) != LUA_TNIL) {
    call_prelude(L, 1, 0);
    P.handles[i].cancelled = true;
  } else {
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
}

/* A host that steps from within: refused, and nothing happens. */
static void reenter(lua_State *L, int loop) {
  ag_limits limits = {.tasks = 1};
  if (ag_step(L, W.loops[loop]) != AG_REENTRANT || ag_loop_destroy(L, W.loops[loop]) != AG_REENTRANT ||
      ag_step_for(L, W.loops[loop], 0) != AG_REENTRANT || ag_set_limits(L, &limits) != AG_REENTRANT)
    wrong("a loop is stepped or destroyed from within");
}

void ask(lua_State *L, node *n) {
  if (n == NULL)
    return;
  ag_future_status state = observe(L, n);
  int top = lua_gettop(L);
  push_value(L, n);
  ag_status status = ag_future_outcome(L, -1);
  if ((status == AG_IDLE) != (state == AG_PENDING) || (status == AG_OK) != (state == AG_RESULT))
    wrong("node %d: its outcome is %d", number(n), status);
  if (status == AG_OK && !fits_result(L, lua_gettop(L), n))
    wrong("node %d has another result: %s", number(n), luaL_tolstring(L, -1, NULL));
  if (status == AG_ERROR) {
    push_raised(L, -1);
    if (!fits_error(L, lua_gettop(L), n))
      wrong("node %d has another error: %s", number(n), luaL_tolstring(L, -1, NULL));
  }
  lua_settop(L, top);
}

static void put_nowait(lua_State *L, int loop) {
  push_call(L, "put_nowait");
  push_primitives(L, loop);
  lua_getfield(L, -1, "queue");
  lua_remove(L, -2);
  lua_pushinteger(L, 1);
  call_prelude(L, 2, 1);
  P.items_put += lua_toboolean(L, -1);
  lua_pop(L, 1);
}

void with_primitives(lua_State *L, const char *what, int loop) {
  push_call(L, what);
  push_primitives(L, loop);
  call_prelude(L, 1, 0);
}

enum { ACTS = 24 };

void act(lua_State *L, program *code, int loop, bool running) {
  int operation = next(code), operand = next(code);
  node *n = pick_known(operand);
  luaL_checkstack(L, 30, NULL);
  if (W.loops[loop] == NULL || --P.budget < 0)
    return;
  switch (operation % ACTS) {
  case 0:
    make_future(L, loop);
    break;
  case 1:
    set(L, n, false);
    break;
  case 2:
    set(L, n, true);
    break;
  case 3:
    cancel_node(L, n);
    break;
  case 4:
    watch(L, n);
    break;
  case 5:
    spawn(L, operand, loop, running, 0);
    break;
  case 6:
    spawn(L, operand, loop, running, 1);
    break;
  case 7:
    spawn(L, operand, loop, running, 2);
    break;
  case 8:
    spawn(L, operand, loop, running, 5);
    break;
  case 9:
    if (running)
      gather(L, code, loop);
    break;
  case 10:
    if (running)
      shield(L, n, loop);
    break;
  case 11:
    make_operation(L, loop);
    break;
  case 12:
    answer(pick_known(operand), next(code));
    break;
  case 13:
    post(loop, operand);
    break;
  case 14:
    if (running)
      schedule(L, loop, operand, 0);
    break;
  case 15:
    if (running)
      schedule(L, loop, operand, next(code));
    break;
  case 16:
    cancel_handle(L, operand);
    break;
  case 17:
    lua_gc(L, operand % 2 ? LUA_GCSTEP : LUA_GCCOLLECT, 0);
    break;
  case 18:
    if (running)
      reenter(L, loop);
    break;
  case 19:
    with_primitives(L, operand % 2 ? "set_event" : "clear_event", loop);
    break;
  case 20:
    if (!P.closing[loop])
      put_nowait(L, loop);
    break;
  case 21:
    ask(L, n);
    break;
  case 22: /* the library alone keeps it from now on; where a budget may end it, nobody could tell */
    if (!W.limited && n != NULL && n->kind == TASK && n->started) {
      lua_pushnil(L);
      set_value(L, n);
    }
    break;
  case 23:
    if (operand % 8 == 0 && running) {
      push_call(L, "stop");
      call_prelude(L, 0, 0);
      P.stopped = true;
    } else if (!W.destroyed[loop] && P.held[loop] == 0 && !P.blocking[loop]) {
      ag_loop_hold(W.loops[loop]);
      P.held[loop]++;
    } else if (P.held[loop] > 0) {
      ag_loop_release(W.loops[loop]);
      P.held[loop]--;
    } else {
      ag_wakeup(W.loops[loop]);
    }
    break;
  }
}
