#include "model.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

world W;

void wrong(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("wrong: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  abort();
}

int number(const node *n) { return (int)(n - W.nodes) + 1; }

void push_value(lua_State *L, const node *n) {
  lua_getfield(L, LUA_REGISTRYINDEX, "values");
  lua_rawgeti(L, -1, number(n));
  lua_remove(L, -2);
}

void set_value(lua_State *L, node *n) {
  lua_getfield(L, LUA_REGISTRYINDEX, "values");
  lua_insert(L, -2);
  n->known = !lua_isnil(L, -1);
  lua_rawseti(L, -2, number(n));
  lua_pop(L, 1);
}

node *new_node(enum kind kind, int loop) {
  if (W.count == NODES)
    return NULL;
  node *n = &W.nodes[W.count++];
  *n = (node){.kind = kind, .loop = loop};
  return n;
}

lua_Integer tag_of(lua_State *L, int index) {
  return lua_isinteger(L, index) ? lua_tointeger(L, index) : (lua_Integer)(uintptr_t)lua_topointer(L, index);
}

bool is_cancelled_error(lua_State *L, int index) {
  index = lua_absindex(L, index);
  lua_getfield(L, LUA_REGISTRYINDEX, "is_cancelled");
  lua_pushvalue(L, index);
  call_prelude(L, 1, 1);
  bool is = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return is;
}

bool is_limit_error(lua_State *L, int index, const char *name) {
  if (!lua_istable(L, index) && !lua_isuserdata(L, index))
    return false;
  bool is = lua_getfield(L, index, "limit") == LUA_TSTRING;
  is = is && (name == NULL || strcmp(lua_tostring(L, -1), name) == 0);
  lua_pop(L, 1);
  return is;
}

void note_spent(node *n) {
  W.spent = W.loose = true;
  if (n != NULL)
    n->must_cancel = false;
}

bool note_if_spent(lua_State *L, int index, node *n) {
  bool is = W.limited && is_limit_error(L, index, "instructions");
  if (is)
    note_spent(n);
  return is;
}

void push_raised(lua_State *L, int index) {
  index = lua_absindex(L, index);
  bool limit = lua_getfield(L, index, "limit") != LUA_TNIL; /* the value of a LimitError is another */
  lua_pop(L, 1);
  if (limit || lua_getfield(L, index, "value") == LUA_TNIL) {
    lua_pop(L, limit ? 0 : 1);
    lua_pushvalue(L, index);
  }
}

lua_Integer push_tagged(lua_State *L, bool error) {
  lua_Integer tag = ++W.next_tag;
  if (error && tag % 2 == 0)
    lua_newtable(L);
  else
    lua_pushinteger(L, tag);
  return tag_of(L, -1);
}

void call_prelude(lua_State *L, int nargs, int nresults) {
  if (lua_pcall(L, nargs, nresults, 0) == LUA_OK)
    return;
  note_if_spent(L, -1, NULL);
  lua_error(L);
}

static bool may_be_cancellation(const node *n) {
  if (W.loose || n->state == AG_CANCELLED || n->cancel_requested)
    return true;
  for (int i = 0; i < n->count && n->state == AG_FAILED; i++)
    if (n->children[i]->state != AG_RESULT && may_be_cancellation(n->children[i]))
      return true;
  return false;
}

static const char *const names[] = {"future", "task", "gather", "shield", "operation"};
static const char *const states[] = {"pending", "has a result", "failed", "is cancelled"};

/* The library has settled a node of itself. */
static void note(lua_State *L, node *n, ag_future_status state) {
  bool fine = false;
  bool closed = W.destroyed[n->loop];
  int results = 0, failures = 0;
  for (int i = 0; i < n->count; i++) {
    ag_future_status child = observe(L, n->children[i]);
    results += child == AG_RESULT;
    failures += child == AG_FAILED || child == AG_CANCELLED;
  }
  switch (n->kind) {
  case FUTURE:
    fine = state == AG_CANCELLED && W.loose;
    break;
  case TASK:                                    /* one that has begun says itself how it ends */
    fine = (state == AG_FAILED && W.limited) || /* its budget ends it */
           (state == AG_CANCELLED && (closed || (!n->started && (n->must_cancel || W.loose))));
    break;
  case OPERATION:
    fine = state == AG_CANCELLED ? W.loose : state == AG_FAILED && (n->answer_failed || n->given_up);
    break;
  case GATHER:
    if (state == AG_RESULT)
      fine = results + failures == n->count && (failures == 0 || n->return_exceptions) &&
             (!n->cancel_requested || W.loose); /* also where its children took the cancellation */
    else
      fine = state == AG_FAILED && (n->return_exceptions || failures == 0 ? n->cancel_requested || W.loose : true);
    break;
  case SHIELD:
    fine = state == n->children[0]->state || (state == AG_CANCELLED && W.loose);
    break;
  }
  n->stopped = n->kind == TASK && state == AG_FAILED;
  if (n->stopped && n->started)
    note_spent(n);
  if (!fine)
    wrong("node %d, a %s, %s of itself (%d results, %d failures)", number(n), names[n->kind], states[state], results,
          failures);
  n->state = state;
}

ag_future_status observe(lua_State *L, node *n) {
  if (!n->known)
    return n->state;
  luaL_checkstack(L, 10, NULL);
  push_value(L, n);
  ag_future_status state = ag_future_state(L, -1);
  lua_pop(L, 1);
  if (state == n->state)
    return state;
  if (n->state == AG_PENDING)
    note(L, n, state);
  else if (state == AG_CANCELLED && W.loose)
    n->state = state;
  else if (state == AG_PENDING && n->kind == TASK)
    return n->state; /* it has just left its body */
  else
    wrong("node %d, a %s, %s; it should be one that %s", number(n), names[n->kind], states[state], states[n->state]);
  return n->state;
}

void settle(node *n, ag_future_status state, lua_Integer tag) {
  if (n->state != AG_PENDING)
    wrong("node %d, a %s, is settled twice", number(n), names[n->kind]);
  n->state = state;
  n->tag = tag;
  n->waits = NULL;
}

static bool pass_on(lua_State *L, node *n) {
  if (n->state != AG_PENDING)
    return false;
  bool accepted = false;
  switch (n->kind) {
  case FUTURE:
  case SHIELD:
  case OPERATION:
    settle(n, AG_CANCELLED, 0);
    return true;
  case TASK:
    if (n->visiting) { /* in a circle: which of its tasks hears of it is not promised */
      W.loose = true;
      n->must_cancel = true;
    } else if (n->waits == NULL) {
      n->must_cancel = true;
    } else {
      n->visiting = true;
      if (!pass_on(L, n->waits))
        n->must_cancel = true;
      n->visiting = false;
    }
    return true;
  case GATHER:
    if (W.gone[n->loop]) { /* it hears of its children no more */
      settle(n, AG_CANCELLED, 0);
      return true;
    }
    if (n->visiting) {
      W.loose = true;
      return true;
    }
    n->visiting = true;
    for (int i = 0; i < n->count; i++)
      accepted = pass_on(L, n->children[i]) || accepted;
    n->visiting = false;
    n->cancel_requested = n->cancel_requested || accepted;
    return accepted;
  }
  return false;
}

bool cancel(lua_State *L, node *n) {
  for (node *other = W.nodes; other < W.nodes + W.count; other++)
    observe(L, other); /* before the model is ahead of the library */
  return pass_on(L, n);
}

static bool search(const node *n, const node *task, bool *seen) {
  if (n == NULL || n->state != AG_PENDING || seen[n - W.nodes])
    return false;
  seen[n - W.nodes] = true;
  if (n == task || search(n->waits, task, seen))
    return true;
  for (int i = 0; i < n->count; i++)
    if (search(n->children[i], task, seen))
      return true;
  return false;
}

bool reaches(const node *n, const node *task) {
  bool seen[NODES] = {false};
  return search(n, task, seen);
}

/* Nobody can ask any more how it ended, and the model is not sure. */
static bool unknown(const node *n) { return W.loose && !n->known; }

/* The error object [index] of a list stands for how [n] ended. */
static bool fits_place(lua_State *L, int index, node *n) {
  if (unknown(n))
    return true;
  if (observe(L, n) == AG_RESULT)
    return fits_result(L, index, n);
  if (n->state == AG_PENDING || !lua_istable(L, index))
    return false;
  if (is_cancelled_error(L, index))
    return may_be_cancellation(n);
  push_raised(L, index);
  bool fits = fits_error(L, lua_gettop(L), n);
  lua_pop(L, 1);
  return fits;
}

bool fits_result(lua_State *L, int index, node *n) {
  luaL_checkstack(L, 10, NULL);
  index = lua_absindex(L, index);
  if (unknown(n))
    return true;
  if (n->state != AG_RESULT)
    return false;
  if (n->kind == SHIELD)
    return fits_result(L, index, n->children[0]);
  if (n->kind != GATHER)
    return tag_of(L, index) == n->tag;
  if (!lua_istable(L, index))
    return false;
  lua_getfield(L, index, "n");
  bool fits = lua_tointeger(L, -1) == n->count;
  lua_pop(L, 1);
  for (int i = 0; i < n->count && fits; i++) {
    lua_rawgeti(L, index, i + 1);
    fits = fits_place(L, lua_gettop(L), n->children[i]);
    lua_pop(L, 1);
  }
  return fits;
}

bool fits_error(lua_State *L, int index, node *n) {
  luaL_checkstack(L, 10, NULL);
  index = lua_absindex(L, index);
  if (unknown(n))
    return true;
  if (n->state != AG_FAILED && n->state != AG_CANCELLED)
    return false;
  if (is_cancelled_error(L, index))
    return may_be_cancellation(n);
  if (n->state == AG_CANCELLED)
    return false;
  if (n->stopped)
    return is_limit_error(L, index, n->started ? "instructions" : NULL);
  if (n->kind == OPERATION && (n->given_up || n->tag == 0))
    return !lua_isinteger(L, index);
  if (n->kind != GATHER && n->kind != SHIELD)
    return tag_of(L, index) == n->tag;
  for (int i = 0; i < n->count; i++)
    if (observe(L, n->children[i]) != AG_RESULT && n->children[i]->state != AG_PENDING &&
        fits_error(L, index, n->children[i]))
      return true;
  return false;
}
