/* Re-entrancy in C: from every callback that only a host has, whatever a host may call, and what it may not, which is
** refused. Each case goes on to the end of its tasks; cases.h closes loop and state, and LeakSanitizer looks. */
#include "cases.h"

static int acts; /* how often act was called */
static ag_remote *remote;
static int spawned, posted, dropped, watched;

static void on_post(lua_State *S, void *data) {
  (void)data;
  CHECK(ag_loop_of(S) == loop);
  posted++;
}

static void on_drop(void *data) {
  (void)data;
  dropped++;
}

static void on_watch(lua_State *S, void *data) {
  (void)data;
  CHECK(ag_future_state(S, 1) != AG_NOT_FUTURE);
  watched++;
}

static int count_spawned(lua_State *S) {
  (void)S;
  spawned++;
  return 0;
}

/* What may be called anywhere: it needs no Lua state. */
static void act_bare(void) {
  CHECK(ag_post(remote, on_post, on_drop, NULL) == AG_OK);
  ag_remote_wakeup(remote);
  ag_wakeup(loop);
  ag_loop_hold(loop);
  CHECK(ag_alive(loop));
  ag_loop_release(loop);
  (void)ag_timeout(loop);
  (void)ag_fd(loop);
}

/* Calls everything, in a callback of the loop that runs. Leaves the stack as it was. */
static void act(lua_State *S) {
  int top = lua_gettop(S);
  CHECK(lua_checkstack(S, 30));
  acts++;
  act_bare();
  CHECK(ag_step(S, loop) == AG_REENTRANT);
  CHECK(ag_step_for(S, loop, 1) == AG_REENTRANT);
  CHECK(ag_loop_destroy(S, loop) == AG_REENTRANT);
  CHECK(ag_set_limits(S, NULL) == AG_REENTRANT);
  CHECK(ag_restrict(S, NULL) == AG_REENTRANT);
  CHECK(lua_gettop(S) == top);
  ag_loop *other;
  CHECK(ag_loop_create(S, &other) == AG_OK);
  CHECK(ag_step(S, other) == AG_REENTRANT);
  CHECK(ag_loop_destroy(S, other) == AG_REENTRANT);
  lua_pushcfunction(S, count_spawned);
  CHECK(ag_spawn(S, loop, 0) == AG_OK);
  CHECK(ag_run_until(S, loop, -1) == AG_REENTRANT);
  CHECK(ag_future_watch(S, -1, on_watch, NULL) == AG_OK);
  CHECK(ag_future_state(S, -1) == AG_PENDING);
  CHECK(ag_future_set_result(S, -1, 0) == AG_ERROR);
  CHECK(strstr(luaL_tolstring(S, -1, NULL), "settled by the loop") != NULL);
  lua_pop(S, 2);
  CHECK(ag_future_create(S, loop) == AG_OK);
  CHECK(ag_future_watch(S, -1, on_watch, NULL) == AG_OK);
  CHECK(ag_future_cancel(S, -1, "why") == AG_OK);
  CHECK(ag_future_cancel(S, -1, "why") == AG_SETTLED);
  ag_op *op;
  CHECK(ag_op_create(S, loop, NULL, NULL, &op) == AG_OK);
  CHECK(ag_op_resolve(op, NULL, NULL, NULL) == AG_OK);
  CHECK(ag_op_reject(op, NULL, "late") == AG_SETTLED);
  ag_op_unref(op);
  lua_settop(S, top);
  lua_gc(S, LUA_GCCOLLECT, 0);
  CHECK(luaL_dostring(S, "local agather = agather "
                         "assert(agather.run(function() agather.sleep(0) return 4 end) == 4) "
                         "assert(not pcall(agather.sleep, 0)) "
                         "local loop = agather.get_running_loop() "
                         "assert(not pcall(loop.close, loop)) "
                         "assert(not pcall(loop.run_forever, loop)) "
                         "agather.spawn(function() agather.sleep(0) note 'after' end)") == LUA_OK);
  CHECK(lua_gettop(S) == top);
}

/* Runs what is left; everything that act has begun has ended, [times] times. */
static void ends(int times) {
  lua_settop(L, 0);
  for (int i = 0; i < 50 && step_all() != AG_DONE; i++) {
  }
  CHECK(acts == times && spawned == times && watched == 2 * times);
  CHECK(posted >= times && dropped == 0);
  char expected[400] = "";
  for (int i = 0; i < times; i++)
    strcat(strcat(expected, i > 0 ? " " : ""), "after");
  CHECK(trail_is(expected));
  ag_remote_unref(remote);
}

static void begin(void) {
  remote = ag_loop_remote(loop);
  CHECK(remote != NULL);
}

/* ---- callbacks that may call Lua ---- */

static void posted_act(lua_State *S, void *data) {
  (void)data;
  act(S);
}

static void in_post(void) {
  begin();
  CHECK(ag_post(remote, posted_act, NULL, NULL) == AG_OK);
  ends(1);
}

static void in_watch(void) {
  begin();
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(ag_future_watch(L, -1, posted_act, NULL) == AG_OK);
  CHECK(ag_future_set_result(L, -1, 0) == AG_OK);
  ends(1);
}

static int push_act(lua_State *S, void *data) {
  (void)data;
  act(S);
  lua_pushinteger(S, 5);
  return 1;
}

static void in_push(void) {
  begin();
  ag_op *op;
  CHECK(ag_op_create(L, loop, NULL, NULL, &op) == AG_OK);
  spawn("local value = (...):await() assert(value == 5)", 1);
  CHECK(ag_op_resolve(op, push_act, NULL, NULL) == AG_OK);
  ag_op_unref(op);
  ends(1);
}

/* A push function that has the loop settle, by a task, the future that it is to settle. */
static int push_cancelled(lua_State *S, void *data) {
  (void)data;
  CHECK(luaL_dostring(S, "agather.run(function() future:cancel() agather.sleep(0) end)") == LUA_OK);
  lua_pushinteger(S, 5);
  return 1;
}

static void in_push_settled(void) {
  ag_op *op;
  CHECK(ag_op_create(L, loop, NULL, NULL, &op) == AG_OK);
  lua_setglobal(L, "future");
  spawn("local ok = pcall(future.await, future) note(tostring(ok))", 0);
  CHECK(ag_op_resolve(op, push_cancelled, NULL, NULL) == AG_OK);
  ag_op_unref(op);
  lua_settop(L, 0);
  CHECK(step_all() == AG_DONE);
  CHECK(trail_is("false"));
}

static int c_act(lua_State *S) {
  act(S);
  return 0;
}

/* A function of C in a task; in a callback; in the exception handler; in a finalizer. */
static void in_functions(void) {
  begin();
  lua_register(L, "act", c_act);
  spawn("act() agather.get_running_loop():call_soon(act) "
        "local loop = agather.get_running_loop() "
        "loop:set_exception_handler(function() act() end) loop:call_exception_handler {} "
        "setmetatable({}, {__gc = act}) collectgarbage() collectgarbage() "
        "local _ <close> = setmetatable({}, {__close = act})",
        0);
  ends(5);
}

static void sink(const ag_unhandled *what, void *data) {
  CHECK(what->message != NULL);
  if (data == NULL || acts > 0)
    return;
  act(data);
}

static void in_sink(void) {
  begin();
  ag_set_error_sink(loop, sink, L);
  spawn("agather.get_running_loop():call_soon(error, 'failed')", 0);
  lua_settop(L, 0);
  ends(1);
}

static bool hooked;

static void hook(lua_State *S, lua_Debug *ar) {
  (void)ar;
  if (!hooked && ag_loop_of(S) == loop) {
    hooked = true;
    lua_sethook(S, NULL, 0, 0);
    act(S);
  }
}

static int set_hook(lua_State *S) {
  lua_sethook(S, hook, LUA_MASKCOUNT, 1);
  return 0;
}

static void in_hook(void) {
  begin();
  lua_register(L, "set_hook", set_hook);
  spawn("set_hook() local x = 1 for i = 1, 10 do x = x + i end agather.sleep(0)", 0);
  ends(1);
}

static void warned(void *data, const char *message, int more) {
  (void)message, (void)more;
  if (acts == 0)
    act(data);
}

static int warn_here(lua_State *S) {
  lua_setwarnf(S, warned, S);
  return 0;
}

static void in_warning(void) {
  begin();
  lua_register(L, "warn_here", warn_here);
  spawn("warn_here() warn 'warning' agather.sleep(0)", 0);
  ends(1);
}

/* ---- callbacks that must not call Lua ---- */

static void unwanted(ag_op *op, void *data) {
  CHECK(!ag_op_wanted(op));
  CHECK(ag_op_resolve(op, NULL, NULL, NULL) == AG_CLOSED);
  CHECK(ag_op_reject(op, NULL, "x") == AG_CLOSED);
  ag_op_unref(ag_op_ref(op));
  if (data != NULL)
    act_bare();
  note("unwanted");
  ag_op_unref(op);
}

static void in_unwanted(void) {
  begin();
  ag_op *op;
  CHECK(ag_op_create(L, loop, unwanted, L, &op) == AG_OK);
  CHECK(ag_future_cancel(L, -1, NULL) == AG_OK);
  CHECK(trail_is("unwanted"));
  ends(0);
  CHECK(posted == 1);
}

/* While the loop closes, nothing is taken any more. */
static void dropped_late(void *data) {
  CHECK(ag_post(data, on_post, on_drop, NULL) == AG_CLOSED);
  ag_remote_wakeup(data);
  note("dropped");
}

static void released_late(void *data) {
  CHECK(ag_post(data, on_post, on_drop, NULL) == AG_CLOSED);
  CHECK(ag_loop_remote(loop) == NULL);
  note("released");
}

static void at_close(void) {
  begin();
  ag_op *op, *answered;
  CHECK(ag_op_create(L, loop, unwanted, NULL, &op) == AG_OK);
  CHECK(ag_op_create(L, loop, NULL, NULL, &answered) == AG_OK);
  lua_settop(L, 0);
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  CHECK(ag_op_resolve(answered, NULL, released_late, remote) == AG_CLOSED);
  ag_op_unref(answered);
  dropped_late(remote);
  CHECK(trail_is("unwanted released dropped"));
  CHECK(dropped == 2);
  CHECK(ag_loop_destroy(L, loop) == AG_CLOSED && ag_step(L, loop) == AG_CLOSED);
  ag_wakeup(loop);
  ag_remote_unref(remote);
}

/* A watched future that the loop's end finds pending: its function may look about, but not run the loop. */
static void watch_closing(lua_State *S, void *data) {
  (void)data;
  CHECK(ag_future_state(S, 1) == AG_PENDING);
  CHECK(ag_step(S, loop) == AG_CLOSED && ag_loop_destroy(S, loop) == AG_CLOSED);
  lua_pushcfunction(S, count_spawned);
  CHECK(ag_spawn(S, loop, 0) == AG_CLOSED);
  CHECK(ag_future_create(S, loop) == AG_CLOSED);
  ag_op *op;
  CHECK(ag_op_create(S, loop, NULL, NULL, &op) == AG_CLOSED);
  CHECK(luaL_dostring(S, "assert(agather.run(function() agather.sleep(0) return 6 end) == 6)") == LUA_OK);
  note("watched");
}

static void at_close_watched(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(ag_future_watch(L, -1, watch_closing, NULL) == AG_OK);
  lua_settop(L, 0);
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  CHECK(trail_is("watched"));
}

/* A <close> handler of a task that its loop's end finds where it cannot wait any more, and the handler of errors. */
static void at_close_tasks(void) {
  spawn("local loop = agather.get_running_loop() "
        "loop:set_exception_handler(function() "
        "  pcall(loop.close, loop) pcall(agather.spawn, print) note 'handled' end) "
        "local _ <close> = setmetatable({}, {__close = function() "
        "  assert(not pcall(agather.sleep, 0)) "
        "  assert(not pcall(loop.create_task, loop, print)) loop:close() "
        "  assert(agather.run(function() agather.sleep(0) return 8 end) == 8) note 'closed' end}) "
        "while true do pcall(function() agather.future():await() end) end",
        0);
  lua_settop(L, 0);
  CHECK(step_all() == AG_IDLE);
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  CHECK(trail_is("handled closed"));
}

/* Finalizers that run when the state closes: a loop of their own is as good as any other. */
static void at_lua_close(void) {
  CHECK(luaL_dostring(L, "kept = setmetatable({}, {__gc = function() "
                         "  assert(agather.run(function() agather.sleep(0) return 9 end) == 9) "
                         "  local left = agather.new_event_loop() left:call_soon(print) left:create_task(print) "
                         "  note 'ran' error 'of a finalizer' end})") == LUA_OK);
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  lua_close(L);
  L = NULL;
  CHECK(trail_is("ran"));
}

/* The loop's first poller is asked from within everything. */
typedef struct poller {
  ag_poller base;
  int waits, closes;
} poller;

static void poller_wait(ag_poller *base, double timeout) {
  (void)timeout;
  ((poller *)base)->waits++;
  CHECK(ag_step(L, loop) == AG_REENTRANT);
  CHECK(ag_loop_destroy(L, loop) == AG_REENTRANT);
  if (((poller *)base)->waits < 3)
    act_bare();
}
static void poller_wake(ag_poller *base) { (void)base; }
static bool poller_alive(ag_poller *base) {
  (void)base;
  return false;
}
static void poller_close(ag_poller *base) {
  ((poller *)base)->closes++;
  if (!ag_alive(loop) && ag_step(L, loop) == AG_CLOSED)
    note("closed");
  ag_remote_wakeup(remote);
}

static void in_poller(void) {
  begin();
  static poller own;
  own = (poller){{poller_wait, poller_wake, poller_alive, NULL, poller_close, NULL}, 0, 0};
  ag_loop_set_poller(loop, &own.base);
  spawn("for _ = 1, 3 do agather.sleep(0) end agather.sleep(0.001)", 0);
  lua_settop(L, 0);
  for (int i = 0; i < 100000 && ag_step(L, loop) != AG_DONE; i++) {
  }
  CHECK(own.waits > 3 && posted == 2 && own.closes == 0);
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  CHECK(own.closes == 1);
  CHECK(trail_is("closed"));
  ag_remote_unref(remote);
}

/* The cancel function of a wait, which may wake others, and whose task may be woken, but not by what it waited for. */
static ag_wait waits[2];

static void on_cancel(ag_wait *wait) {
  CHECK(!ag_waiting(wait));
  ag_wake(wait);
  ag_wake(&waits[1]);
  act_bare();
  note("cancelled");
}

static int waited(lua_State *S, int status, lua_KContext context) {
  (void)S, (void)status, (void)context;
  return 0;
}

static int wait_for(lua_State *S) {
  ag_wait *wait = &waits[luaL_checkinteger(S, 1)];
  wait->cancel = on_cancel;
  return ag_suspend(S, wait, 0, waited);
}

static void in_cancel(void) {
  begin();
  lua_register(L, "wait_for", wait_for);
  spawn("local one = agather.spawn(wait_for, 0) "
        "local two = agather.spawn(wait_for, 1) "
        "agather.sleep(0) one:cancel() pcall(one.await, one) pcall(two.await, two) "
        "assert(one:cancelled() and not two:cancelled())",
        0);
  lua_settop(L, 0);
  CHECK(step_all() == AG_DONE);
  CHECK(trail_is("cancelled") && posted == 1);
  ag_remote_unref(remote);
}

/* An allocator may do what any thread may. */
static bool allocating;

static void *allocate(void *data, void *block, size_t old, size_t size) {
  (void)data, (void)old;
  if (allocating && size > 0) {
    allocating = false;
    act_bare();
    allocating = true;
  }
  if (size == 0) {
    free(block);
    return NULL;
  }
  return realloc(block, size);
}

static void in_allocator(void) {
  begin();
  lua_setallocf(L, allocate, NULL);
  spawn("local tasks = {} for i = 1, 10 do tasks[i] = agather.spawn(agather.sleep, 0) end "
        "agather.gather_list(tasks):await() note 'over'",
        0);
  allocating = true;
  CHECK(ag_step(L, loop) == AG_MORE && ag_step(L, loop) == AG_MORE);
  allocating = false;
  lua_settop(L, 0);
  CHECK(step_all() == AG_DONE);
  CHECK(trail_is("over") && posted > 5 && dropped == 0);
  ag_remote_unref(remote);
}

static const test_case cases[] = {
    {"calls anything from a posted function", in_post},
    {"calls anything from the function of ag_future_watch", in_watch},
    {"calls anything from a push function", in_push},
    {"may have an operation's future settled while its push function runs", in_push_settled},
    {"calls anything from functions in tasks, callbacks, handlers and finalizers", in_functions},
    {"is refused to run or end the loop from its error sink, and may do all else", in_sink},
    {"calls anything from a hook", in_hook},
    {"calls anything from the warn function", in_warning},
    {"may answer, post and wake where an operation becomes unwanted", in_unwanted},
    {"is told that the loop is closed from what it drops and releases", at_close},
    {"may run another loop where a watched future ends with its loop", at_close_watched},
    {"has handlers of tasks run while their loop ends, which may run another loop", at_close_tasks},
    {"may have loops run by finalizers while the state closes", at_lua_close},
    {"is refused to run or end the loop from its poller, and may do what any thread may", in_poller},
    {"may wake others where a wait is cancelled", in_cancel},
    {"may post and wake from its allocator", in_allocator},
};

int main(int argc, char **argv) { return run_case(cases, sizeof cases / sizeof *cases, argc > 1 ? argv[1] : NULL); }
