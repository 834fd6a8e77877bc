/* Futures as a host has them: each case is a sentence about agather.h. See cases.h. */
#include "cases.h"

static const char awaiting[] = "local ok, a, b, c = pcall(agather.await, (...)) "
                               "note(tostring(ok)) note(tostring(a)) note(tostring(b)) note(tostring(c))";

/* Makes a future at index 1 and a task that awaits it. */
static void awaited_future(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  lua_pushvalue(L, 1);
  spawn(awaiting, 1);
  lua_pop(L, 1);
  CHECK(step_all() == AG_IDLE && trail_is(""));
}

static void gives_results(void) {
  awaited_future();
  lua_pushinteger(L, 1);
  lua_pushnil(L);
  lua_pushliteral(L, "three");
  CHECK(ag_future_set_result(L, 1, 3) == AG_OK && lua_gettop(L) == 1);
  CHECK(trail_is("")); /* never at once */
  CHECK(step_all() == AG_DONE && trail_is("true 1 nil three"));
}

static void gives_no_result(void) {
  awaited_future();
  CHECK(ag_future_set_result(L, -1, 0) == AG_OK);
  CHECK(step_all() == AG_DONE && trail_is("true nil nil nil"));
}

static void gives_very_error(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  lua_newtable(L);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  spawn("local future, value = ... local ok, raised = pcall(agather.await, future) "
        "note(tostring(ok)) note(tostring(rawequal(raised, value)))",
        2);
  lua_pop(L, 1);
  CHECK(ag_future_set_error(L, 1) == AG_OK && lua_gettop(L) == 1);
  CHECK(step_all() == AG_DONE && trail_is("false true"));
}

static void settles_once(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(ag_future_set_result(L, 1, 0) == AG_OK);
  lua_pushinteger(L, 1);
  lua_pushinteger(L, 2);
  CHECK(ag_future_set_result(L, 1, 2) == AG_SETTLED && lua_gettop(L) == 1);
  lua_pushinteger(L, 1);
  CHECK(ag_future_set_error(L, -2) == AG_SETTLED && lua_gettop(L) == 1);
  CHECK(ag_future_cancel(L, 1, "late") == AG_SETTLED && lua_gettop(L) == 1);
  CHECK(ag_future_state(L, 1) == AG_RESULT);
}

static void refuses_what_is_no_future(void) {
  lua_pushliteral(L, "text");
  lua_pushinteger(L, 1);
  CHECK(ag_future_set_result(L, 1, 1) == AG_ERROR && lua_gettop(L) == 2);
  CHECK(pops_text("Future or Task expected, got string"));
  lua_pushinteger(L, 1);
  CHECK(ag_future_set_error(L, 1) == AG_ERROR && pops_text("Future or Task expected, got string"));
  CHECK(ag_future_cancel(L, 1, NULL) == AG_ERROR && pops_text("Future or Task expected, got string"));
  CHECK(ag_future_outcome(L, 1) == AG_ERROR && pops_text("Future or Task expected, got string"));
  CHECK(ag_future_watch(L, 1, NULL, NULL) == AG_ERROR && pops_text("Future or Task expected, got string"));
  CHECK(ag_run_until(L, loop, 1) == AG_ERROR && pops_text("Future or Task expected, got string"));
  CHECK(ag_future_state(L, 1) == AG_NOT_FUTURE && lua_gettop(L) == 1);
}

static void refuses_to_settle_tasks(void) {
  spawn("agather.sleep(1)", 0);
  CHECK(ag_future_set_result(L, 1, 0) == AG_ERROR && pops_text("a task is settled by the loop, not by hand"));
  lua_pushinteger(L, 1);
  CHECK(ag_future_set_error(L, 1) == AG_ERROR && pops_text("a task is settled by the loop, not by hand"));
  CHECK(ag_future_state(L, 1) == AG_PENDING);
}

static void refuses_nil_as_error(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  lua_pushnil(L);
  CHECK(ag_future_set_error(L, 1) == AG_ERROR && pops_text("error value expected, got nil"));
  CHECK(ag_future_state(L, 1) == AG_PENDING && lua_gettop(L) == 1);
}

static void cancels_futures(void) {
  awaited_future();
  CHECK(ag_future_cancel(L, 1, "why") == AG_OK && ag_future_state(L, 1) == AG_CANCELLED && lua_gettop(L) == 1);
  CHECK(step_all() == AG_DONE && trail_is("false why nil nil"));
}

static void cancels_tasks(void) {
  spawn("local ok, raised = pcall(agather.sleep, 100) note(tostring(raised)) error(raised, 0)", 0);
  CHECK(step_all() == AG_IDLE);
  CHECK(ag_future_cancel(L, 1, NULL) == AG_OK && ag_future_state(L, 1) == AG_PENDING);
  CHECK(step_all() == AG_DONE && ag_future_state(L, 1) == AG_CANCELLED && trail_is("CancelledError"));
}

static void tells_outcomes(void) {
  spawn("agather.sleep(0) if true then return 1, nil, 3 end", 0);
  CHECK(ag_future_outcome(L, 1) == AG_IDLE && lua_gettop(L) == 1);
  CHECK(step_all() == AG_DONE && ag_future_outcome(L, 1) == AG_OK);
  CHECK(lua_gettop(L) == 4 && lua_tointeger(L, 2) == 1 && lua_isnil(L, 3) && lua_tointeger(L, 4) == 3);
  lua_settop(L, 0);
  spawn("error({})", 0);
  CHECK(step_all() == AG_DONE && ag_future_state(L, 1) == AG_FAILED);
  CHECK(ag_future_outcome(L, 1) == AG_ERROR && lua_gettop(L) == 2);
  CHECK(lua_getfield(L, 2, "traceback") == LUA_TSTRING && pops_text("stack traceback:"));
  CHECK(lua_getfield(L, 2, "value") == LUA_TTABLE);
  lua_settop(L, 0);
  CHECK(ag_future_create(L, loop) == AG_OK && ag_future_cancel(L, 1, "why") == AG_OK);
  CHECK(ag_future_outcome(L, 1) == AG_ERROR && pops_text("why") && lua_gettop(L) == 1);
}

static void many_results(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(lua_checkstack(L, 1000));
  for (int i = 1; i <= 900; i++)
    lua_pushinteger(L, i);
  CHECK(ag_future_set_result(L, 1, 900) == AG_OK && lua_gettop(L) == 1);
  CHECK(ag_future_outcome(L, 1) == AG_OK && lua_gettop(L) == 901 && lua_tointeger(L, -1) == 900);
}

/* ---- watching ---- */

static void watcher(lua_State *S, void *data) {
  note(data);
  static const char *const states[] = {"pending", "result", "failed", "cancelled"};
  CHECK(lua_gettop(S) == 1);
  note(states[ag_future_state(S, 1)]);
}

static void watches(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(ag_future_watch(L, 1, watcher, "a") == AG_OK && ag_future_watch(L, -1, watcher, "b") == AG_OK);
  CHECK(lua_gettop(L) == 1 && step_all() == AG_DONE && trail_is(""));
  CHECK(ag_future_set_result(L, 1, 0) == AG_OK && trail_is(""));
  CHECK(step_all() == AG_DONE && trail_is("a result b result"));
  CHECK(ag_future_watch(L, 1, watcher, "late") == AG_OK && trail_is(""));
  CHECK(step_all() == AG_DONE && trail_is("late result"));
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is(""));
}

static void watches_what_nobody_holds(void) {
  CHECK(ag_future_create(L, loop) == AG_OK && ag_future_watch(L, 1, watcher, "a") == AG_OK);
  lua_pushvalue(L, 1);
  spawn("local future = ... agather.sleep(0.001) future:set_result()", 1);
  lua_settop(L, 0);
  lua_gc(L, LUA_GCCOLLECT, 0);
  while (ag_step(L, loop) != AG_DONE) {
  }
  CHECK(trail_is("a result"));
}

static void closing_watcher(lua_State *S, void *data) {
  note(data);
  CHECK(ag_loop_destroy(S, loop) == AG_CLOSED && ag_step(S, loop) == AG_CLOSED);
  CHECK(ag_future_watch(S, 1, watcher, "never") == AG_CLOSED && ag_future_create(S, loop) == AG_CLOSED);
  CHECK(ag_future_set_result(S, 1, 0) == AG_OK && ag_future_state(S, 1) == AG_RESULT);
}

static void watches_whatever_watchers_do(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(ag_future_watch(L, 1, closing_watcher, "a") == AG_OK && ag_future_watch(L, 1, watcher, "b") == AG_OK);
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is("a b result"));
}

static void watches_to_the_end_of_the_loop(void) {
  CHECK(ag_future_create(L, loop) == AG_OK && ag_future_watch(L, 1, watcher, "future") == AG_OK);
  spawn("agather.sleep(100)", 0);
  CHECK(ag_future_watch(L, 2, watcher, "task") == AG_OK);
  CHECK(step_all() == AG_IDLE && trail_is(""));
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is("task cancelled future pending"));
  CHECK(ag_future_watch(L, 1, watcher, "late") == AG_CLOSED && lua_gettop(L) == 2);
  CHECK(ag_future_create(L, loop) == AG_CLOSED && lua_gettop(L) == 2);
}

static void watches_to_the_end_of_the_state(void) {
  CHECK(ag_future_create(L, loop) == AG_OK && ag_future_watch(L, 1, watcher, "future") == AG_OK);
  lua_close(L);
  L = NULL;
  CHECK(trail_is("future pending"));
}

static void failing_watcher(lua_State *S, void *data) { luaL_error(S, "%s", (const char *)data); }

static void sink(const ag_unhandled *what, void *data) {
  static const char *const kinds[] = {"TASK", "FUTURE", "CALLBACK", "PENDING", "COROUTINE", "SCRIPT", "HANDLER"};
  CHECK(data == &loop);
  note(kinds[what->kind]);
  note(what->task != NULL ? what->task : "-");
  note(what->error != NULL ? what->error : "-");
  if (what->traceback != NULL)
    note(strstr(what->traceback, "stack traceback") != NULL ? "traceback" : "?");
}

static void reports_failing_watchers(void) {
  ag_set_error_sink(loop, sink, &loop);
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(ag_future_watch(L, 1, failing_watcher, "oops") == AG_OK && ag_future_watch(L, 1, watcher, "b") == AG_OK);
  CHECK(ag_future_set_result(L, 1, 0) == AG_OK && step_all() == AG_DONE);
  CHECK(trail_is("CALLBACK - oops b result"));
}

static void watcher_is_nobody_who_asks(void) {
  ag_set_error_sink(loop, sink, &loop);
  CHECK(ag_future_create(L, loop) == AG_OK && ag_future_watch(L, 1, watcher, "a") == AG_OK);
  lua_pushliteral(L, "unasked");
  CHECK(ag_future_set_error(L, 1) == AG_OK && step_all() == AG_DONE && trail_is("a failed"));
  lua_settop(L, 0);
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is("FUTURE - unasked"));
}

/* ---- running ---- */

static void runs_until_done(void) {
  spawn("agather.sleep(0.001) return 'done'", 0);
  spawn("agather.sleep(100)", 0);
  CHECK(ag_run_until(L, loop, 1) == AG_OK && lua_gettop(L) == 2);
  CHECK(ag_future_outcome(L, 1) == AG_OK && pops_text("done"));
  CHECK(ag_future_state(L, 2) == AG_PENDING && ag_alive(loop));
  CHECK(ag_run_until(L, loop, 1) == AG_OK); /* done before */
}

static void runs_into_deadlock(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(ag_run_until(L, loop, 1) == AG_ERROR && pops_text("deadlock") && ag_future_state(L, 1) == AG_PENDING);
  spawn("agather.sleep(0.001)", 0); /* the loop goes on */
  CHECK(ag_run_until(L, loop, -1) == AG_OK);
}

static int try_reentrant(lua_State *S) {
  CHECK(ag_run_until(S, loop, 1) == AG_REENTRANT && ag_step(S, loop) == AG_REENTRANT);
  CHECK(ag_loop_destroy(S, loop) == AG_REENTRANT && ag_loop_of(S) == loop);
  note("tried");
  return 0;
}

static void refuses_to_run_inside(void) {
  CHECK(ag_future_create(L, loop) == AG_OK);
  lua_pushcfunction(L, try_reentrant);
  lua_pushvalue(L, 1);
  spawn("local try, future = ... try(future)", 2);
  CHECK(ag_run_until(L, loop, -1) == AG_OK && trail_is("tried"));
}

static void stops(void) {
  spawn("agather.get_running_loop():stop() agather.sleep(0.001)", 0);
  CHECK(ag_run_until(L, loop, 1) == AG_ERROR && pops_text("Event loop stopped before Future completed."));
  CHECK(ag_run_until(L, loop, 1) == AG_OK);
  ag_loop *other;
  CHECK(ag_loop_create(L, &other) == AG_OK);
  CHECK(ag_run_until(L, other, 1) == AG_ERROR && pops_text("belongs to another loop"));
  CHECK(ag_loop_destroy(L, other) == AG_OK);
}

static void reports_what_run_until_left(void) {
  ag_set_error_sink(loop, sink, &loop);
  spawn("error('unasked', 0)", 0);
  CHECK(ag_run_until(L, loop, 1) == AG_OK && trail_is(""));
  spawn("error('asked', 0)", 0);
  CHECK(ag_run_until(L, loop, 2) == AG_OK && ag_future_outcome(L, 2) == AG_ERROR);
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is("TASK Task-1 unasked traceback"));
}

static void is_alive_while_something_may_come(void) {
  CHECK(!ag_alive(loop) && ag_step(L, loop) == AG_DONE);
  spawn("agather.sleep(0.001)", 0);
  CHECK(ag_alive(loop) && ag_run_until(L, loop, 1) == AG_OK && step_all() == AG_DONE && !ag_alive(loop));
  ag_loop_hold(loop);
  CHECK(ag_alive(loop) && ag_step(L, loop) == AG_IDLE && ag_timeout(loop) < 0);
  ag_loop_release(loop);
  CHECK(!ag_alive(loop) && ag_step(L, loop) == AG_DONE);
}

static void loop_stays_good(void) {
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  for (int i = 0; i < 3; i++)
    lua_gc(L, LUA_GCCOLLECT, 0);
  CHECK(ag_loop_destroy(L, loop) == AG_CLOSED && ag_step(L, loop) == AG_CLOSED && !ag_alive(loop));
  CHECK(ag_fd(loop) == -1 && ag_timeout(loop) < 0 && ag_loop_remote(loop) == NULL);
  CHECK(ag_future_create(L, loop) == AG_CLOSED && lua_gettop(L) == 0);
  CHECK(luaL_loadstring(L, "") == LUA_OK && ag_spawn(L, loop, 0) == AG_CLOSED && lua_gettop(L) == 0);
  lua_pushnil(L);
  CHECK(ag_run_until(L, loop, 1) == AG_CLOSED);
  ag_wakeup(loop);
}

static void finds_the_loop(void) {
  lua_State *bare = luaL_newstate();
  CHECK(ag_loop_of(bare) == NULL && lua_gettop(bare) == 0);
  lua_close(bare);
  CHECK(ag_loop_of(L) == loop && lua_gettop(L) == 0);
  ag_loop *other;
  CHECK(ag_loop_create(L, &other) == AG_OK && ag_loop_of(L) == other);
  CHECK(ag_loop_destroy(L, other) == AG_OK && ag_loop_of(L) == loop);
  CHECK(ag_loop_destroy(L, loop) == AG_OK && ag_loop_of(L) == NULL);
}

/* ---- waiting in C functions ---- */

static int waits(lua_State *S) {
  lua_pushliteral(S, "below");
  return ag_await(S, 1);
}

static void waits_in_c_functions(void) {
  lua_pushcfunction(L, waits);
  lua_setglobal(L, "waits");
  CHECK(ag_future_create(L, loop) == AG_OK);
  lua_pushvalue(L, 1);
  spawn("note(tostring(select('#', waits(...)))) note(tostring((select(2, waits(...)))))", 1);
  spawn("note(tostring(select(2, pcall(waits, function() agather.sleep(0) error('inline', 0) end))))", 0);
  spawn("note(tostring(select(2, pcall(waits, agather.spawn(agather.sleep, 100)))))", 0);
  CHECK(step_all() == AG_IDLE && trail_is("inline"));
  lua_pushnil(L);
  lua_pushinteger(L, 2);
  CHECK(ag_future_set_result(L, 1, 2) == AG_OK && ag_future_cancel(L, 4, "why") == AG_OK);
  CHECK(step_all() == AG_DONE && trail_is("2 2 why"));
  lua_pushcfunction(L, waits);
  CHECK(ag_future_create(L, loop) == AG_OK);
  CHECK(lua_pcall(L, 1, 0, 0) == LUA_ERRRUN && pops_text("no running task"));
}

/* ---- the sink ---- */

static void hears_every_kind(void) {
  ag_set_error_sink(loop, sink, &loop);
  spawn("agather.current_task():set_name('named') error('task', 0)", 0);
  spawn("agather.get_running_loop():call_soon(function() error('callback', 0) end)", 0);
  spawn("agather.future():set_exception('future')", 0);
  spawn("agather.get_running_loop():call_exception_handler({ message = 'm', exception = 'script' })", 0);
  lua_settop(L, 0);
  step_all();
  lua_gc(L, LUA_GCCOLLECT, 0);
  step_all();
  CHECK(strstr(trail, "TASK named task traceback") && strstr(trail, "CALLBACK - callback"));
  CHECK(strstr(trail, "FUTURE - future") && strstr(trail, "SCRIPT - script"));
  trail[0] = '\0';
  spawn("agather.async(function() end)()", 0);
  spawn("agather.sleep(100)", 0);
  lua_settop(L, 0);
  CHECK(step_all() == AG_IDLE);
  lua_gc(L, LUA_GCCOLLECT, 0);
  step_all();
  lua_close(L); /* without ag_loop_destroy the sleeper is not even cancelled */
  L = NULL;
  CHECK(strstr(trail, "COROUTINE - -") && strstr(trail, "PENDING Task-6 -"));
  trail[0] = '\0';
}

static void handler_hears_afterwards(void) {
  ag_set_error_sink(loop, sink, &loop);
  spawn("agather.get_running_loop():set_exception_handler(function(context) "
        "note('handler') if context.exception.value == 'b' then error('broken', 0) end end)",
        0);
  spawn("agather.sleep(0) agather.get_running_loop():call_soon(error, 'a', 0) "
        "agather.get_running_loop():call_soon(error, 'b', 0)",
        0);
  CHECK(step_all() == AG_DONE && trail_is("CALLBACK - a handler CALLBACK - b handler HANDLER - broken"));
  ag_set_error_sink(loop, NULL, NULL);
  spawn("agather.get_running_loop():call_soon(error, 'c', 0)", 0);
  CHECK(step_all() == AG_DONE && trail_is("handler"));
}

static void survives_odd_contexts(void) {
  ag_set_error_sink(loop, sink, &loop);
  spawn("local call = function(context) agather.get_running_loop():call_exception_handler(context) end "
        "call({}) "
        "call({ message = {}, task = 5, exception = setmetatable({}, { __tostring = error }) }) "
        "call(setmetatable({}, { __index = function() error('no') end }))",
        0);
  CHECK(step_all() == AG_DONE);
  CHECK(trail_is("SCRIPT - - SCRIPT - (error object that has no text) SCRIPT - -"));
}

int main(int argc, char **argv) {
  static const test_case cases[] = {
      {"gives its results to who awaits it, in the next step", gives_results},
      {"may have no result", gives_no_result},
      {"gives the very error to who awaits it", gives_very_error},
      {"is settled once: later values are popped", settles_once},
      {"is told from other values", refuses_what_is_no_future},
      {"is not a task: those are settled by the loop", refuses_to_settle_tasks},
      {"cannot fail with nil", refuses_nil_as_error},
      {"can be cancelled with a message", cancels_futures},
      {"may be a task that is cancelled", cancels_tasks},
      {"tells its outcome as lua_pcall does", tells_outcomes},
      {"may have 900 results", many_results},
      {"is watched: each watcher is called once, in order, also when it is done already", watches},
      {"lives while it is watched", watches_what_nobody_holds},
      {"tells its watchers when its loop ends before it is done", watches_to_the_end_of_the_loop},
      {"is watched to the end, whatever another watcher does", watches_whatever_watchers_do},
      {"tells its watchers when the state is closed before it is done", watches_to_the_end_of_the_state},
      {"may have watchers that raise, which is reported", reports_failing_watchers},
      {"is reported when it failed and was only watched", watcher_is_nobody_who_asks},
      {"is what a loop runs until", runs_until_done},
      {"makes a DeadlockError where nothing can end it", runs_into_deadlock},
      {"cannot be run until inside a task", refuses_to_run_inside},
      {"is not waited for longer than loop:stop() lets", stops},
      {"is reported when it failed and the host never asked", reports_what_run_until_left},
      {"belongs to a loop that is alive while something may come", is_alive_while_something_may_come},
      {"belongs to a loop that the state leads to", finds_the_loop},
      {"cannot be made by a loop that was destroyed, which tells so as long as the state is there", loop_stays_good},
      {"can be awaited in a C function", waits_in_c_functions},
      {"is not the only thing that the sink hears of", hears_every_kind},
      {"leaves the script's exception handler to hear after the sink", handler_hears_afterwards},
      {"may be missing in what a script reports", survives_odd_contexts},
  };
  return run_case(cases, sizeof cases / sizeof *cases, argc > 1 ? argv[1] : NULL);
}
