/* Operations: a future on the loop's thread and its answer from any other. The first answer claims the operation by
** one exchange of its state; the answer and the node that carries it to the loop lie in the operation, so answering
** takes no memory and cannot fail.
** Two parties hold an operation: the loop until it has used or refused the answer, and the references outside. */
#include "core/op.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/future.h"
#include "core/limits.h"

enum op_state { OP_WANTED, OP_ANSWERED, OP_UNWANTED };

struct ag_op {
  ag_node node; /* in the mailbox or on the ready queue while it carries an answer */
  atomic_int state;
  atomic_int references; /* outside */
  atomic_int holders;
  ag_remote *remote;
  /* The answer: written by who claimed it, read by the loop. */
  ag_push_fn push;
  void (*release)(void *data);
  void *data;
  const char *error; /* the class of the error that [message] is of, or NULL: a plain string */
  bool failed;
  char message[200];
  /* The loop's thread alone. */
  ag_loop *loop;
  ag_link among;            /* in loop->ops while [future] */
  ag_hooked_future *future; /* NULL: no answer is wanted, or it was given; kept alive by its slot */
  bool pushed;              /* push was called: not again */
  void (*unwanted)(ag_op *op, void *data);
  void *unwanted_data;
};

/* ---- what any thread may call ---- */

static void leave(ag_op *op) {
  if (atomic_fetch_sub(&op->holders, 1) == 1) {
    ag_remote_unref(op->remote);
#ifndef __clang_analyzer__ /* it takes every count for the last one */
    free(op);
#endif
  }
}

void ag_op_finish(ag_op *op) {
  if (op->release != NULL)
    op->release(op->data);
  leave(op);
}

/* The caller has claimed the operation and written the answer. */
static ag_status deliver(ag_op *op) {
  if (ag_remote_put(op->remote, &op->node))
    return AG_OK;
  ag_op_finish(op);
  return AG_CLOSED;
}

/* AG_OK: the answer is the caller's to give. */
static ag_status claim(ag_op *op) {
  int state = OP_WANTED;
  if (atomic_compare_exchange_strong(&op->state, &state, OP_ANSWERED))
    return AG_OK;
  return state == OP_UNWANTED ? AG_CLOSED : AG_SETTLED;
}

ag_status ag_op_resolve(ag_op *op, ag_push_fn push, void (*release)(void *data), void *data) {
  ag_status status = claim(op);
  if (status != AG_OK) {
    if (release != NULL)
      release(data);
    return status;
  }
  op->push = push;
  op->release = release;
  op->data = data;
  return deliver(op);
}

ag_status ag_op_reject(ag_op *op, const char *name, const char *message) {
  ag_status status = claim(op);
  if (status != AG_OK)
    return status;
  op->failed = true;
  op->error = name;
  if (message != NULL)
    strncpy(op->message, message, sizeof op->message - 1);
  return deliver(op);
}

bool ag_op_wanted(ag_op *op) { return atomic_load(&op->state) == OP_WANTED; }

ag_op *ag_op_ref(ag_op *op) {
  atomic_fetch_add(&op->references, 1);
  return op;
}

void ag_op_unref(ag_op *op) {
  if (op == NULL || atomic_fetch_sub(&op->references, 1) != 1)
    return;
  ag_op_reject(op, "RuntimeError", "the operation was given up without an answer");
  leave(op);
}

/* ---- the loop's side ---- */

/* The future is settled, by the answer or in its place; or the loop closes. */
static void settled(ag_op *op) {
  op->future->future.hooked = false;
  op->future = NULL;
  ag_link_remove(&op->among);
  op->loop->outside--;
  int state = OP_WANTED;
  if (!atomic_compare_exchange_strong(&op->state, &state, OP_UNWANTED))
    return; /* its answer is here or under way: whoever takes it from the mailbox finishes */
  if (op->unwanted != NULL)
    op->unwanted(op, op->unwanted_data);
  leave(op);
}

static void future_settled(ag_hooked_future *future) { settled(future->data); }

void ag_ops_close(ag_loop *loop) {
  while (!ag_list_empty(&loop->ops))
    settled(ag_container(loop->ops.next, ag_op, among));
}

/* Protected: 1 the operation. Settles its future with what was answered. */
static int answer(lua_State *L) {
  ag_op *op = lua_touserdata(L, 1);
  ag_state *S = op->loop->S;
  if (op->failed && op->error != NULL)
    return ag_error_raise(L, S, op->error, "%s", op->message);
  if (op->failed) {
    lua_pushstring(L, op->message);
    return lua_error(L);
  }
  if (op->pushed)
    return luaL_error(L, "not enough memory");
  op->pushed = true;
  lua_settop(L, 0);
  int count = op->push != NULL ? op->push(L, op->data) : 0;
  if (op->future == NULL) /* settled by what push has run */
    return 0;
  if (count < 0 || count > lua_gettop(L))
    return luaL_error(L, "a push function returned %d and left %d values", count, lua_gettop(L));
  luaL_checkstack(L, 10, NULL);
  ag_push_kept(L, S, op->future->future.slot);
  lua_insert(L, -count - 1);
  ag_future_resolve(L, S, -count - 1, count);
  return 0;
}

/* Protected: 1 the operation, 2 the error. */
static int reject(lua_State *L) {
  ag_op *op = lua_touserdata(L, 1);
  if (op->future == NULL)
    return 0;
  ag_push_kept(L, op->loop->S, op->future->future.slot);
  ag_error_wrap(L, op->loop->S, 2);
  ag_future_reject(L, op->loop->S, 3);
  return 0;
}

/* An answer has come. */
static void run_op(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_op *op = ag_container(node, ag_op, node);
  if (op->future != NULL) {
    lua_pushcfunction(L, answer);
    lua_pushlightuserdata(L, op);
    bool opened = loop->S->limiter != NULL && ag_budget_open(L, loop->S);
    int status = lua_pcall(L, 1, 0, 0);
    if (opened)
      ag_budget_close(loop->S);
    if (status != LUA_OK) {
      lua_pushcfunction(L, reject);
      lua_pushlightuserdata(L, op);
      lua_pushvalue(L, -3);
      if (lua_pcall(L, 2, 0, 0) != LUA_OK) { /* no memory for either: once more in the next iteration */
        ag_loop_ready(loop, node);
        lua_error(L);
      }
    }
  }
  ag_op_finish(op);
}

ag_op *ag_op_of(ag_node *node) { return node->run == run_op ? ag_container(node, ag_op, node) : NULL; }

/* Protected: 1 the loop. Makes the future, which the table of the living holds until it is settled. */
static int create_future(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  ag_limit_check(L, loop->S, handles, loop->outside);
  ag_hooked_future *future = (ag_hooked_future *)ag_future_new(L, loop, sizeof *future, AG_FUTURE);
  lua_pushvalue(L, -1);
  future->future.slot = ag_keep(L, loop->S);
  return 1;
}

ag_status ag_op_create(lua_State *L, ag_loop *loop, void (*unwanted)(ag_op *op, void *data), void *data, ag_op **op) {
  *op = NULL;
  if (loop->closed)
    return AG_CLOSED;
  ag_op *made = calloc(1, sizeof *made);
  if (made == NULL) {
    lua_pushliteral(L, "not enough memory"); /* which Lua keeps made */
    return AG_ERROR;
  }
  lua_pushcfunction(L, create_future);
  lua_pushlightuserdata(L, loop);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
    free(made);
    return AG_ERROR;
  }
  ag_hooked_future *future = lua_touserdata(L, -1);
  made->node.run = run_op;
  atomic_init(&made->state, OP_WANTED);
  atomic_init(&made->references, 1);
  atomic_init(&made->holders, 2);
  made->remote = ag_remote_ref(loop->remote);
  made->loop = loop;
  made->future = future;
  made->unwanted = unwanted;
  made->unwanted_data = data;
  future->settled = future_settled;
  future->data = made;
  future->future.hooked = true;
  ag_list_append(&loop->ops, &made->among);
  loop->outside++;
  *op = made;
  return AG_OK;
}
