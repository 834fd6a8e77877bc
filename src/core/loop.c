/* The loop: iterations as asyncio's, timers, the clock, waiting, and its end. */
#include "core/loop.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "core/companion.h"
#include "core/error.h"
#include "core/gather.h"
#include "core/handle.h"
#include "core/limits.h"
#include "core/post.h"
#include "core/report.h"
#include "core/shuffle.h"
#include "core/task.h"

double ag_monotonic(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double ag_loop_time(const ag_loop *loop) { return loop->is_virtual ? loop->virtual_now : ag_monotonic(); }

ag_loop *ag_loop_find(ag_state *S, uint32_t id) {
  if (S->running != NULL && S->running->id == id)
    return S->running;
  for (ag_link *l = S->loops.next; l != &S->loops; l = l->next) {
    ag_loop *loop = ag_container(l, ag_loop, among);
    if (loop->id == id)
      return loop;
  }
  return NULL;
}

ag_loop *ag_loop_check(lua_State *L, ag_state *S, const char *what) {
  if (S->running == NULL)
    ag_error_raise(L, S, "RuntimeError", "%s: no running event loop (call it inside agather.run)", what);
  return S->running;
}

static int no_poller(lua_State *L, int number) {
  if (number != EMFILE && number != ENFILE)
    return luaL_error(L, "not enough memory");
  return ag_os_error(L, number == EMFILE ? "EMFILE" : "ENFILE", number, strerror(number), "event loop", NULL);
}

ag_loop *ag_loop_new(lua_State *L, ag_state *S, bool is_virtual, bool debug) {
  ag_loop *loop = lua_newuserdatauv(L, sizeof *loop, 0);
  memset(loop, 0, sizeof *loop);
  loop->S = S;
  ag_link_init(&loop->among);
  ag_link_init(&loop->every);
  ag_link_init(&loop->ready);
  ag_link_init(&loop->current);
  ag_link_init(&loop->ops);
  loop->closed = true;
  loop->is_virtual = is_virtual;
  loop->debug = debug;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt_loop);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  loop->slot = ag_keep(L, S);
  loop->poller = ag_sleeper_new();
  loop->remote = loop->poller != NULL ? ag_remote_new(loop->poller) : NULL;
  if (loop->remote == NULL) {
    int number = loop->poller == NULL ? errno : ENOMEM;
    if (loop->poller != NULL)
      loop->poller->close(loop->poller);
    ag_drop(L, S, loop->slot);
    no_poller(L, number);
  }
  loop->id = ++S->next_loop;
  loop->closed = false;
  ag_shuffle_seed(L, loop);
  ag_list_append(&S->loops, &loop->among);
  ag_list_append(&S->every, &loop->every);
  return loop;
}

/* ---- running ---- */

static void due_timers(ag_loop *loop) {
  double now = ag_loop_time(loop);
  while (loop->timers.count > 0 && (loop->timers.heap[0].when <= now || loop->timers.heap[0].when < now + 1e-9))
    ag_loop_ready(loop, &ag_timer_pop(&loop->timers)->node);
}

/* The tasks' iteration begins: what is ready now runs in it. The system is asked only every so often while tasks are
** ready, so that looking costs nothing and input waits no longer than this. */
static void begin_iteration(ag_loop *loop) {
  if (loop->has_io && !ag_list_empty(&loop->ready)) {
    double now = ag_monotonic();
    if (now - loop->looked > 50e-6) {
      loop->poller->wait(loop->poller, 0);
      loop->looked = now;
    }
  }
  if (ag_remote_has_mail(loop->remote))
    ag_remote_take(loop->remote, &loop->ready);
  if (loop->timers.count > 0)
    due_timers(loop);
  ag_shuffle(loop, &loop->ready);
  ag_list_splice(&loop->current, &loop->ready);
}

/* Runs what is left of this iteration, and, unless [once], those that follow while something is ready. */
static int run_ready(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  bool once = lua_toboolean(L, 2);
  lua_settop(L, 0);
  void (*usual)(ag_loop *, lua_State *, ag_node *) = loop->S->limiter == NULL ? ag_task_step : NULL;
  for (;;) {
    while (!ag_list_empty(&loop->current)) {
      ag_node *node = ag_container(loop->current.next, ag_node, link);
      ag_link_remove(&node->link);
      loop->runs = node;
      if (node->run != usual || !ag_task_go_on(loop, L, node)) {
        node->run(loop, L, node);
        lua_settop(L, 0);
      }
      if (ag_loop_out_of_time(loop)) {
        loop->runs = NULL;
        return 0; /* the rest of this iteration is for the next step */
      }
    }
    loop->runs = NULL;
    if (once || loop->stopping || (loop->until != NULL && *loop->until) || loop->suspects || loop->interrupts != 0 ||
        ag_list_empty(&loop->ready))
      return 0;
    begin_iteration(loop);
  }
}

/* Blocks until something may be ready. False: nothing can ever come. */
static bool wait_for_work(lua_State *L, ag_loop *loop) {
  bool met = ag_companions_meet(L, loop);
  ag_poller *poller = loop->poller;
  if (!met) /* for lack of memory: once more, soon */
    poller->wait(poller, 0.01);
  if (!met || !ag_list_empty(&loop->ready)) /* joining may do anything */
    return true;
  if (ag_remote_has_mail(loop->remote)) /* a look may have taken the wake-up already */
    return true;
  double due = ag_suspects_due(loop);
  if (loop->timers.count == 0 || loop->timers.heap[0].when == INFINITY) { /* a deadline that never comes is none */
    if (!ag_loop_expects(loop))
      return false;
    poller->wait(poller, due);
    return true;
  }
  double when = loop->timers.heap[0].when;
  if (loop->is_virtual) {
    if (ag_loop_expects(loop))
      poller->wait(poller, 0);
    if (ag_list_empty(&loop->ready) && !ag_remote_has_mail(loop->remote) && when > loop->virtual_now)
      loop->virtual_now = when;
  } else {
    double timeout = when - ag_monotonic();
    if (due >= 0 && due < timeout)
      timeout = due;
    poller->wait(poller, timeout > 0 ? timeout : 0);
  }
  return true;
}

/* A node could not be run: there was no memory for it. The error is on top. */
static void node_failed(lua_State *L, ag_loop *loop) {
  ag_node *node = loop->runs;
  loop->runs = NULL;
  if (node != NULL && node->run == ag_task_step) {
    ag_task *task = ag_container(node, ag_task, timer.node);
    if (task->future.status == AG_PENDING && ag_list_empty(&node->link)) {
      ag_task_lost(L, loop, task);
      return;
    }
  }
  ag_report(L, loop, "Exception in callback", 0);
}

/* Answers SIGINT: the first cancels the main task, another raises. */
static void answer_interrupts(lua_State *L, ag_loop *loop);

bool ag_loop_iterate(lua_State *L, ag_loop *loop, bool block, bool once) {
  if (ag_list_empty(&loop->current)) {
    if (loop->suspects)
      ag_report_suspects(L, loop, false);
    if (loop->interrupts != 0)
      answer_interrupts(L, loop);
    if (block && ag_list_empty(&loop->ready) && !wait_for_work(L, loop))
      return false;
    if (loop->interrupts != 0)
      answer_interrupts(L, loop);
    begin_iteration(loop);
  }
  ag_task *task = loop->task;
  bool solo = loop->solo, stuck = loop->inner_stuck;
  lua_State *here = loop->here, *base = loop->base;
  loop->base = L;
  bool limited = loop->S->limiter != NULL, within = limited && ag_budget_suspend(loop->S);
  lua_pushcfunction(L, run_ready);
  lua_pushlightuserdata(L, loop);
  lua_pushboolean(L, once);
  int status = lua_pcall(L, 2, 0, 0);
  loop->here = here; /* this may be an iteration within a task */
  loop->base = base;
  if (limited)
    ag_budget_continue(L, loop->S, within);
  if (status != LUA_OK) {
    loop->task = task;
    loop->solo = solo;
    loop->inner_stuck = stuck;
    if (ag_error_is(L, loop->S, -1, "KeyboardInterrupt"))
      lua_error(L);
    node_failed(L, loop);
  }
  return true;
}

bool ag_loop_run(lua_State *L, ag_loop *loop, const bool *until) {
  ag_companions_meet(L, loop); /* a loop that never waits has them too */
  if (loop->stopping)
    ag_loop_iterate(L, loop, false, true); /* stopped before it began: one iteration, as asyncio has it */
  while (!loop->stopping && (until == NULL || !*until)) {
    const bool *outer = loop->until;
    loop->until = until;
    bool alive = ag_loop_iterate(L, loop, true, false);
    loop->until = outer;
    if (alive)
      continue;
    if (until != NULL)
      return false;
    loop->poller->wait(loop->poller, -1); /* run_forever: only a signal or another thread can end this */
  }
  return true;
}

static void answer_interrupts(lua_State *L, ag_loop *loop) {
  ag_state *S = loop->S;
  int n = loop->interrupts;
  if (n == 1 && loop->interrupted)
    return; /* the main task has been told */
  if (n == 1 && loop->main != 0) {
    ag_push_kept(L, S, loop->main);
    ag_future *future = lua_touserdata(L, -1);
    if (future->status == AG_PENDING) {
      loop->interrupted = true;
      lua_rawgeti(L, LUA_REGISTRYINDEX, S->cancelled);
      ag_cancel(L, S, -2);
      lua_pop(L, 1);
      return;
    }
    lua_pop(L, 1);
    if (loop->insisted)
      return; /* it was raised in the main task, which has ended */
  }
  loop->interrupts = 0;
  loop->insisted = true; /* what this raises may be within a callback */
  lua_pushliteral(L, "interrupted");
  ag_error_push(L, S, "KeyboardInterrupt");
  lua_error(L);
}

bool ag_loop_interrupted(lua_State *L, ag_loop *loop, int index, const ag_task *task) {
  if (!loop->insisted || !ag_error_is(L, loop->S, index, "KeyboardInterrupt"))
    return false;
  ag_push_kept(L, loop->S, loop->main);
  if (loop->main == 0 || task == NULL || lua_touserdata(L, -1) != task)
    loop->interrupts = 2;
  lua_pop(L, 1);
  return true;
}

/* Protected: 1 loop, 2 task: reports that it ends unfinished. */
static int report_pending(lua_State *L) {
  lua_pushnil(L);
  ag_report(L, lua_touserdata(L, 1), "Task was destroyed but it is pending!", 2);
  return 0;
}

/* Pushes what a slot of the table at [living], which was on top, holds; false: none of what loops own. */
static bool push_object(lua_State *L, int living, int slot) {
  lua_settop(L, living);
  return lua_rawgeti(L, living, slot) == LUA_TUSERDATA;
}

/* Ends what still belongs to the loop: tasks are reported, everything is let go of. Never raises: where there is no
** memory to report, nothing is said. */
static void abandon_living(lua_State *L, ag_loop *loop) {
  ag_state *S = loop->S;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->living);
  int living = lua_gettop(L);
  bool others = false; /* which the second walk is for */
  for (int i = 1; i <= S->top_slot; i++) {
    if (!push_object(L, living, i))
      continue;
    ag_future *future = ag_future_to(L, S, -1);
    others = others || future != NULL;
    ag_handle *handle = future == NULL ? ag_handle_to(L, S, -1) : NULL;
    if (handle != NULL && handle->loop == loop->id) {
      ag_link_remove(&handle->timer.node.link);
      if (!handle->promised)
        ag_handle_release(L, S, handle);
    } else if (future != NULL && future->loop == loop->id && future->kind == AG_TASK) {
      if (future->status != AG_PENDING || future->slot != i)
        continue;
      if (!S->closed) {
        lua_pushcfunction(L, report_pending);
        lua_pushlightuserdata(L, loop);
        lua_pushvalue(L, living + 1);
        lua_pcall(L, 2, 0, 0);
        lua_settop(L, living + 1);
      }
      ag_task_abandon(L, S, -1);
    }
  }
  for (int i = 1; i <= S->top_slot && others; i++) { /* futures and gathers, which the tasks' ends may have settled */
    if (!push_object(L, living, i))
      continue;
    ag_future *future = ag_future_to(L, S, -1);
    if (future != NULL && future->loop == loop->id) {
      if (future->kind == AG_GATHER)
        ag_gather_abandon(future);
      ag_link_init(&future->waiters);
      future->slot = 0;
      ag_drop(L, S, i);
    }
  }
  for (int i = 1; i <= S->top_slot && loop->promises; i++) {
    if (!push_object(L, living, i))
      continue;
    ag_handle *handle = ag_handle_to(L, S, -1);
    if (handle != NULL && handle->loop == loop->id && handle->promised)
      ag_handle_close(L, loop, handle);
  }
  lua_settop(L, living - 1);
}

void ag_loop_close(lua_State *L, ag_loop *loop) {
  if (loop->closed)
    return;
  loop->closed = true;
  ag_post_close(loop);
  lua_checkstack(L, 20);          /* a host that calls without room has lost anyway, but here nothing may raise */
  ag_timers_clear(&loop->timers); /* before what stands there may be collected */
  abandon_living(L, loop);
  ag_link_remove(&loop->among);
  while (!ag_list_empty(&loop->current))
    ag_link_remove(loop->current.next);
  while (!ag_list_empty(&loop->ready))
    ag_link_remove(loop->ready.next);
  ag_poller *poller = loop->poller;
  loop->poller = NULL;
  ag_remote_set_poller(loop->remote, NULL);
  poller->close(poller);
  ag_drop(L, loop->S, loop->handler);
  ag_drop(L, loop->S, loop->slot);
  loop->handler = loop->slot = 0;
  if (!loop->S->closed)
    ag_trim(L, loop->S);
}
