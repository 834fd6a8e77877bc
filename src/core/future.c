/* Futures: settling, results, callbacks, and the methods that tasks and gathers share. */
#include "core/future.h"

#include <string.h>

#include "core/chain.h"
#include "core/error.h"
#include "core/handle.h"
#include "core/report.h"
#include "core/task.h"

ag_future *ag_future_new(lua_State *L, ag_loop *loop, size_t size, uint8_t kind) {
  ag_future *future = lua_newuserdatauv(L, size, 2);
  memset(future, 0, size);
  ag_link_init(&future->waiters);
  future->magic = ag_future_magic(loop->S);
  future->loop = loop->id;
  future->kind = kind;
  future->values = 2;
  lua_rawgeti(L, LUA_REGISTRYINDEX, loop->S->mt_future);
  lua_setmetatable(L, -2);
  return future;
}

/* Reached for every awaitable: the magic is cheaper to read than the metatable. */
ag_future *ag_future_to(lua_State *L, ag_state *S, int index) {
  ag_future *future = lua_touserdata(L, index);
  if (future == NULL || lua_rawlen(L, index) < sizeof *future || future->magic != ag_future_magic(S))
    return NULL;
  return future;
}

ag_future *ag_future_check(lua_State *L, int index) {
  ag_future *future = ag_future_to(L, ag_self(L), index);
  if (future == NULL)
    luaL_typeerror(L, index, "Future or Task");
  return future;
}

/* Everything that can fail is done: the state changes and the waiters become ready. */
static void settle(lua_State *L, ag_state *S, ag_future *future, uint8_t status) {
  future->status = status;
  ag_loop *loop = ag_loop_find(S, future->loop);
  if (loop != NULL) {
    ag_list_splice(&loop->ready, &future->waiters);
    if (future->kind == AG_TASK) {
      loop->tasks--;
      if (loop->runs == &((ag_task *)future)->timer.node)
        loop->runs = NULL;
    }
  }
  int slot = future->slot;
  future->slot = 0;
  ag_drop(L, S, slot);
  if (future->hooked)
    ((ag_hooked_future *)future)->settled((ag_hooked_future *)future);
}

AG_NORETURN static void raise_settled(lua_State *L, ag_state *S, const ag_future *future) {
  ag_error_raise(L, S, "InvalidStateError", "invalid state: the future is %s already",
                 future->status == AG_CANCELLED ? "cancelled" : "done");
}

void ag_future_resolve_at(lua_State *L, ag_state *S, ag_future *future, int index, int count) {
  if (count < future->values) {
    for (int i = count; i > 0; i--)
      lua_setiuservalue(L, index, i + 1);
  } else {
    lua_createtable(L, count, 0);
    if (future->status != AG_PENDING) /* a finalizer was faster */
      raise_settled(L, S, future);
    lua_insert(L, -count - 1);
    for (int i = count; i > 0; i--)
      lua_rawseti(L, -i - 1, i);
    lua_setiuservalue(L, index, 2);
    future->packed = true;
  }
  future->count = count;
  settle(L, S, future, AG_RESULT);
}

void ag_future_resolve(lua_State *L, ag_state *S, int index, int count) {
  ag_future_resolve_at(L, S, lua_touserdata(L, index), lua_absindex(L, index), count);
}

/* Protected: 1 state, 2 future. */
static int watch(lua_State *L) {
  ag_watch(L, lua_touserdata(L, 1), 2);
  return 0;
}

void ag_future_reject(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  ag_future *future = lua_touserdata(L, index);
  lua_setiuservalue(L, index, 2);
  bool waited = false; /* by a task or a gather, which will take the error; a callback may or may not ask */
  for (ag_link *l = future->waiters.next; l != &future->waiters && !waited; l = l->next)
    waited = ag_handle_of(ag_container(l, ag_node, link)) == NULL;
  future->status = AG_FAILED;
  if (!waited) {
    lua_pushcfunction(L, watch);
    lua_pushlightuserdata(L, S);
    lua_pushvalue(L, index);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK)
      lua_pop(L, 1); /* no memory to watch it: settled it must be */
  }
  settle(L, S, future, AG_FAILED);
}

void ag_future_set_cancelled(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  lua_setiuservalue(L, index, 2);
  settle(L, S, lua_touserdata(L, index), AG_CANCELLED);
}

static void asked(lua_State *L, ag_state *S, ag_future *future, int index) {
  future->asked = true;
  if (future->watched)
    ag_unwatch(L, S, future, index);
}

int ag_future_results(lua_State *L, ag_state *S, int index) {
  index = lua_absindex(L, index);
  ag_future *future = lua_touserdata(L, index);
  if (future->status == AG_RESULT) {
    luaL_checkstack(L, future->count + 2, "too many results");
    if (!future->packed) {
      for (int i = 1; i <= future->count; i++)
        lua_getiuservalue(L, index, i + 1);
    } else {
      lua_getiuservalue(L, index, 2);
      int list = lua_gettop(L);
      for (int i = 1; i <= future->count; i++)
        lua_rawgeti(L, list, i);
      lua_remove(L, list);
    }
    return future->count;
  }
  asked(L, S, future, index);
  if (future->status == AG_FAILED)
    ag_chain_raised(L, S, index);
  lua_getiuservalue(L, index, 2);
  ag_error_unwrap(L);
  return lua_error(L);
}

bool ag_future_value(lua_State *L, ag_state *S, int index) {
  return ag_future_value_at(L, S, lua_touserdata(L, index), lua_absindex(L, index));
}

bool ag_future_value_at(lua_State *L, ag_state *S, ag_future *future, int index) {
  if (future->status != AG_RESULT) {
    asked(L, S, future, index);
    lua_getiuservalue(L, index, 2);
    return true;
  }
  if (future->count == 0)
    lua_pushnil(L);
  else
    lua_getiuservalue(L, index, 2);
  if (future->packed) {
    lua_rawgeti(L, -1, 1);
    lua_remove(L, -2);
  }
  return false;
}

void ag_push_cancelled(lua_State *L, ag_state *S, int index) {
  if (lua_isnoneornil(L, index)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
  } else {
    lua_pushvalue(L, index);
    ag_error_push(L, S, "CancelledError");
  }
}

/* ---- methods ---- */

static ag_future *check_pending(lua_State *L) {
  ag_future *future = ag_future_check(L, 1);
  if (future->kind != AG_FUTURE)
    luaL_error(L, "a %s is settled by the loop, not by hand", future->kind == AG_TASK ? "task" : "gather");
  if (future->status != AG_PENDING)
    raise_settled(L, ag_self(L), future);
  return future;
}

static int future_set_result(lua_State *L) {
  check_pending(L);
  ag_future_resolve(L, ag_self(L), 1, lua_gettop(L) - 1);
  return 0;
}

static int future_set_exception(lua_State *L) {
  check_pending(L);
  luaL_argcheck(L, !lua_isnoneornil(L, 2), 2, "error value expected, got nil");
  ag_error_wrap(L, ag_self(L), 2);
  check_pending(L); /* a finalizer may have settled it */
  ag_future_reject(L, ag_self(L), 1);
  return 0;
}

static int future_done(lua_State *L) {
  lua_pushboolean(L, ag_future_check(L, 1)->status != AG_PENDING);
  return 1;
}

static int future_cancelled(lua_State *L) {
  lua_pushboolean(L, ag_future_check(L, 1)->status == AG_CANCELLED);
  return 1;
}

static int future_result(lua_State *L) {
  ag_future *future = ag_future_check(L, 1);
  if (future->status == AG_PENDING)
    return ag_error_raise(L, ag_self(L), "InvalidStateError", "Result is not set.");
  return ag_future_results(L, ag_self(L), 1);
}

static int future_exception(lua_State *L) {
  ag_future *future = ag_future_check(L, 1);
  ag_state *S = ag_self(L);
  if (future->status == AG_PENDING)
    return ag_error_raise(L, S, "InvalidStateError", "Exception is not set.");
  if (future->status == AG_RESULT) {
    lua_pushnil(L);
    return 1;
  }
  if (future->status == AG_CANCELLED)
    return ag_future_results(L, S, 1);
  ag_future_value(L, S, 1);
  return 1;
}

static int future_cancel(lua_State *L) {
  ag_future *future = ag_future_check(L, 1);
  ag_state *S = ag_self(L);
  if (future->watched)
    asked(L, S, future, 1);
  ag_push_cancelled(L, S, 2);
  lua_pushboolean(L, ag_cancel(L, S, 1));
  return 1;
}

static int future_await(lua_State *L) {
  ag_future_check(L, 1);
  lua_settop(L, 1);
  return ag_await_future(L, ag_self(L));
}

static int future_get_loop(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_find(S, ag_future_check(L, 1)->loop);
  if (loop == NULL)
    lua_pushnil(L);
  else
    ag_push_kept(L, S, loop->slot);
  return 1;
}

/* future:add_done_callback(f): f(future) in the iteration after it is done. */
static int future_add_done_callback(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_future *future = ag_future_check(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  ag_loop *loop = ag_loop_find(S, future->loop);
  if (loop == NULL)
    return ag_error_raise(L, S, "RuntimeError", "Event loop is closed");
  lua_settop(L, 2);
  lua_pushvalue(L, 1);
  ag_handle *handle = ag_handle_new(L, loop, 2);
  ag_list_append(future->status == AG_PENDING ? &future->waiters : &loop->ready, &handle->timer.node.link);
  return 0;
}

/* future:remove_done_callback(f): the number of callbacks removed. */
static int future_remove_done_callback(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_future *future = ag_future_check(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_Integer removed = 0;
  for (ag_link *l = future->waiters.next, *next; l != &future->waiters; l = next) {
    next = l->next;
    ag_handle *handle = ag_handle_of(ag_container(l, ag_node, link));
    if (handle == NULL)
      continue;
    ag_push_kept(L, S, handle->slot);
    lua_getiuservalue(L, -1, 1);
    bool same = lua_rawequal(L, -1, 2);
    lua_pop(L, 2);
    if (!same)
      continue;
    ag_link_remove(l);
    ag_handle_release(L, S, handle);
    removed++;
  }
  lua_pushinteger(L, removed);
  return 1;
}

static int new_future(lua_State *L) {
  ag_loop *loop = ag_loop_check(L, ag_self(L), "future");
  ag_future_new(L, loop, sizeof(ag_future), AG_FUTURE);
  return 1;
}

static int future_tostring(lua_State *L) {
  static const char *const kinds[] = {"Future", "Task", "Gather"};
  static const char *const states[] = {"pending", "finished", "failed", "cancelled"};
  ag_state *S = ag_self(L);
  ag_future *future = ag_future_check(L, 1);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  lua_pushfstring(L, "<%s %s", kinds[future->kind], states[future->status]);
  luaL_addvalue(&b);
  if (future->kind == AG_TASK) {
    ag_task *task = (ag_task *)future;
    ag_task_push_name(L, S, task, 1);
    const char *name = lua_tostring(L, -1);
    ag_task_push_function(L, 1);
    ag_push_site(L, S, -1);
    lua_pushfstring(L, " name='%s' coro=%s", name, lua_tostring(L, -1));
    lua_replace(L, -4);
    lua_pop(L, 2);
    luaL_addvalue(&b);
    if (future->status == AG_PENDING && task->wait == AG_WAIT_FUTURE) {
      lua_pushfstring(L, " wait_for=<%s>", kinds[task->waiting->kind]);
      luaL_addvalue(&b);
    } else if (future->status == AG_PENDING && task->wait == AG_WAIT_SLEEP) {
      luaL_addstring(&b, " wait_for=<sleep>");
    } else if (future->status == AG_PENDING && task->wait == AG_WAIT_TURN) {
      lua_pushfstring(L, " wait_for=<%s>", task->what);
      luaL_addvalue(&b);
    } else if (future->status == AG_PENDING && task->wait == AG_WAIT_OPERATION) {
      luaL_addstring(&b, " wait_for=<I/O>");
    }
  }
  luaL_addchar(&b, '>');
  luaL_pushresult(&b);
  return 1;
}

void ag_future_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg methods[] = {{"set_result", future_set_result},
                                     {"set_exception", future_set_exception},
                                     {"done", future_done},
                                     {"cancelled", future_cancelled},
                                     {"result", future_result},
                                     {"exception", future_exception},
                                     {"cancel", future_cancel},
                                     {"await", future_await},
                                     {"get_loop", future_get_loop},
                                     {"add_done_callback", future_add_done_callback},
                                     {"remove_done_callback", future_remove_done_callback},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__tostring", future_tostring}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"future", new_future}, {NULL, NULL}};
  S->mt_future = ag_new_type(L, S, "Future", meta, methods);
  S->mt_task = ag_new_type(L, S, "Task", meta, methods + 2); /* a task has all but the setters */
  ag_setfuncs(L, S, functions);
}
