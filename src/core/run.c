/* run: a loop, a main task, and the shutdown of asyncio.run (3.11): cancel what is left, let it finish, report. */
#include "core/run.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/chain.h"
#include "core/context.h"
#include "core/error.h"
#include "core/report.h"
#include "core/shutdown.h"
#include "core/task.h"

/* Signal dispositions belong to the process: the loop that SIGINT speaks to. */
static ag_loop *volatile interrupted_loop;

/* Raises where the loop's code is busy, once for each SIGINT after the first: see answer_interrupts for the others. */
static void second_interrupt(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  ag_state *S = ag_state_open(L);
  ag_loop *loop = S->running;
  if (loop == NULL || loop->interrupts < 2)
    return;
  loop->interrupts = 1;
  loop->insisted = true;
  lua_pushliteral(L, "interrupted");
  ag_error_push(L, S, "KeyboardInterrupt");
  lua_error(L);
}

/* A task or its generator is busy, or a callback, on the thread that runs the loop: there only Lua code is stopped. */
static void interrupt_busy(const ag_loop *loop) {
  const int any = LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT;
  if (loop->task == NULL) {
    if (loop->base != NULL)
      lua_sethook(loop->base, second_interrupt, LUA_MASKCOUNT, 1);
    return;
  }
  lua_State *L = loop->task->thread.L;
  if (L != NULL)
    lua_sethook(L, second_interrupt, any, 1);
  if (loop->here != L && loop->here != NULL)
    lua_sethook(loop->here, second_interrupt, any, 1);
}

static void on_interrupt(int signal_number) {
  (void)signal_number;
  ag_loop *loop = interrupted_loop;
  if (loop == NULL)
    return;
  if (++loop->interrupts >= 2)
    interrupt_busy(loop);
  ag_remote_wakeup(loop->remote);
}

typedef struct stop_node {
  ag_node node;
  bool reached;
} stop_node;

static void stop_run(ag_loop *loop, lua_State *L, ag_node *node) {
  (void)loop, (void)L;
  ag_container(node, stop_node, node)->reached = true;
}

/* Protected: 1 loop, 2 flag. Returns whether it did not end in a deadlock. */
static int run_loop(lua_State *L) {
  lua_pushboolean(L, ag_loop_run(L, lua_touserdata(L, 1), lua_touserdata(L, 2)));
  return 1;
}

static void push_waits(lua_State *L, ag_loop *loop);

void ag_run_until_done(lua_State *L, ag_loop *loop, int index) {
  ag_future *future = lua_touserdata(L, index);
  stop_node stop = {{{NULL, NULL}, stop_run}, false};
  ag_link_init(&stop.node.link);
  lua_pushcfunction(L, run_loop);
  lua_pushlightuserdata(L, loop);
  lua_pushlightuserdata(L, &stop.reached);
  ag_list_append(future->status == AG_PENDING ? &future->waiters : &loop->ready, &stop.node.link);
  int status = lua_pcall(L, 2, 1, 0);
  ag_link_remove(&stop.node.link);
  if (status != LUA_OK)
    lua_error(L);
  bool alive = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (future->status != AG_PENDING)
    return;
  if (alive)
    ag_error_raise(L, loop->S, "RuntimeError", "Event loop stopped before Future completed.");
  push_waits(L, loop);
  ag_error_push(L, loop->S, "DeadlockError");
  lua_error(L);
}

/* Pushes a line for each pending task: who waits for what. */
static void push_waits(lua_State *L, ag_loop *loop) {
  ag_state *S = loop->S;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "deadlock: every task waits and nothing can wake one");
  for (int i = 1; i <= S->top_slot; i++) {
    ag_push_kept(L, S, i);
    ag_future *future = ag_future_to(L, S, -1);
    if (future == NULL || future->kind != AG_TASK || future->slot != i || future->status != AG_PENDING ||
        future->loop != loop->id) {
      lua_pop(L, 1);
      continue;
    }
    luaL_tolstring(L, -1, NULL);
    lua_remove(L, -2);
    lua_pushliteral(L, "\n  ");
    lua_insert(L, -2);
    ag_task *task = (ag_task *)future;
    if (task->thread.L != NULL)
      luaL_traceback(L, task->thread.L, "", 0);
    else
      lua_pushliteral(L, "");
    lua_concat(L, 3);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
}

/* Protected: 1 loop, 2 the main future. Runs it. Returns its results. */
static int main_phase(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  ag_state *S = loop->S;
  ag_run_until_done(L, loop, 2);
  ag_future *future = lua_touserdata(L, 2);
  if (loop->interrupted && future->status == AG_CANCELLED) {
    lua_pushliteral(L, "interrupted");
    ag_error_push(L, S, "KeyboardInterrupt");
    return lua_error(L);
  }
  if (future->status == AG_RESULT)
    return ag_future_results(L, S, 2);
  ag_future_value(L, S, 2); /* 3: the error object; the traceback goes with the error */
  ag_chain_push(L, S, 2);
  lua_pushvalue(L, 3);
  ag_error_unwrap(L);
  if (lua_type(L, 5) == LUA_TSTRING) {
    lua_pushfstring(L, "%s\n%s", lua_tostring(L, 5), lua_tostring(L, 4));
    return lua_error(L);
  }
  if (future->status == AG_FAILED) {
    lua_pushvalue(L, 4);
    lua_setfield(L, 3, "traceback");
  }
  return lua_error(L);
}

/* Calls [phase] under protection with what lies above [base], the loop first; the results replace it. Raises nothing,
** for a loop that was entered must be left. */
static int protected_phase(lua_State *L, lua_CFunction phase, int base) {
  lua_pushcfunction(L, phase);
  lua_insert(L, base + 1);
  return lua_pcall(L, lua_gettop(L) - base - 1, LUA_MULTRET, 0);
}

/* Whether SIGINT is ours to answer: on the process's first thread, where nobody ignores it. As asyncio replaces
** Python's own handler, this replaces that of the lua program; the one before comes back at the end. */
static bool catch_interrupts(ag_loop *loop, struct sigaction *before) {
  if (getpid() != (pid_t)syscall(SYS_gettid) || interrupted_loop != NULL) /* no other thread looks at the loop's name */
    return false;
  if (sigaction(SIGINT, NULL, before) != 0 || before->sa_handler == SIG_IGN)
    return false;
  struct sigaction ours;
  memset(&ours, 0, sizeof ours);
  ours.sa_handler = on_interrupt;
  sigemptyset(&ours.sa_mask);
  interrupted_loop = loop;
  return sigaction(SIGINT, &ours, NULL) == 0;
}

static void release_interrupts(const struct sigaction *before) {
  sigaction(SIGINT, before, NULL);
  interrupted_loop = NULL;
}

/* Protected: 1 loop, 2 context or nil, 3 main, its arguments. Makes it the loop's main task, and returns that. */
static int prepare_phase(lua_State *L) {
  ag_loop *loop = lua_touserdata(L, 1);
  ag_state *S = loop->S;
  if (lua_type(L, 3) == LUA_TFUNCTION) {
    ag_task_spawn(L, loop, lua_gettop(L) - 3);
  } else {
    lua_settop(L, 3);
    ag_ensure_future(L, loop, 3, 1);
  }
  if (!lua_isnil(L, 2)) {
    lua_pushvalue(L, 2);
    ag_context_give(L, S, 3);
  }
  if (loop->closed) /* by a finalizer */
    ag_loop_closed(L, S);
  lua_pushvalue(L, 3);
  loop->main = ag_keep(L, S);
  return 1;
}

/* The loop is at [loop_index]; main and its arguments are what lies above [base], checked before. Leaves results or
** the error. [context]: index of the context to run main in, or 0. */
static int run_main(lua_State *L, ag_state *S, int loop_index, int base, int context) {
  ag_loop *loop = lua_touserdata(L, loop_index);
  lua_pushvalue(L, loop_index);
  if (context != 0)
    lua_pushvalue(L, context);
  else
    lua_pushnil(L);
  lua_rotate(L, base + 1, 2);
  int status = protected_phase(L, prepare_phase, base);
  if (status != LUA_OK)
    return status;
  loop->interrupts = 0;
  loop->interrupted = loop->insisted = false;
  ag_loop_enter(loop);
  struct sigaction before;
  bool caught = catch_interrupts(loop, &before);
  lua_pushvalue(L, loop_index);
  lua_insert(L, base + 1);
  status = protected_phase(L, main_phase, base);
  if (caught)
    release_interrupts(&before);
  loop->stopping = false;
  int slot = loop->main;
  loop->main = 0;
  ag_drop(L, S, slot);
  ag_loop_leave(loop);
  return status;
}

/* What may be a main: a function, a thread or coro that was not started; a future where [futures]. */
static void check_main(lua_State *L, ag_state *S, int arg, bool futures) {
  bool used = false;
  if (!ag_awaitable(L, S, arg)) {
    const char *kind = lua_isnone(L, arg) ? "no value" : ag_type_name(L, arg);
    luaL_argerror(L, arg, lua_pushfstring(L, "function or coroutine expected, got %s", kind));
  }
  ag_future *future = ag_future_to(L, S, arg);
  if (!futures && future != NULL && future->kind != AG_TASK)
    luaL_argerror(L, arg, lua_pushfstring(L, "function or coroutine expected, got %s", ag_type_name(L, arg)));
  if ((ag_coro_to(L, S, arg, &used) != NULL && used) || (!futures && future != NULL))
    ag_error_raise(L, S, "RuntimeError", "cannot reuse already awaited coroutine");
  if (lua_type(L, arg) == LUA_TTHREAD)
    ag_thread_function(L, arg, arg);
}

/* Protected: 1 loop, 2 future. */
static int pump(lua_State *L) {
  ag_run_until_done(L, lua_touserdata(L, 1), 2);
  return 0;
}

/* Inside a running loop: main is a task, and this task waits for it. Where the caller cannot yield, the loop runs
** re-entrantly until main is done. */
static int run_nested(lua_State *L, ag_state *S) {
  ag_loop *loop = S->running;
  if (lua_type(L, 1) == LUA_TFUNCTION)
    ag_task_spawn(L, loop, lua_gettop(L) - 1);
  else
    ag_ensure_future(L, loop, 1, 1);
  lua_settop(L, 1);
  if (ag_task_here(L, S) != NULL && lua_isyieldable(L) && !loop->inner_stuck)
    return ag_await_future(L, S);
  ag_task *outer = loop->task;
  loop->task = NULL;
  lua_pushcfunction(L, pump);
  lua_pushlightuserdata(L, loop);
  lua_pushvalue(L, 1);
  int status = lua_pcall(L, 2, 0, 0);
  loop->task = outer;
  if (status != LUA_OK)
    return lua_error(L);
  return ag_future_results(L, S, 1);
}

/* run(main, ...): a new loop, main as its main task, then the shutdown. asyncio.run, 3.11. */
static int run(lua_State *L) {
  ag_state *S = ag_self(L);
  check_main(L, S, 1, false);
  if (S->running != NULL)
    return run_nested(L, S);
  ag_loop_new(L, S, false, false);
  lua_insert(L, 1);
  int status = run_main(L, S, 1, 1, 0);
  ag_loop_shut_down(L, lua_touserdata(L, 1));
  if (status != LUA_OK)
    return lua_error(L);
  return lua_gettop(L) - 1;
}

static void check_not_running(lua_State *L, ag_state *S) {
  if (S->running != NULL)
    ag_error_raise(L, S, "RuntimeError", "This event loop is already running");
}

/* loop:run_until_complete(aw) */
static int loop_run_until_complete(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop_check_open(L);
  check_not_running(L, S);
  check_main(L, S, 2, true);
  lua_settop(L, 2);
  int status = run_main(L, S, 1, 1, 0);
  if (status != LUA_OK)
    return lua_error(L);
  return lua_gettop(L) - 1;
}

static int forever_phase(lua_State *L) {
  ag_loop_run(L, lua_touserdata(L, 1), NULL);
  return 0;
}

/* loop:run_forever(): until loop:stop(). */
static int loop_run_forever(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = ag_loop_check_open(L);
  check_not_running(L, S);
  lua_settop(L, 1);
  lua_pushvalue(L, 1);
  loop->interrupts = 0;
  loop->interrupted = loop->insisted = false;
  ag_loop_enter(loop);
  struct sigaction before;
  bool caught = catch_interrupts(loop, &before);
  int status = protected_phase(L, forever_phase, 1);
  if (caught)
    release_interrupts(&before);
  loop->stopping = false;
  ag_loop_leave(loop);
  return status == LUA_OK ? 0 : lua_error(L);
}

/* ---- Runner: a table {loop = , ...} with the methods below ---- */

/* Pushes the runner's loop; raises unless 1 is a Runner. */
static ag_loop *runner_loop(lua_State *L) {
  bool ours = lua_istable(L, 1) && lua_getmetatable(L, 1) && lua_rawequal(L, -1, lua_upvalueindex(2));
  if (!ours)
    luaL_argerror(L, 1, lua_pushfstring(L, "Runner expected, got %s", ag_type_name(L, 1)));
  lua_getfield(L, 1, "loop");
  return lua_touserdata(L, -1);
}

static ag_loop *runner_open_loop(lua_State *L) {
  ag_loop *loop = runner_loop(L);
  if (loop->closed)
    ag_error_raise(L, ag_self(L), "RuntimeError", "Runner is closed");
  return loop;
}

/* Pushes the context that the runner's mains share, or nil where no variable was ever made. [-0, +1, m] */
static void push_runner_context(lua_State *L, ag_state *S, int runner) {
  if (!S->contexts_used) {
    lua_pushnil(L);
  } else if (lua_getfield(L, runner, "context") == LUA_TNIL) {
    lua_pop(L, 1);
    ag_context_copy(L, S);
    lua_pushvalue(L, -1);
    lua_setfield(L, runner, "context");
  }
}

/* runner:run(main, ...): as agather.run, on the runner's loop and in its context. */
static int runner_run(lua_State *L) {
  ag_state *S = ag_self(L);
  int top = lua_gettop(L);
  runner_open_loop(L);
  lua_settop(L, top);
  if (S->running != NULL)
    return ag_error_raise(L, S, "RuntimeError", "Runner.run() cannot be called from a running event loop");
  check_main(L, S, 2, true);
  push_runner_context(L, S, 1);
  lua_insert(L, 1); /* context, runner, main, ... */
  lua_getfield(L, 2, "loop");
  lua_replace(L, 2);
  int status = run_main(L, S, 2, 2, lua_isnil(L, 1) ? 0 : 1);
  if (status != LUA_OK)
    return lua_error(L);
  return lua_gettop(L) - 2;
}

static int runner_get_loop(lua_State *L) {
  runner_open_loop(L);
  return 1;
}

static int runner_close(lua_State *L) {
  ag_state *S = ag_self(L);
  ag_loop *loop = runner_loop(L);
  if (loop->closed)
    return 0;
  if (S->running != NULL)
    return ag_error_raise(L, S, "RuntimeError", "Runner cannot be closed while a loop runs");
  ag_loop_shut_down(L, loop);
  return 0;
}

/* Runner{debug=, clock="virtual"}: keeps one loop over several runs. asyncio.Runner, 3.11. */
static int new_runner(lua_State *L) {
  ag_state *S = ag_self(L);
  bool is_virtual = false, debug = false;
  if (!lua_isnoneornil(L, 1)) {
    luaL_checktype(L, 1, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
      const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
      if (strcmp(key, "clock") != 0 && strcmp(key, "debug") != 0)
        return luaL_argerror(L, 1, lua_pushfstring(L, "unknown option '%s' of Runner", key));
    }
    if (lua_getfield(L, 1, "clock") != LUA_TNIL) {
      const char *clock = lua_tostring(L, -1);
      if (clock == NULL || (strcmp(clock, "virtual") != 0 && strcmp(clock, "real") != 0))
        return luaL_argerror(L, 1, "option 'clock' must be \"virtual\" or \"real\"");
      is_virtual = strcmp(clock, "virtual") == 0;
    }
    lua_getfield(L, 1, "debug");
    debug = lua_toboolean(L, -1);
  }
  lua_createtable(L, 0, 1);
  ag_loop_new(L, S, is_virtual, debug);
  lua_setfield(L, -2, "loop");
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_setmetatable(L, -2);
  return 1;
}

void ag_run_open_module(lua_State *L, ag_state *S) {
  static const luaL_Reg methods[] = {
      {"run", runner_run}, {"get_loop", runner_get_loop}, {"close", runner_close}, {NULL, NULL}};
  static const luaL_Reg loop_methods[] = {
      {"run_until_complete", loop_run_until_complete}, {"run_forever", loop_run_forever}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"run", run}, {NULL, NULL}};
  ag_add_methods(L, S, S->mt_loop, loop_methods);
  ag_setfuncs(L, S, functions);
  lua_pushlightuserdata(L, S);
  ag_new_class(L, S, "Runner", methods, NULL, NULL, runner_close);
  lua_pushcclosure(L, new_runner, 2);
  lua_setfield(L, -2, "Runner");
}
