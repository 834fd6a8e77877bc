/* Queue, LifoQueue, PriorityQueue: asyncio's (3.11; shutdown, 3.13).
** The items stand in a table (user value 1): a ring for Queue, a stack for LifoQueue, a binary heap for
** PriorityQueue, whose ties leave in the order in which they came. */
#include "core/queue.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/limits.h"
#include "core/waiters.h"

enum kind { FIFO, LIFO, PRIORITY };
enum { ITEMS = 1, COMPARE = 2 }; /* user values */
enum { HEAP_DEPTH = 64 };

typedef struct queue {
  ag_link getters, putters, joiners;
  lua_Integer maxsize, count, unfinished;
  lua_Integer head, room; /* of the ring: index of the first item, from 0, and the size of the table */
  uint64_t *orders, next; /* of the heap: when each item came */
  uint8_t kind;
  bool is_shutdown;
  uint32_t changes; /* counts them: a comparison must make none */
} queue;

static queue *check_queue(lua_State *L, int arg) {
  void *p = lua_touserdata(L, arg);
  if (p != NULL && lua_getmetatable(L, arg)) {
    for (int kind = FIFO; kind <= PRIORITY; kind++) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, ag_self(L)->mt_queues[kind]);
      bool same = lua_rawequal(L, -1, -2);
      lua_pop(L, 1);
      if (same) {
        lua_pop(L, 1);
        return p;
      }
    }
  }
  luaL_typeerror(L, arg, "Queue");
  return NULL;
}

/* ---- the heap ---- */

/* Calls less(a, b); raises when that has changed the queue. */
static bool less(lua_State *L, const queue *q, int compare, int a, int b) {
  uint32_t changes = q->changes;
  bool is_less;
  if (lua_isnil(L, compare)) {
    is_less = lua_compare(L, a, b, LUA_OPLT);
  } else {
    lua_pushvalue(L, compare);
    lua_pushvalue(L, a);
    lua_pushvalue(L, b);
    lua_call(L, 2, 1);
    is_less = lua_toboolean(L, -1);
    lua_pop(L, 1);
  }
  if (q->changes != changes)
    ag_error_raise(L, ag_self(L), "RuntimeError", "the comparison has changed the queue");
  return is_less;
}

/* Whether the item at stack index [a] with order [oa] leaves before the one at [b]. */
static bool before(lua_State *L, const queue *q, int compare, int a, uint64_t oa, int b, uint64_t ob) {
  if (less(L, q, compare, a, b))
    return true;
  return !less(L, q, compare, b, a) && oa < ob;
}

/* Puts the value on top into the heap. Compares first and moves then: an error leaves the heap as it was. */
static void heap_put(lua_State *L, queue *q, int items, int compare) {
  int value = lua_gettop(L);
  uint64_t order = q->next;
  lua_Integer path[HEAP_DEPTH], i = q->count + 1;
  int depth = 0;
  while (i > 1) {
    lua_rawgeti(L, items, i / 2);
    bool up = before(L, q, compare, value, order, value + 1, q->orders[i / 2 - 1]);
    lua_settop(L, value);
    if (!up)
      break;
    path[depth++] = i;
    i /= 2;
  }
  lua_pushboolean(L, 0);
  lua_rawseti(L, items, q->count + 1); /* the only step that can want memory */
  q->next++;
  q->count++;
  q->changes++;
  for (int d = 0; d < depth; d++) {
    lua_rawgeti(L, items, path[d] / 2);
    lua_rawseti(L, items, path[d]);
    q->orders[path[d] - 1] = q->orders[path[d] / 2 - 1];
  }
  lua_rawseti(L, items, i);
  q->orders[i - 1] = order;
}

/* Pushes the first item of the heap and takes it out. */
static void heap_get(lua_State *L, queue *q, int items, int compare) {
  int top = lua_gettop(L);
  lua_Integer n = q->count - 1, path[HEAP_DEPTH], i = 1;
  int depth = 0;
  lua_rawgeti(L, items, 1);
  lua_rawgeti(L, items, q->count); /* the last one looks for its new place from the root on */
  uint64_t order = q->orders[q->count - 1];
  while (2 * i <= n) {
    lua_Integer child = 2 * i;
    lua_rawgeti(L, items, child);
    if (child < n) {
      lua_rawgeti(L, items, child + 1);
      if (before(L, q, compare, top + 4, q->orders[child], top + 3, q->orders[child - 1])) {
        lua_replace(L, top + 3);
        child++;
      }
      lua_settop(L, top + 3);
    }
    bool down = before(L, q, compare, top + 3, q->orders[child - 1], top + 2, order);
    lua_settop(L, top + 2);
    if (!down)
      break;
    path[depth++] = child;
    i = child;
  }
  for (int d = 0; d < depth; d++) {
    lua_rawgeti(L, items, path[d]);
    lua_rawseti(L, items, path[d] / 2);
    q->orders[path[d] / 2 - 1] = q->orders[path[d] - 1];
  }
  lua_rawseti(L, items, i);
  q->orders[i - 1] = order;
  lua_pushnil(L);
  lua_rawseti(L, items, q->count--);
  q->changes++;
}

/* ---- items ---- */

static bool empty(const queue *q) { return q->count == 0; }
static bool full(const queue *q) { return q->maxsize > 0 && q->count >= q->maxsize; }

/* Makes room for one more item. */
static void grow(lua_State *L, queue *q, int self) {
  if (q->count < q->room)
    return;
  lua_Integer room = q->room ? q->room * 2 : 8;
  if (q->kind == PRIORITY) {
    uint64_t *orders = realloc(q->orders, (size_t)room * sizeof *orders);
    if (orders == NULL)
      luaL_error(L, "not enough memory");
    q->orders = orders;
    q->room = room;
  } else if (q->kind == FIFO) {
    luaL_argcheck(L, room < INT32_MAX / 2, 1, "too many items");
    lua_createtable(L, (int)room, 0);
    lua_getiuservalue(L, self, ITEMS);
    for (lua_Integer i = 0, place = q->head; i < q->count; i++, place++) {
      if (place == q->room)
        place = 0;
      lua_rawgeti(L, -1, place + 1);
      lua_rawseti(L, -3, i + 1);
    }
    lua_pop(L, 1);
    lua_setiuservalue(L, self, ITEMS);
    q->head = 0;
    q->room = room;
  }
}

/* Puts the item on top into the queue at [self]. [-1, +0, e] */
static void put_item(lua_State *L, queue *q, int self) {
  int item = lua_gettop(L);
  grow(L, q, self);
  lua_getiuservalue(L, self, ITEMS);
  if (q->kind == PRIORITY) {
    lua_getiuservalue(L, self, COMPARE);
    lua_pushvalue(L, item);
    heap_put(L, q, item + 1, item + 2);
  } else {
    lua_pushvalue(L, item);
    lua_rawseti(L, item + 1, q->kind == LIFO ? q->count + 1 : (q->head + q->count) % q->room + 1);
    q->count++;
    q->changes++;
  }
  lua_settop(L, item - 1);
}

/* Pushes the next item and takes it out. [-0, +1, e] */
static void get_item(lua_State *L, queue *q, int self) {
  int top = lua_gettop(L);
  lua_getiuservalue(L, self, ITEMS);
  if (q->kind == PRIORITY) {
    lua_getiuservalue(L, self, COMPARE);
    heap_get(L, q, top + 1, top + 2);
  } else {
    lua_Integer place = q->kind == LIFO ? q->count : q->head + 1;
    lua_rawgeti(L, top + 1, place);
    lua_pushboolean(L, 0); /* as nil, but the table keeps its shape */
    lua_rawseti(L, top + 1, place);
    q->count--;
    q->changes++;
    if (q->kind == FIFO)
      q->head = (q->head + 1) % q->room;
  }
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

/* ---- put ---- */

static void check_item(lua_State *L) {
  luaL_argcheck(L, !lua_isnoneornil(L, 2), 2, "item expected, got nil");
  lua_settop(L, 2);
}

static int shut(lua_State *L) { return ag_error_raise(L, ag_self(L), "QueueShutDown", "the queue was shut down"); }

/* 1 queue, 2 item. */
static int put_now(lua_State *L, ag_state *S, queue *q) {
  if (q->is_shutdown)
    return shut(L);
  if (full(q))
    return ag_error_raise(L, S, "QueueFull", "the queue is full (%I items)", q->count);
  ag_limit_check(L, S, items, q->count);
  put_item(L, q, 1);
  q->unfinished++;
  ag_waiters_take_one(S, &q->getters);
  return 0;
}

static int put_resumed(lua_State *L, int status, lua_KContext context);

static int put_or_wait(lua_State *L, ag_state *S, queue *q) {
  if (!full(q))
    return put_now(L, S, q);
  if (q->is_shutdown)
    return shut(L);
  return ag_waiters_park(L, ag_task_check(L, S, "Queue.put"), &q->putters, "Queue.put", 0, put_resumed);
}

static int put_resumed(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_state *S = ag_self(L);
  queue *q = lua_touserdata(L, 1);
  ag_task *task = ag_waiters_back(L, S);
  if (task->must_cancel && task->turn == AG_TURN_WOKEN && !full(q))
    ag_waiters_take_one(S, &q->putters);
  ag_task_raise(L, S, task);
  return put_or_wait(L, S, q);
}

/* queue:put(item): waits while the queue is full. */
static int queue_put(lua_State *L) {
  queue *q = check_queue(L, 1);
  check_item(L);
  return put_or_wait(L, ag_self(L), q);
}

/* queue:put_nowait(item): raises QueueFull instead of waiting. */
static int queue_put_nowait(lua_State *L) {
  queue *q = check_queue(L, 1);
  check_item(L);
  return put_now(L, ag_self(L), q);
}

/* ---- get ---- */

static int get_now(lua_State *L, ag_state *S, queue *q) {
  if (empty(q)) {
    if (q->is_shutdown)
      return shut(L);
    return ag_error_raise(L, S, "QueueEmpty", "the queue is empty");
  }
  get_item(L, q, 1);
  ag_waiters_take_one(S, &q->putters);
  return 1;
}

static int get_resumed(lua_State *L, int status, lua_KContext context);

/* With [iterate], the end of the queue is nil instead of an error. */
static int get_or_wait(lua_State *L, ag_state *S, queue *q, lua_KContext iterate) {
  if (!empty(q))
    return get_now(L, S, q);
  if (q->is_shutdown) {
    if (!iterate)
      return shut(L);
    lua_pushnil(L);
    return 1;
  }
  return ag_waiters_park(L, ag_task_check(L, S, "Queue.get"), &q->getters, "Queue.get", iterate, get_resumed);
}

static int get_resumed(lua_State *L, int status, lua_KContext iterate) {
  (void)status;
  ag_state *S = ag_self(L);
  queue *q = lua_touserdata(L, 1);
  ag_task *task = ag_waiters_back(L, S);
  if (task->must_cancel && task->turn == AG_TURN_WOKEN && !empty(q))
    ag_waiters_take_one(S, &q->getters);
  ag_task_raise(L, S, task);
  return get_or_wait(L, S, q, iterate);
}

/* queue:get(): waits for an item. */
static int queue_get(lua_State *L) {
  queue *q = check_queue(L, 1);
  lua_settop(L, 1);
  return get_or_wait(L, ag_self(L), q, 0);
}

/* queue:get_nowait(): raises QueueEmpty instead of waiting. */
static int queue_get_nowait(lua_State *L) {
  queue *q = check_queue(L, 1);
  lua_settop(L, 1);
  return get_now(L, ag_self(L), q);
}

static int next_item(lua_State *L) {
  queue *q = check_queue(L, 1);
  lua_settop(L, 1);
  return get_or_wait(L, ag_self(L), q, 1);
}

/* queue:items(): for item in queue:items() do: until the queue was shut down and is empty. */
static int queue_items(lua_State *L) {
  check_queue(L, 1);
  lua_pushlightuserdata(L, ag_self(L));
  lua_pushcclosure(L, next_item, 1);
  lua_pushvalue(L, 1);
  return 2;
}

/* ---- join, shutdown ---- */

static void finish_one(ag_state *S, queue *q) {
  if (--q->unfinished == 0)
    ag_waiters_wake_some(S, &q->joiners, LUA_MAXINTEGER);
}

/* queue:task_done(): an item that was taken out has been dealt with. */
static int queue_task_done(lua_State *L) {
  queue *q = check_queue(L, 1);
  if (q->unfinished <= 0)
    return ag_error_raise(L, ag_self(L), "RuntimeError", "task_done() called too many times");
  finish_one(ag_self(L), q);
  return 0;
}

static int joined(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_task_raise(L, ag_self(L), ag_waiters_back(L, ag_self(L)));
  return 0;
}

/* queue:join(): until task_done was called for every item. */
static int queue_join(lua_State *L) {
  queue *q = check_queue(L, 1);
  lua_settop(L, 1);
  if (q->unfinished == 0)
    return 0;
  return ag_waiters_park(L, ag_task_check(L, ag_self(L), "Queue.join"), &q->joiners, "Queue.join", 0, joined);
}

/* queue:shutdown([immediate]): no more puts; gets take what is left, or, if immediate, nothing. */
static int queue_shutdown(lua_State *L) {
  ag_state *S = ag_self(L);
  queue *q = check_queue(L, 1);
  q->is_shutdown = true;
  q->changes++;
  if (lua_toboolean(L, 2)) {
    lua_newtable(L);
    lua_setiuservalue(L, 1, ITEMS);
    q->room = 0; /* the ring is made anew with the next item; there is none */
    while (q->count > 0) {
      q->count--;
      if (q->unfinished > 0)
        finish_one(S, q);
    }
  }
  while (!ag_list_empty(&q->getters))
    ag_waiters_take_one(S, &q->getters);
  while (!ag_list_empty(&q->putters))
    ag_waiters_take_one(S, &q->putters);
  return 0;
}

/* ---- what it is like ---- */

static int queue_qsize(lua_State *L) {
  lua_pushinteger(L, check_queue(L, 1)->count);
  return 1;
}

static int queue_empty(lua_State *L) {
  lua_pushboolean(L, empty(check_queue(L, 1)));
  return 1;
}

static int queue_full(lua_State *L) {
  lua_pushboolean(L, full(check_queue(L, 1)));
  return 1;
}

static int queue_maxsize(lua_State *L) {
  lua_pushinteger(L, check_queue(L, 1)->maxsize);
  return 1;
}

static int queue_tostring(lua_State *L) {
  queue *q = check_queue(L, 1);
  luaL_getmetafield(L, 1, "__name");
  lua_pushfstring(L, "<%s maxsize=%I items=%I%s>", lua_tostring(L, -1), q->maxsize, q->count,
                  q->is_shutdown ? " shutdown" : "");
  return 1;
}

static int queue_gc(lua_State *L) {
  ag_state *S = ag_self(L);
  queue *q = lua_touserdata(L, 1);
  ag_waiters_clear(S, &q->getters);
  ag_waiters_clear(S, &q->putters);
  ag_waiters_clear(S, &q->joiners);
  free(q->orders);
  q->orders = NULL;
  return 0;
}

/* Queue([maxsize = 0]), LifoQueue([maxsize = 0]), PriorityQueue([maxsize = 0 [, less]]): maxsize <= 0 is no limit;
** less(a, b) tells whether a leaves before b, by default a < b. Upvalue 2: the kind. */
static int new_queue(lua_State *L) {
  ag_state *S = ag_self(L);
  int kind = (int)lua_tointeger(L, lua_upvalueindex(2));
  lua_Integer maxsize = luaL_optinteger(L, 1, 0);
  if (!lua_isnoneornil(L, 2)) {
    luaL_argcheck(L, kind == PRIORITY, 2, "only a PriorityQueue takes a comparison function");
    luaL_checktype(L, 2, LUA_TFUNCTION);
  }
  lua_settop(L, 2);
  queue *q = lua_newuserdatauv(L, sizeof *q, 2);
  memset(q, 0, sizeof *q);
  ag_link_init(&q->getters);
  ag_link_init(&q->putters);
  ag_link_init(&q->joiners);
  q->kind = (uint8_t)kind;
  q->maxsize = maxsize;
  lua_newtable(L);
  lua_setiuservalue(L, 3, ITEMS);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 3, COMPARE);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_queues[kind]);
  lua_setmetatable(L, 3);
  return 1;
}

void ag_queue_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg methods[] = {{"put", queue_put},
                                     {"put_nowait", queue_put_nowait},
                                     {"get", queue_get},
                                     {"get_nowait", queue_get_nowait},
                                     {"items", queue_items},
                                     {"task_done", queue_task_done},
                                     {"join", queue_join},
                                     {"shutdown", queue_shutdown},
                                     {"qsize", queue_qsize},
                                     {"empty", queue_empty},
                                     {"full", queue_full},
                                     {"maxsize", queue_maxsize},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__tostring", queue_tostring}, {"__gc", queue_gc}, {NULL, NULL}};
  static const char *const names[] = {"Queue", "LifoQueue", "PriorityQueue"};
  for (int kind = FIFO; kind <= PRIORITY; kind++) {
    S->mt_queues[kind] = ag_new_type(L, S, names[kind], meta, methods);
    lua_pushlightuserdata(L, S);
    lua_pushinteger(L, kind);
    lua_pushcclosure(L, new_queue, 2);
    lua_setfield(L, -2, names[kind]);
  }
}
