/* gather: one future for many awaitables, as asyncio.gather (3.11).
** Each child gets a node of the one block; its callback stores the result in the child's place of the list.
** The gather is kept alive while a child is not done. */
#include "core/gather.h"

#include <string.h>

#include "core/chain.h"
#include "core/error.h"
#include "core/limits.h"
#include "core/report.h"

enum { LIST = 2 };

static void child_done(ag_loop *loop, lua_State *L, ag_node *node);

static void finish(lua_State *L, ag_state *S, ag_gather *gather, int self) {
  if (gather->failing) {
    lua_getiuservalue(L, self, 1);
    lua_pushnil(L);
    lua_setiuservalue(L, self, 1);
    ag_future_reject(L, S, self);
  } else if (gather->cancel_requested) {
    /* Every child is done, but a cancellation was asked for and must reach the awaiter (bpo-32684): as the last of the
    ** list got it, or, where that went on, as it was asked. */
    lua_getiuservalue(L, self, LIST);
    lua_rawgeti(L, -1, gather->count);
    if (!ag_error_is(L, S, -1, "CancelledError"))
      lua_getiuservalue(L, self, 1);
    if (lua_isnil(L, -1))
      lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
    ag_future_reject(L, S, self);
  } else {
    lua_getiuservalue(L, self, LIST);
    ag_future_resolve(L, S, self, 1);
  }
}

static void cancel_siblings(lua_State *L, ag_state *S, ag_gather *gather, int list) {
  for (lua_Integer i = 0; i < gather->count; i++) {
    if (gather->children[i].child == NULL)
      continue;
    lua_rawgeti(L, list, i + 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
    ag_cancel(L, S, -2);
    lua_pop(L, 1);
  }
}

/* Protected: 1 state, 2 gather, 3 the child that its error came from. */
static int link_cause(lua_State *L) {
  ag_chain_link(L, lua_touserdata(L, 1), 2, 3);
  return 0;
}

/* The child [future] is done while the gather is not. The list is on top. Returns whether the gather waits on. */
static bool take_result(lua_State *L, ag_state *S, ag_gather *gather, int self, ag_future *future, lua_Integer place) {
  int list = self + 1, child = self + 2;
  lua_rawgeti(L, list, place);
  bool failed = ag_future_value_at(L, S, future, child);
  bool first = failed && !gather->return_exceptions && !gather->failing;
  if (first) { /* for tracebacks: where there is no memory for it, the gather ends all the same */
    lua_pushcfunction(L, link_cause);
    lua_pushlightuserdata(L, S);
    lua_pushvalue(L, self);
    lua_pushvalue(L, child);
    if (lua_pcall(L, 3, 0, 0) != LUA_OK)
      lua_pop(L, 1);
    lua_pushvalue(L, -1);
  }
  lua_rawseti(L, list, place);
  if (place == gather->count && S->requests_used && !gather->failing) { /* for finish() */
    ag_task_push_request(L, S, child);
    lua_setiuservalue(L, self, 1);
  }
  if (first) {
    bool now = !gather->cancel_on_error || gather->finished == gather->count;
    lua_pushvalue(L, now ? list : -1); /* the children that go on stay reachable, or the error is kept */
    lua_setiuservalue(L, self, 1);
    if (now) {
      ag_future_reject(L, S, self);
      return false;
    }
    gather->failing = true;
    cancel_siblings(L, S, gather, list);
  }
  if (gather->finished < gather->count)
    return true;
  finish(L, S, gather, self);
  return false;
}

/* The gather has failed before: takes the child's error, so that nobody reports it. */
static void take_error(lua_State *L, ag_state *S, int self, lua_Integer place) {
  lua_getiuservalue(L, self, 1);
  if (lua_isuserdata(L, -1)) { /* a watch keeps what stood here */
    lua_getiuservalue(L, -1, 1);
    lua_replace(L, -2);
  }
  if (!lua_istable(L, -1))
    return;
  lua_rawgeti(L, -1, place);
  ag_future_value(L, S, -1);
}

/* The child of a gather that comes next in this iteration, if it is one of the same gather. */
static ag_gather_child *next_child(ag_loop *loop, const ag_gather *gather) {
  if (ag_list_empty(&loop->current))
    return NULL;
  ag_node *node = ag_container(loop->current.next, ag_node, link);
  if (node->run != child_done)
    return NULL;
  ag_gather_child *child = ag_container(node, ag_gather_child, node);
  if (child->gather != gather)
    return NULL;
  ag_link_remove(&node->link);
  return child;
}

static void child_done(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_state *S = loop->S;
  ag_gather_child *child = ag_container(node, ag_gather_child, node);
  ag_gather *gather = child->gather;
  loop->runs = NULL;
  int keep = gather->cancel_index, base = lua_gettop(L);
  int self = base + 1, list = base + 2;
  ag_push_kept(L, S, keep);
  lua_getiuservalue(L, self, LIST);
  for (bool waits = gather->future.status == AG_PENDING; child != NULL; child = next_child(loop, gather)) {
    lua_Integer place = child - gather->children + 1;
    ag_future *future = child->child;
    gather->finished++;
    child->child = NULL;
    if (waits)
      waits = take_result(L, S, gather, self, future, place);
    else
      take_error(L, S, self, place);
    lua_settop(L, list);
    if (gather->finished == gather->count) {
      ag_drop(L, S, keep);
      break;
    }
  }
  lua_settop(L, base);
}

void ag_gather_abandon(ag_future *future) {
  ag_gather *gather = (ag_gather *)future;
  for (lua_Integer i = 0; i < gather->count; i++)
    ag_link_remove(&gather->children[i].node.link);
}

static bool option(lua_State *L, int options, const char *name) {
  lua_getfield(L, options, name);
  bool on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

static void check_options(lua_State *L, int options, const char *what) {
  for (lua_pushnil(L); lua_next(L, options); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    if (key == NULL || (strcmp(key, "return_exceptions") != 0 && strcmp(key, "cancel_on_error") != 0))
      luaL_argerror(L, options,
                    lua_pushfstring(L, "unknown option '%s' of %s", key ? key : luaL_typename(L, -2), what));
  }
}

/* Replaces the thread on top by its task; one that stands twice has one task, kept in the table at [seen]. */
static ag_future *thread_task(lua_State *L, ag_loop *loop, int seen, int arg) {
  int thread = lua_gettop(L);
  if (lua_isnil(L, seen)) {
    lua_newtable(L);
    lua_replace(L, seen);
  }
  lua_pushvalue(L, thread);
  if (lua_rawget(L, seen) == LUA_TNIL) {
    lua_pushvalue(L, thread);
    lua_replace(L, thread + 1);
    ag_ensure_future(L, loop, thread + 1, arg);
    lua_pushvalue(L, thread);
    lua_pushvalue(L, thread + 1);
    lua_rawset(L, seen);
  }
  lua_replace(L, thread);
  return lua_touserdata(L, thread);
}

/* Raises unless the value on top may be gathered, before any other is started: what ag_ensure_future would raise, and
** what is no awaitable. Returns it if it is a future. [arg] is its argument, or 0: it stands at [place] of a list. */
static ag_future *check_child(lua_State *L, ag_state *S, const ag_loop *loop, int arg, lua_Integer place) {
  bool used = false;
  ag_future *future = ag_future_to(L, S, -1);
  if (future != NULL) {
    if (future->loop != loop->id && future->status == AG_PENDING)
      ag_error_raise(L, S, "RuntimeError", "the awaitable belongs to another loop");
    return future;
  }
  int top = lua_gettop(L);
  if (!ag_awaitable(L, S, top)) {
    const char *kind = ag_type_name(L, top);
    if (arg != 0 && lua_istable(L, top))
      luaL_argerror(L, arg, "awaitable expected, got a table (for a list use agather.gather_list)");
    if (arg != 0)
      luaL_argerror(L, arg, lua_pushfstring(L, "awaitable expected, got %s", kind));
    luaL_argerror(L, 1, lua_pushfstring(L, "awaitable expected at place %d of the list, got %s", (int)place, kind));
  }
  if (lua_type(L, top) == LUA_TTHREAD) {
    if (!ag_thread_fresh(L, top)) {
      if (arg != 0)
        luaL_argerror(L, arg, "coroutine was already started");
      luaL_argerror(L, 1, lua_pushfstring(L, "coroutine at place %d of the list was already started", (int)place));
    }
  } else if (ag_coro_to(L, S, top, &used) != NULL && used) {
    ag_error_raise(L, S, "RuntimeError", "cannot reuse already awaited coroutine");
  }
  return NULL;
}

/* Every child has ended in its eager start: so does the gather, as asyncio's (3.12). */
static void complete_now(lua_State *L, ag_state *S, ag_gather *gather, int self, int list) {
  bool waits = true;
  for (lua_Integer i = 0; i < gather->count; i++) {
    ag_link_remove(&gather->children[i].node.link);
    ag_future *future = gather->children[i].child;
    gather->children[i].child = NULL;
    gather->finished++;
    if (waits)
      waits = take_result(L, S, gather, self, future, i + 1);
    else
      take_error(L, S, self, i + 1);
    lua_settop(L, list);
  }
  ag_drop(L, S, gather->cancel_index);
}

/* Pushes a gather of [count] children and the list of its results, whose place is its user value 2. */
static ag_gather *new_gather(lua_State *L, ag_loop *loop, lua_Integer count) {
  size_t size = sizeof(ag_gather) + (size_t)count * sizeof(ag_gather_child);
  ag_gather *gather = (ag_gather *)ag_future_new(L, loop, size, AG_GATHER);
  lua_createtable(L, (int)count, 1);
  lua_pushinteger(L, count);
  lua_setfield(L, -2, "n");
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, -3, LIST);
  return gather;
}

/* Takes the value on top as the child at [place], with [list] on the stack. [-1, +0, m] */
static void add_child(lua_State *L, ag_loop *loop, ag_gather *gather, int list, int arg, lua_Integer place) {
  gather->children[place - 1].child = check_child(L, loop->S, loop, arg, place);
  lua_rawseti(L, list, place);
}

/* Queues the children that are done already where asyncio does: before the first steps of the tasks that were made for
** those after them, whose ids are above [last] and grow; one that stands there again is no other task. */
static void queue_done(ag_loop *loop, ag_gather *gather, uint32_t last) {
  ag_link done;
  ag_link_init(&done);
  for (lua_Integer i = 0; i < gather->count; i++) {
    ag_gather_child *child = &gather->children[i];
    ag_task *task = child->child->kind == AG_TASK ? (ag_task *)child->child : NULL;
    if (child->child->status != AG_PENDING) {
      ag_list_append(&done, &child->node.link);
    } else if (task != NULL && task->id > last) {
      last = task->id;
      if (task->thread.L == NULL && !ag_list_empty(&task->timer.node.link))
        ag_list_splice(&task->timer.node.link, &done);
    }
  }
  ag_list_splice(&loop->ready, &done);
}

/* Raises unless the host's limit has room for all tasks that will be made: nobody would know of the first ones. */
static void check_room(lua_State *L, const ag_loop *loop, const ag_gather *gather, int list, lua_Integer count) {
  ag_state *S = loop->S;
  if (!ag_limit_reached(S, tasks, loop->tasks + (size_t)count))
    return;
  lua_newtable(L); /* of those that have one task though they stand there twice */
  int seen = lua_gettop(L);
  size_t wanted = 0;
  for (lua_Integer i = 0; i < count; i++) {
    bool used = false;
    if (gather->children[i].child != NULL)
      continue; /* it is there already */
    lua_rawgeti(L, list, i + 1);
    if (lua_isthread(L, -1) || ag_coro_to(L, S, -1, &used) != NULL) {
      lua_pushboolean(L, true);
      lua_rawset(L, seen);
    } else {
      wanted++;
      lua_pop(L, 1);
    }
  }
  for (lua_pushnil(L); lua_next(L, seen); lua_pop(L, 1))
    wanted++;
  lua_settop(L, seen - 1);
  if (wanted > 0)
    ag_limit_check(L, S, tasks, loop->tasks + wanted - 1);
}

/* Starts the children that are no futures yet, and waits for all [count], which are checked: pushes the gather that is
** at [self] with its list above. */
static int start(lua_State *L, ag_loop *loop, ag_gather *gather, int self, lua_Integer count, int options, bool args) {
  ag_state *S = loop->S;
  int list = self + 1;
  if (options != 0) {
    gather->return_exceptions = option(L, options, "return_exceptions");
    gather->cancel_on_error = option(L, options, "cancel_on_error");
  }
  if (count == 0) {
    ag_future_resolve(L, S, self, 1);
    return 1;
  }
  check_room(L, loop, gather, list, count);
  uint32_t before = S->next_task;
  lua_pushnil(L);
  int seen = lua_gettop(L);
  for (lua_Integer i = 0; i < count; i++) { /* a finalizer may run tasks here: nothing is linked before all are there */
    if (gather->children[i].child != NULL)
      continue;
    int arg = args ? (int)i + 1 : 1; /* a task stands for what was given */
    lua_rawgeti(L, list, i + 1);
    gather->children[i].child =
        lua_type(L, -1) == LUA_TTHREAD ? thread_task(L, loop, seen, arg) : ag_ensure_future(L, loop, -1, arg);
    lua_rawseti(L, list, i + 1);
  }
  lua_pushvalue(L, self);
  gather->cancel_index = ag_keep(L, S); /* kept until the last child is done, also when it has failed before */
  lua_pushvalue(L, self);
  gather->future.slot = ag_keep(L, S);
  gather->count = count;
  bool eager = true, done = false;
  for (lua_Integer i = 0; i < count; i++) {
    ag_gather_child *child = &gather->children[i];
    ag_future *future = child->child;
    child->node.run = child_done;
    child->gather = gather;
    eager = eager && future->kind == AG_TASK && ((ag_task *)future)->eager;
    if (future->status == AG_PENDING)
      ag_list_append(&future->waiters, &child->node.link);
    else
      done = true;
  }
  if (done)
    queue_done(loop, gather, before);
  lua_settop(L, list);
  if (eager)
    complete_now(L, S, gather, self, list);
  lua_settop(L, self);
  return 1;
}

/* gather(aw, ... [, options]): a future for the list of results. asyncio.gather, 3.11. */
static int gather(lua_State *L) {
  ag_state *S = ag_self(L);
  int n = lua_gettop(L), options = 0;
  bool plain = n > 0 && lua_istable(L, n) && !lua_getmetatable(L, n);
  if (plain && lua_rawlen(L, n) == 0) {
    options = n--;
    check_options(L, options, "gather");
  }
  ag_loop *loop = ag_loop_check(L, S, "gather");
  lua_settop(L, options ? options : n);
  ag_gather *gather = new_gather(L, loop, n);
  int list = lua_gettop(L);
  for (int i = 1; i <= n; i++) {
    lua_pushvalue(L, i);
    add_child(L, loop, gather, list, i, i);
  }
  return start(L, loop, gather, list - 1, n, options, true);
}

/* Replaces the list at index 1, whose metamethods may do anything, by a copy; returns its length. What is no awaitable
** is the last of the copy: what comes after it may be without end. */
static lua_Integer copy(lua_State *L) {
  lua_Integer n = luaL_len(L, 1);
  lua_newtable(L);
  for (lua_Integer i = 1; i <= n; i++) {
    int type = lua_geti(L, 1, i);
    if (type != LUA_TUSERDATA && type != LUA_TFUNCTION && type != LUA_TTABLE && type != LUA_TTHREAD)
      n = i;
    lua_rawseti(L, -2, i);
  }
  lua_replace(L, 1);
  return n;
}

/* The length of the list at 1, which may stand in its field n: nothing beyond [n], its first border, is looked at. */
static lua_Integer counted(lua_State *L, lua_Integer n) {
  lua_pushliteral(L, "n");
  lua_rawget(L, 1);
  int is_integer = lua_isinteger(L, -1);
  lua_Integer count = lua_tointeger(L, -1);
  lua_pop(L, 1);
  if (!is_integer || count == n)
    return n;
  if (count > n)
    luaL_argerror(L, 1, lua_pushfstring(L, "awaitable expected at place %d of the list, got nil", (int)n + 1));
  return count > 0 ? count : 0;
}

/* gather_list(list [, options]): gather over a list of any length. */
static int gather_list(lua_State *L) {
  ag_state *S = ag_self(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  int options = 0;
  if (!lua_isnil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    if (lua_getfield(L, 2, "limit") != LUA_TNIL || lua_getfield(L, 2, "progress") != LUA_TNIL) {
      lua_getglobal(L, "require"); /* bounded, or with progress: agather.map has it */
      lua_pushliteral(L, "agather.map");
      lua_call(L, 1, 1);
      lua_getfield(L, -1, "gather_list");
      lua_pushvalue(L, 1);
      lua_pushvalue(L, 2);
      lua_call(L, 2, 1);
      return 1;
    }
    lua_settop(L, 2);
    check_options(L, 2, "gather_list");
    options = 2;
  }
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  if (lua_getmetatable(L, 1)) {
    lua_settop(L, 2);
    n = copy(L);
  } else {
    n = counted(L, n);
  }
  ag_loop *loop = ag_loop_check(L, S, "gather");
  ag_gather *gather = new_gather(L, loop, n);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    add_child(L, loop, gather, 4, 0, i);
  }
  return start(L, loop, gather, 3, n, options, false);
}

void ag_gather_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg functions[] = {{"gather", gather}, {"gather_list", gather_list}, {NULL, NULL}};
  ag_setfuncs(L, S, functions);
}
