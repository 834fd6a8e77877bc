/* Lock, Event, Condition, Semaphore, BoundedSemaphore: asyncio's (3.11; a cancelled waiter of a condition hands its
** notification on, 3.13). Acquiring returns the primitive itself, whose __close releases it:
**   local held <close> = lock:acquire() */
#include "core/sync.h"

#include "core/error.h"
#include "core/waiters.h"

typedef struct lock {
  ag_link waiters;
  bool locked;
  uint32_t owner; /* id of the task that holds it, for __close */
} lock;

typedef struct event {
  ag_link waiters;
  bool set;
} event;

typedef struct semaphore {
  ag_link waiters;
  lua_Integer value, bound; /* bound < 0: none */
} semaphore;

typedef struct condition {
  ag_link waiters;
  lock *lock; /* user value 1 */
} condition;

/* The primitive at [arg] whose metatable is upvalue 2 of the calling method. */
static void *check(lua_State *L, int arg) {
  void *p = lua_touserdata(L, arg);
  if (p != NULL && lua_getmetatable(L, arg)) {
    bool same = lua_rawequal(L, -1, lua_upvalueindex(2));
    lua_pop(L, 1);
    if (same)
      return p;
  }
  const char *given = lua_isnone(L, arg) ? "no value" : ag_type_name(L, arg);
  lua_getfield(L, lua_upvalueindex(2), "__name");
  luaL_argerror(L, arg, lua_pushfstring(L, "%s expected, got %s", lua_tostring(L, -1), given));
  return NULL;
}

/* Pushes a new userdata with the metatable at upvalue 2 of the calling constructor. */
static void *new_primitive(lua_State *L, size_t size) {
  ag_link *waiters = lua_newuserdatauv(L, size, 1);
  ag_link_init(waiters);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_setmetatable(L, -2);
  return waiters;
}

static int primitive_gc(lua_State *L) {
  ag_waiters_clear(ag_self(L), lua_touserdata(L, 1));
  return 0;
}

/* ---- locks ---- */

static uint32_t current_id(ag_state *S) {
  return S->running != NULL && S->running->task != NULL ? S->running->task->id : 0;
}

static void wake_first(ag_state *S, ag_link *waiters) {
  ag_task *task = ag_waiters_first(waiters);
  if (task != NULL)
    ag_waiters_wake(S, task);
}

static void lock_take(ag_state *S, lock *l) {
  l->locked = true;
  l->owner = current_id(S);
}

static void lock_give(ag_state *S, lock *l) {
  l->locked = false;
  wake_first(S, &l->waiters);
}

/* Takes the lock if nobody holds it and nobody waits for it. */
static bool lock_try(ag_state *S, lock *l) {
  if (l->locked || ag_waiters_any(&l->waiters))
    return false;
  lock_take(S, l);
  return true;
}

static int lock_acquired(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_state *S = ag_self(L);
  lock *l = lua_touserdata(L, 1);
  ag_task *task = ag_waiters_back(L, S);
  if (task->must_cancel && !l->locked)
    wake_first(S, &l->waiters);
  ag_task_raise(L, S, task);
  lock_take(S, l);
  return 1;
}

/* lock:acquire(): waits for the lock; gives the lock, to be closed. FIFO fair. */
static int lock_acquire(lua_State *L) {
  ag_state *S = ag_self(L);
  lock *l = check(L, 1);
  lua_settop(L, 1);
  if (lock_try(S, l))
    return 1;
  return ag_waiters_park(L, ag_task_check(L, S, "Lock.acquire"), &l->waiters, "Lock", 0, lock_acquired);
}

/* lock:release() */
static int lock_release(lua_State *L) {
  lock *l = check(L, 1);
  if (!l->locked)
    return ag_error_raise(L, ag_self(L), "RuntimeError", "Lock is not acquired.");
  lock_give(ag_self(L), l);
  return 0;
}

/* Leaving the scope releases the lock, unless this task has released it before. */
static int lock_close(lua_State *L) {
  ag_state *S = ag_self(L);
  lock *l = check(L, 1);
  if (l->locked && l->owner == current_id(S))
    lock_give(S, l);
  return 0;
}

static int lock_locked(lua_State *L) {
  lua_pushboolean(L, ((lock *)check(L, 1))->locked);
  return 1;
}

static int new_lock(lua_State *L) {
  lock *l = new_primitive(L, sizeof *l);
  l->locked = false;
  l->owner = 0;
  return 1;
}

/* ---- events ---- */

static int event_waited(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_state *S = ag_self(L);
  ag_task_raise(L, S, ag_waiters_back(L, S));
  lua_pushboolean(L, true);
  return 1;
}

/* event:wait(): until it is set; true. */
static int event_wait(lua_State *L) {
  event *e = check(L, 1);
  lua_settop(L, 1);
  if (!e->set)
    return ag_waiters_park(L, ag_task_check(L, ag_self(L), "Event.wait"), &e->waiters, "Event", 0, event_waited);
  lua_pushboolean(L, true);
  return 1;
}

/* event:set(): wakes all who wait. */
static int event_set(lua_State *L) {
  event *e = check(L, 1);
  if (!e->set) {
    e->set = true;
    ag_waiters_wake_some(ag_self(L), &e->waiters, LUA_MAXINTEGER);
  }
  return 0;
}

static int event_clear(lua_State *L) {
  ((event *)check(L, 1))->set = false;
  return 0;
}

static int event_is_set(lua_State *L) {
  lua_pushboolean(L, ((event *)check(L, 1))->set);
  return 1;
}

static int new_event(lua_State *L) {
  event *e = new_primitive(L, sizeof *e);
  e->set = false;
  return 1;
}

/* ---- semaphores ---- */

static bool semaphore_busy(const semaphore *s) { return s->value == 0 || ag_waiters_any(&s->waiters); }

static void semaphore_wake_next(ag_state *S, semaphore *s) {
  for (ag_link *l = s->waiters.next; l != &s->waiters; l = l->next) {
    if (!ag_waiters_wake(S, ag_container(l, ag_task, turn_link)))
      continue;
    s->value--;
    return;
  }
}

static int semaphore_acquired(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_state *S = ag_self(L);
  semaphore *s = lua_touserdata(L, 1);
  ag_task *task = ag_waiters_back(L, S);
  if (task->must_cancel && task->turn == AG_TURN_WOKEN) {
    s->value++;
    semaphore_wake_next(S, s);
  }
  ag_task_raise(L, S, task);
  if (s->value > 0)
    semaphore_wake_next(S, s);
  return 1;
}

/* semaphore:acquire(): waits for a place; gives the semaphore, to be closed. FIFO fair. */
static int semaphore_acquire(lua_State *L) {
  ag_state *S = ag_self(L);
  semaphore *s = check(L, 1);
  lua_settop(L, 1);
  if (semaphore_busy(s))
    return ag_waiters_park(L, ag_task_check(L, S, "Semaphore.acquire"), &s->waiters, "Semaphore", 0,
                           semaphore_acquired);
  s->value--;
  return 1;
}

/* semaphore:release(), and what closes it. */
static int semaphore_release(lua_State *L) {
  semaphore *s = check(L, 1);
  if (s->bound >= 0 && s->value >= s->bound)
    return ag_error_raise(L, ag_self(L), "RuntimeError", "BoundedSemaphore released too many times");
  s->value++;
  semaphore_wake_next(ag_self(L), s);
  return 0;
}

static int semaphore_locked(lua_State *L) {
  lua_pushboolean(L, semaphore_busy(check(L, 1)));
  return 1;
}

static semaphore *make_semaphore(lua_State *L) {
  lua_Integer value = luaL_optinteger(L, 1, 1);
  if (value < 0)
    luaL_argerror(L, 1, lua_pushfstring(L, "initial value must not be negative, got %I", value));
  semaphore *s = new_primitive(L, sizeof *s);
  s->value = value;
  s->bound = -1;
  return s;
}

/* Semaphore([value = 1]) */
static int new_semaphore(lua_State *L) {
  make_semaphore(L);
  return 1;
}

/* BoundedSemaphore([value = 1]): raises when released more often than acquired. */
static int new_bounded(lua_State *L) {
  semaphore *s = make_semaphore(L);
  s->bound = s->value;
  return 1;
}

/* ---- conditions ---- */

enum stage { NOTIFIED, LOCKED };

static int ask_predicate(lua_State *L);

/* 1 the condition, 2 the error to raise once the lock is held again, or nil, 3 whether it was notified, 4 the
** predicate of wait_for, or nil. */
static int condition_waited(lua_State *L, int status, lua_KContext stage) {
  (void)status;
  ag_state *S = ag_self(L);
  condition *c = lua_touserdata(L, 1);
  ag_task *task = ag_waiters_back(L, S);
  if (stage == NOTIFIED) {
    lua_pushboolean(L, task->turn == AG_TURN_WOKEN);
    lua_replace(L, 3);
  }
  if (task->must_cancel) {
    if (stage == LOCKED && !c->lock->locked)
      wake_first(S, &c->lock->waiters);
    ag_task_take_throw(L, S, task);
    lua_replace(L, 2);
  } else if (stage == LOCKED) {
    lock_take(S, c->lock);
    stage = -1;
  }
  if (stage != -1 && !lock_try(S, c->lock))
    return ag_waiters_park(L, task, &c->lock->waiters, "Lock", LOCKED, condition_waited);
  if (!lua_isnil(L, 2)) {
    if (lua_toboolean(L, 3)) /* the notification that this task got must not be lost */
      ag_waiters_wake_some(S, &c->waiters, 1);
    lua_pushvalue(L, 2);
    return lua_error(L);
  }
  if (!lua_isnil(L, 4))
    return ask_predicate(L);
  lua_pushboolean(L, true);
  return 1;
}

static condition *check_held(lua_State *L, const char *what) {
  condition *c = check(L, 1);
  if (!c->lock->locked)
    ag_error_raise(L, ag_self(L), "RuntimeError", "cannot %s on un-acquired lock", what);
  return c;
}

/* Gives the lock away and waits; 1 to 4 as condition_waited has them. */
static int wait_for_notice(lua_State *L, ag_state *S) {
  condition *c = check_held(L, "wait");
  ag_task *task = ag_task_check(L, S, "Condition.wait");
  lock_give(S, c->lock);
  return ag_waiters_park(L, task, &c->waiters, "Condition", NOTIFIED, condition_waited);
}

static int predicate_asked(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  if (lua_toboolean(L, 5))
    return 1;
  lua_settop(L, 4);
  lua_pushnil(L);
  lua_replace(L, 2);
  return wait_for_notice(L, ag_self(L));
}

static int ask_predicate(lua_State *L) {
  lua_settop(L, 4);
  lua_pushvalue(L, 4);
  lua_callk(L, 0, 1, 0, predicate_asked);
  return predicate_asked(L, LUA_OK, 0);
}

/* condition:wait(): releases the lock, waits to be notified, takes the lock again; true. */
static int condition_wait(lua_State *L) {
  check_held(L, "wait");
  lua_settop(L, 1);
  lua_settop(L, 4);
  return wait_for_notice(L, ag_self(L));
}

/* condition:wait_for(predicate): waits until predicate() is true; gives what it returned. */
static int condition_wait_for(lua_State *L) {
  check(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  for (int i = 0; i < 2; i++) { /* condition, nil, nil, predicate */
    lua_pushnil(L);
    lua_insert(L, 2);
  }
  return ask_predicate(L);
}

/* condition:notify([n = 1]) */
static int condition_notify(lua_State *L) {
  condition *c = check_held(L, "notify");
  ag_waiters_wake_some(ag_self(L), &c->waiters, luaL_optinteger(L, 2, 1));
  return 0;
}

static int condition_notify_all(lua_State *L) {
  ag_waiters_wake_some(ag_self(L), &check_held(L, "notify")->waiters, LUA_MAXINTEGER);
  return 0;
}

static int condition_acquired(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  ag_state *S = ag_self(L);
  lock *l = ((condition *)lua_touserdata(L, 1))->lock;
  ag_task *task = ag_waiters_back(L, S);
  if (task->must_cancel && !l->locked)
    wake_first(S, &l->waiters);
  ag_task_raise(L, S, task);
  lock_take(S, l);
  return 1;
}

/* condition:acquire(), :release(), :locked(): those of its lock. */
static int condition_acquire(lua_State *L) {
  ag_state *S = ag_self(L);
  lock *l = ((condition *)check(L, 1))->lock;
  lua_settop(L, 1);
  if (lock_try(S, l))
    return 1;
  return ag_waiters_park(L, ag_task_check(L, S, "Condition.acquire"), &l->waiters, "Lock", 0, condition_acquired);
}

static int condition_release(lua_State *L) {
  condition *c = check(L, 1);
  if (!c->lock->locked)
    return ag_error_raise(L, ag_self(L), "RuntimeError", "Lock is not acquired.");
  lock_give(ag_self(L), c->lock);
  return 0;
}

static int condition_close(lua_State *L) {
  ag_state *S = ag_self(L);
  lock *l = ((condition *)check(L, 1))->lock;
  if (l->locked && l->owner == current_id(S))
    lock_give(S, l);
  return 0;
}

static int condition_locked(lua_State *L) {
  lua_pushboolean(L, ((condition *)check(L, 1))->lock->locked);
  return 1;
}

/* Condition([lock]): upvalue 3 is the metatable of locks. */
static int new_condition(lua_State *L) {
  lua_settop(L, 1);
  if (lua_isnil(L, 1)) {
    lock *l = lua_newuserdatauv(L, sizeof *l, 0);
    ag_link_init(&l->waiters);
    l->locked = false;
    l->owner = 0;
    lua_pushvalue(L, lua_upvalueindex(3));
    lua_setmetatable(L, -2);
    lua_replace(L, 1);
  } else if (!lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(3))) {
    return luaL_typeerror(L, 1, "Lock");
  }
  lua_settop(L, 1);
  condition *c = new_primitive(L, sizeof *c);
  c->lock = lua_touserdata(L, 1);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static int waiting(const ag_link *waiters) {
  int n = 0;
  for (const ag_link *l = waiters->next; l != waiters; l = l->next)
    n++;
  return n;
}

static int lock_tostring(lua_State *L) {
  lock *l = check(L, 1);
  lua_pushfstring(L, "<Lock %s waiters=%d>", l->locked ? "locked" : "unlocked", waiting(&l->waiters));
  return 1;
}

static int event_tostring(lua_State *L) {
  event *e = check(L, 1);
  lua_pushfstring(L, "<Event %s waiters=%d>", e->set ? "set" : "unset", waiting(&e->waiters));
  return 1;
}

static int semaphore_tostring(lua_State *L) {
  semaphore *s = check(L, 1);
  lua_getfield(L, lua_upvalueindex(2), "__name");
  lua_pushfstring(L, "<%s value=%I waiters=%d>", lua_tostring(L, -1), s->value, waiting(&s->waiters));
  return 1;
}

static int condition_tostring(lua_State *L) {
  condition *c = check(L, 1);
  lua_pushfstring(L, "<Condition %s waiters=%d>", c->lock->locked ? "locked" : "unlocked", waiting(&c->waiters));
  return 1;
}

void ag_sync_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg lock_methods[] = {
      {"acquire", lock_acquire}, {"release", lock_release}, {"locked", lock_locked}, {NULL, NULL}};
  static const luaL_Reg event_methods[] = {
      {"wait", event_wait}, {"set", event_set}, {"clear", event_clear}, {"is_set", event_is_set}, {NULL, NULL}};
  static const luaL_Reg semaphore_methods[] = {
      {"acquire", semaphore_acquire}, {"release", semaphore_release}, {"locked", semaphore_locked}, {NULL, NULL}};
  static const luaL_Reg condition_methods[] = {{"wait", condition_wait},       {"wait_for", condition_wait_for},
                                               {"notify", condition_notify},   {"notify_all", condition_notify_all},
                                               {"acquire", condition_acquire}, {"release", condition_release},
                                               {"locked", condition_locked},   {NULL, NULL}};
  const struct {
    const char *name;
    const luaL_Reg *methods;
    lua_CFunction make, close, tostring;
  } types[] = {{"Lock", lock_methods, new_lock, lock_close, lock_tostring},
               {"Event", event_methods, new_event, NULL, event_tostring},
               {"Semaphore", semaphore_methods, new_semaphore, semaphore_release, semaphore_tostring},
               {"BoundedSemaphore", semaphore_methods, new_bounded, semaphore_release, semaphore_tostring},
               {"Condition", condition_methods, new_condition, condition_close, condition_tostring}};
  int module = lua_gettop(L);
  for (int i = 0; i < 5; i++) {
    ag_new_class(L, S, types[i].name, types[i].methods, types[i].tostring, primitive_gc, types[i].close);
    int metatable = lua_gettop(L);
    lua_pushlightuserdata(L, S);
    lua_pushvalue(L, metatable);
    lua_pushvalue(L, module + 1); /* the first: locks */
    lua_pushcclosure(L, types[i].make, 3);
    lua_setfield(L, module, types[i].name);
    if (i > 0)
      lua_settop(L, metatable - 1);
  }
  lua_settop(L, module);
}
