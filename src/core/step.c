/* The step: runs tasks on Lua threads until they wait or end.
** A body runs under lua_pcallk, so that <close> handlers may wait while an error unwinds. A thread that has run a
** task to its end goes on with the fresh tasks that follow in the ready queue, without leaving lua_resume. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/chain.h"
#include "core/error.h"
#include "core/limits.h"
#include "core/task.h"

/* On the stack of a thread that works: the message handler, the living, the task; then its function. */
enum { HANDLER = 1, LIVING, SELF };

/* A thread that works has room for so many arguments without asking. */
enum { ROOM = LUA_MINSTACK - 12 };

/* ---- errors ---- */

/* Whether the error object on top is for what is raised at [raised]. [-0, +0, -] */
static bool error_object_is_of(lua_State *L, int raised) {
  if (!lua_istable(L, -1))
    return false;
  lua_pushvalue(L, -1);
  ag_error_unwrap(L);
  bool same = lua_rawequal(L, -1, raised);
  lua_pop(L, 1);
  return same;
}

/* Sets the task's error object (user value 2) and remembers which future the error came from, if from one. */
static int message_handler(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_task *task = ag_task_here(L, S); /* none where a <close> handler of a task that ends with its loop raises */
  lua_settop(L, 1);
  ag_error_normalize(L, 1);
  if (task == NULL || ag_error_is(L, S, 1, "CancelledError"))
    return 1;
  ag_push_kept(L, S, task->future.slot);
  if (lua_touserdata(L, 2) != task) { /* it has been ended already: the state closes from inside it */
    lua_settop(L, 1);
    return 1;
  }
  lua_getiuservalue(L, 2, 2);
  bool passing = task->raising && error_object_is_of(L, 1);
  task->raising = false;
  if (passing) { /* from a thread above: the traceback goes on here */
    if (lua_istable(L, -1) && lua_getfield(L, -1, "traceback") == LUA_TSTRING) {
      luaL_traceback(L, L, NULL, 1);
      const char *rest = strchr(lua_tostring(L, -1), '\n');
      lua_pushfstring(L, "%s%s", lua_tostring(L, -2), rest != NULL ? rest : "");
      lua_setfield(L, 3, "traceback");
    }
    lua_settop(L, 1);
    return 1;
  }
  lua_settop(L, 2);
  ag_error_wrap(L, S, 1);
  if (lua_getfield(L, 3, "traceback") == LUA_TNIL) {
    luaL_traceback(L, L, NULL, 1);
    lua_setfield(L, 3, "traceback");
  }
  ag_chain_failed(L, S, 2, 1);
  lua_settop(L, 3);
  lua_setiuservalue(L, 2, 2);
  lua_settop(L, 1);
  return 1;
}

/* The task ends with the raised value on top of L. [-1, +0, m] */
static void finish_failed(lua_State *L, ag_state *S, ag_task *task) {
  int raised = lua_gettop(L);
  luaL_checkstack(L, 10, NULL);
  ag_push_kept(L, S, task->future.slot);
  int self = raised + 1;
  if (ag_error_is(L, S, raised, "CancelledError")) {
    lua_pushvalue(L, raised);
    ag_future_set_cancelled(L, S, self);
  } else {
    /* The message handler left the error object, unless a <close> handler replaced the error without one. */
    lua_getiuservalue(L, self, 2);
    bool ours = ag_error_is(L, S, -1, NULL);
    if (ours) {
      lua_pushvalue(L, -1);
      ag_error_unwrap(L);
      ours = lua_rawequal(L, -1, raised);
      lua_pop(L, 1);
    }
    if (!ours) {
      lua_pop(L, 1);
      ag_error_wrap(L, S, raised);
    }
    ag_future_reject(L, S, self);
    if (S->running != NULL)
      ag_loop_interrupted(L, S->running, raised, task);
  }
  lua_settop(L, raised - 1);
}

/* ---- stray yields ---- */

/* A bare yield is one turn of the loop, as in asyncio; one with values is an error thrown there. */
static void stray_yield(lua_State *L, ag_loop *loop, ag_task *task, int nres) {
  lua_State *co = task->thread.L;
  task->stray = true;
  if (nres > 0) {
    luaL_where(co, 1);
    lua_pushfstring(
        L, "%stask got a bad yield of a %s (to wait, call a function of agather; generators need agather.coroutine)",
        lua_tostring(co, -1), luaL_typename(co, -1 - nres));
    lua_pop(co, nres + 1);
    ag_error_push(L, loop->S, "RuntimeError");
    ag_task_keep_throw(L, loop->S, task);
    task->bad_yield = true;
  }
  ag_loop_ready(loop, &task->timer.node);
}

/* ---- threads that work ---- */

/* Ends the task whose body has returned on this thread. */
static void end_task(lua_State *L, ag_state *S, ag_task *task, bool failed) {
  int count = lua_gettop(L) - SELF;
  if (failed) {
    S->spoiled = true;
    finish_failed(L, S, task);
  } else if (task->must_cancel) { /* cancelled itself and returned: the results are lost */
    ag_task_take_throw(L, S, task);
    ag_future_set_cancelled(L, S, SELF);
  } else if (count < task->future.values) { /* nothing here can fail: the slot is given back at hand */
    int slot = task->future.slot;
    task->future.slot = 0;
    ag_future_resolve_at(L, S, &task->future, SELF, count);
    ag_drop_from(L, S, LIVING, slot);
  } else {
    ag_future_resolve(L, S, SELF, count);
  }
  task->thread = (ag_thread){NULL, 0};
}

static int work_resumed(lua_State *L, int status, lua_KContext context) {
  (void)context;
  ag_state *S = ag_self(L);
  ag_task *task = ag_task_here(L, S);
  if (task == NULL)
    return ag_task_hijacked(L, S);
  end_task(L, S, task, status != LUA_YIELD);
  return 0;
}

/* Takes a fresh task from the ready queue, to run on the thread that has just ended another. */
static bool next_fresh(ag_state *S, ag_thread thread) {
  ag_loop *loop = S->running;
  if (loop->solo || S->limiter != NULL || !S->recycle || ag_list_empty(&loop->current) || ag_loop_out_of_time(loop))
    return false;
  ag_node *node = ag_container(loop->current.next, ag_node, link);
  if (node->run != ag_task_step)
    return false;
  ag_task *task = ag_container(node, ag_task, timer.node);
  if (task->thread.L != NULL || task->must_cancel)
    return false;
  ag_link_remove(&node->link);
  task->thread = thread;
  loop->task = task;
  loop->runs = node;
  return true;
}

/* The body of threads: runs the current task, then the fresh ones that follow. */
static int work(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_thread thread = S->running->task->thread;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->handler);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  do {
    ag_task *task = S->running->task;
    int nargs = task->future.count;
    if (nargs > ROOM)
      luaL_checkstack(L, nargs + 10, "too many arguments");
    lua_rawgeti(L, LIVING, task->future.slot);
    lua_getiuservalue(L, SELF, 1);
    for (int i = 1; i <= nargs; i++) {
      int type = lua_getiuservalue(L, SELF, i + 1);
      if (type > LUA_TNUMBER) { /* the body owns its arguments now */
        lua_pushnil(L);
        lua_setiuservalue(L, SELF, i + 1);
      }
    }
    int status = lua_pcallk(L, nargs, LUA_MULTRET, HANDLER, 0, work_resumed);
    end_task(L, S, S->running->task, status != LUA_OK);
    lua_settop(L, LIVING);
  } while (!S->spoiled && next_fresh(S, thread));
  return 0;
}

/* ---- threads above others: coros awaited deeply (see await.c) ---- */

static int frame_ended(lua_State *L, int status, lua_KContext context) {
  (void)context;
  ag_state *S = ag_self(L);
  ag_task *task = ag_task_here(L, S);
  if (task == NULL)
    return ag_task_hijacked(L, S);
  task->failed = status != LUA_OK && status != LUA_YIELD;
  return task->failed ? 1 : lua_gettop(L) - 1;
}

/* The body of a frame's thread: function and arguments are on the stack. */
static int frame_body(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, ag_self(L)->handler);
  lua_insert(L, 1);
  return frame_ended(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, frame_ended), 0);
}

/* The thread of the topmost frame has ended: the one below goes on with its results, or its error. */
static int leave_frame(lua_State *L, ag_state *S, ag_task *task, int status, int nres) {
  ag_frame *frame = task->frames;
  ag_thread ended = task->thread;
  lua_State *below = frame->thread.L;
  bool failed = status != LUA_OK || task->failed;
  int n = failed ? 1 : nres;
  if (!lua_checkstack(below, n + 8)) {
    lua_settop(ended.L, 0);
    lua_pushliteral(ended.L, "stack overflow");
    failed = true;
    n = 1;
  }
  lua_xmove(ended.L, below, n);
  task->failed = false;
  task->raising = failed;
  task->thread = frame->thread;
  task->depth = frame->depth;
  task->frames = frame->below;
  free(frame);
  ag_thread_give(L, S, ended, failed);
  return n;
}

/* ---- the step ---- */

/* Closes a thread that rests, running its <close> handlers, which cannot wait. */
static void reset_thread(lua_State *L, ag_state *S, ag_thread thread) {
  if (thread.L == NULL)
    return;
  if (lua_status(thread.L) == LUA_YIELD && !S->closed)
    ag_reset(S, thread.L, L);
  ag_thread_give(L, S, thread, true);
}

/* Closes all threads of a task, the topmost first. */
static void reset_threads(lua_State *L, ag_state *S, ag_task *task) {
  ag_thread thread = task->thread;
  task->thread = (ag_thread){NULL, 0};
  reset_thread(L, S, thread);
  while (task->frames != NULL) {
    ag_frame *frame = task->frames;
    task->frames = frame->below;
    thread = frame->thread;
    free(frame);
    reset_thread(L, S, thread);
  }
}

/* Protected: 1 loop, 2 task, 3 the error. */
static int lose(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  finish_failed(L, loop->S, lua_touserdata(L, 2));
  return 0;
}

void ag_task_lost(lua_State *L, ag_loop *loop, ag_task *task) {
  ag_state *S = loop->S;
  ag_link_remove(&task->turn_link);
  lua_pushcfunction(L, lose);
  lua_pushlightuserdata(L, loop);
  lua_pushlightuserdata(L, task);
  lua_rotate(L, -4, 3);
  int base = lua_gettop(L) - 4;
  lua_pcall(L, 3, 0, 0);
  lua_settop(L, base);
  if (task->future.status == AG_PENDING) { /* there was not even memory for the error */
    ag_push_kept(L, S, task->future.slot);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->no_memory);
    ag_future_reject(L, S, base + 1);
    lua_settop(L, base);
  }
  reset_threads(L, S, task);
}

/* The task's thread was resumed or closed by hand. */
static void step_lost(lua_State *L, ag_loop *loop, ag_task *task) {
  lua_pushfstring(L, "the thread of a task was %s by hand: only the loop may do that",
                  task->hijacked ? "resumed" : "closed");
  ag_error_push(L, loop->S, "RuntimeError");
  ag_task_lost(L, loop, task);
}

static void cancel_unstarted(lua_State *L, ag_state *S, ag_task *task) {
  ag_push_kept(L, S, task->future.slot);
  int self = lua_gettop(L);
  ag_task_take_throw(L, S, task);
  ag_future_set_cancelled(L, S, self);
  lua_pop(L, 1);
}

/* Sees to what the loop's task left when its [thread] came back with [status]: threads of coros awaited deeply are run
** on until one waits or the lowest ends. */
static void stepped(lua_State *L, ag_loop *loop, ag_thread thread, int status, int nres) {
  ag_state *S = loop->S;
  ag_task *task = loop->task; /* the thread may have gone on to other tasks */
  while (task->entering || (status != LUA_YIELD && task->frames != NULL)) {
    int nargs = task->entering ? lua_gettop(task->thread.L) - 1 : leave_frame(L, S, task, status, nres);
    thread = task->thread;
    loop->here = thread.L;
    task->parked = task->entering = false;
    status = ag_resume(S, thread.L, L, nargs, &nres);
  }
  if (status == LUA_YIELD) {
    if (!task->parked)
      stray_yield(L, loop, task, nres);
    return;
  }
  bool spoiled = S->spoiled;
  S->spoiled = false;
  if (status != LUA_OK && task->future.status == AG_PENDING) { /* not caught by the body: no memory */
    spoiled = true;
    lua_xmove(thread.L, L, 1);
    finish_failed(L, S, task);
    task->thread = (ag_thread){NULL, 0};
  }
  ag_thread_give(L, S, thread, spoiled);
}

/* Reached once per switch: nothing is allocated, and few returns are between lua_resume and the loop, for after its
** longjmp the processor guesses each of them wrong. */
bool ag_task_go_on(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_task *task = ag_container(node, ag_task, timer.node);
  ag_thread thread = task->thread;
  if (thread.L == NULL || loop->task != NULL || loop->inner_stuck || task->stray || task->hijacked ||
      lua_status(thread.L) != LUA_YIELD)
    return false;
  int nres;
  loop->here = thread.L;
  atomic_signal_fence(memory_order_seq_cst); /* ag_interrupt: where there is a task, [here] is its thread */
  loop->task = task;
  task->parked = false;
  int status = lua_resume(thread.L, L, 0, &nres);
  task = loop->task;
  if (status != LUA_YIELD || !task->parked)
    stepped(L, loop, thread, status, nres);
  loop->task = NULL;
  return true;
}

void ag_task_step(ag_loop *loop, lua_State *L, ag_node *node) {
  ag_state *S = loop->S;
  ag_task *task = ag_container(node, ag_task, timer.node);
  if (task->thread.L == NULL) {
    if (task->must_cancel) { /* cancelled before the first step: the body never runs */
      cancel_unstarted(L, S, task);
      return;
    }
    task->thread = ag_thread_take(L, S);
    lua_rawgeti(task->thread.L, LUA_REGISTRYINDEX, S->worker);
  } else if (task->hijacked || lua_status(task->thread.L) != LUA_YIELD) {
    step_lost(L, loop, task);
    return;
  } else if (task->stray) {
    task->stray = false;
    if (task->must_cancel || task->bad_yield)
      ag_task_throw_into_yield(S, task);
  }
  ag_task *outer = loop->task;
  bool was_solo = loop->solo, stuck = loop->inner_stuck;
  lua_State *here = loop->here;
  ag_thread thread = task->thread;
  loop->here = thread.L;
  atomic_signal_fence(memory_order_seq_cst); /* as above */
  loop->task = task;
  loop->solo = outer != NULL || loop->eager > 0; /* at once, in a task or a callback */
  loop->inner_stuck = false;
  task->parked = false;
  int nres;
  bool opened = S->limiter != NULL && ag_budget_open(L, S);
  int status = ag_resume(S, thread.L, L, 0, &nres);
  stepped(L, loop, thread, status, nres);
  if (opened)
    ag_budget_close(S);
  loop->task = outer;
  loop->here = here;
  loop->solo = was_solo;
  loop->inner_stuck = stuck;
}

/* ---- threads that scripts lay hands on ---- */

/* The pending task one of whose threads is [L], or NULL. Slow: only errors get here. */
static ag_task *task_of(lua_State *L, ag_state *S) {
  for (int i = 1; i <= S->top_slot; i++) {
    ag_push_kept(L, S, i);
    ag_future *future = ag_future_to(L, S, -1);
    lua_pop(L, 1);
    if (future == NULL || future->kind != AG_TASK || future->status != AG_PENDING)
      continue;
    ag_task *task = (ag_task *)future;
    if (task->thread.L == L)
      return task;
    for (ag_frame *frame = task->frames; frame != NULL; frame = frame->below)
      if (frame->thread.L == L)
        return task;
  }
  return NULL;
}

void ag_task_detach(ag_state *S, ag_task *task) {
  ag_loop *loop = ag_loop_find(S, task->future.loop);
  if (task->wait == AG_WAIT_OPERATION && task->operation != NULL) {
    ag_wait *wait = task->operation;
    ag_wake(wait);
    wait->cancel(wait);
  }
  if (loop != NULL)
    ag_timer_stop(&loop->timers, &task->timer);
  ag_link_remove(&task->timer.node.link);
  ag_link_remove(&task->turn_link);
  task->timer.node.run = ag_task_step;
  task->wait = AG_WAIT_NONE;
}

int ag_task_hijacked(lua_State *L, ag_state *S) {
  ag_task *task = task_of(L, S);
  if (task != NULL && !task->hijacked) {
    ag_task_detach(S, task);
    task->hijacked = true;
    ag_loop *loop = ag_loop_find(S, task->future.loop);
    if (loop != NULL)
      ag_loop_ready(loop, &task->timer.node);
  }
  luaL_error(L, "the thread of a task was resumed by hand: only the loop may do that");
}

void ag_task_abandon(lua_State *L, ag_state *S, int index) {
  ag_task *task = lua_touserdata(L, index);
  index = lua_absindex(L, index);
  ag_task_detach(S, task);
  reset_threads(L, S, task);
  if (task->future.status != AG_PENDING)
    return; /* a <close> handler may do anything */
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
  ag_future_set_cancelled(L, S, index);
}

void ag_step_open_module(lua_State *L, ag_state *S) {
  const struct {
    lua_CFunction function;
    int *ref;
  } bodies[] = {{work, &S->worker}, {frame_body, &S->frame}, {message_handler, &S->handler}};
  for (int i = 0; i < 3; i++) {
    lua_pushlightuserdata(L, S);
    lua_pushcclosure(L, bodies[i].function, 1);
    *bodies[i].ref = luaL_ref(L, LUA_REGISTRYINDEX);
  }
}
