/* Operations and posts on one thread, where everything is in order: each case is a sentence about agather.h. See
** cases.h; post.c has the threads. */
#include "cases.h"

static const char awaiting[] = "local ok, a, b = pcall(agather.await, (...)) "
                               "note(tostring(ok)) note(tostring(a)) note(tostring(b))";

static void unwanted(ag_op *op, void *data) {
  CHECK(!ag_op_wanted(op));
  note("unwanted");
  note(data);
}

static void release(void *data) {
  note("release");
  note(data);
}

static int push_one(lua_State *S, void *data) {
  CHECK(lua_gettop(S) == 0);
  note("push");
  lua_pushstring(S, data);
  return 1;
}

/* Makes an operation whose future is on top. */
static ag_op *new_op(void) {
  ag_op *op;
  CHECK(ag_op_create(L, loop, unwanted, "op", &op) == AG_OK && ag_op_wanted(op));
  return op;
}

/* The same, and a task awaits the future, which is at 1. */
static ag_op *awaited_op(void) {
  ag_op *op = new_op();
  lua_pushvalue(L, -1);
  spawn(awaiting, 1);
  lua_pop(L, 1);
  CHECK(step_all() == AG_IDLE);
  return op;
}

static void answers(void) {
  ag_op *op = awaited_op();
  CHECK(ag_op_resolve(op, push_one, release, "x") == AG_OK && !ag_op_wanted(op) && trail_is(""));
  CHECK(ag_timeout(loop) == 0 && ag_alive(loop));
  CHECK(step_all() == AG_DONE && trail_is("push release x true x nil"));
  CHECK(ag_op_resolve(op, push_one, release, "y") == AG_SETTLED && trail_is("release y"));
  CHECK(ag_op_reject(op, NULL, "late") == AG_SETTLED);
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is(""));
}

static void answers_with_nothing(void) {
  ag_op *op = awaited_op();
  CHECK(ag_op_resolve(op, NULL, NULL, NULL) == AG_OK);
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is("true nil nil"));
}

static int push_many(lua_State *S, void *data) {
  (void)data;
  CHECK(lua_checkstack(S, 300));
  for (int i = 1; i <= 300; i++)
    lua_pushinteger(S, i);
  return 300;
}

static void answers_with_many(void) {
  ag_op *op = new_op();
  CHECK(ag_op_resolve(op, push_many, NULL, NULL) == AG_OK && step_all() == AG_DONE);
  CHECK(ag_future_outcome(L, 1) == AG_OK && lua_gettop(L) == 301 && lua_tointeger(L, -1) == 300);
  ag_op_unref(op);
}

static void rejects(void) {
  ag_op *op = new_op();
  CHECK(ag_op_reject(op, "TimeoutError", "too late") == AG_OK && step_all() == AG_DONE);
  ag_op_unref(op);
  CHECK(ag_future_outcome(L, 1) == AG_ERROR);
  lua_getglobal(L, "agather");
  lua_getfield(L, -1, "is_error");
  lua_pushvalue(L, 2);
  lua_getfield(L, 3, "TimeoutError");
  lua_call(L, 2, 1);
  CHECK(lua_toboolean(L, -1));
  lua_settop(L, 2);
  CHECK(pops_text("too late"));
  lua_settop(L, 0);
  op = awaited_op();
  CHECK(ag_op_reject(op, NULL, "plain") == AG_OK && step_all() == AG_DONE && trail_is("false plain nil"));
  ag_op_unref(op);
}

static void cuts_long_messages(void) {
  char message[500];
  memset(message, 'm', sizeof message - 1);
  message[sizeof message - 1] = '\0';
  ag_op *op = new_op();
  CHECK(ag_op_reject(op, NULL, message) == AG_OK && step_all() == AG_DONE);
  ag_op_unref(op);
  CHECK(ag_future_outcome(L, 1) == AG_ERROR && strlen(luaL_tolstring(L, -1, NULL)) == 199);
}

static int push_raising(lua_State *S, void *data) {
  lua_pushstring(S, data);
  return lua_error(S);
}

static int push_too_many(lua_State *S, void *data) {
  (void)S, (void)data;
  return 5;
}

static int push_waiting(lua_State *S, void *data) {
  (void)data;
  return luaL_dostring(S, "agather.sleep(1)") == LUA_OK ? 0 : lua_error(S);
}

static void fails_with_what_push_raises(void) {
  ag_op *op = awaited_op();
  CHECK(ag_op_resolve(op, push_raising, release, "oops") == AG_OK);
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is("release oops false oops nil"));
  op = new_op();
  CHECK(ag_op_resolve(op, push_too_many, NULL, NULL) == AG_OK && step_all() == AG_DONE);
  ag_op_unref(op);
  CHECK(ag_future_outcome(L, -1) == AG_ERROR && pops_text("a push function returned 5 and left 0 values"));
  op = new_op();
  CHECK(ag_op_resolve(op, push_waiting, NULL, NULL) == AG_OK && step_all() == AG_DONE);
  ag_op_unref(op);
  CHECK(ag_future_outcome(L, -1) == AG_ERROR && pops_text("sleep: no running task"));
}

static void is_reported_when_nobody_awaits(void) {
  spawn("agather.get_running_loop():set_exception_handler(function(context) note(context.exception.message) end)", 0);
  step_all();
  ag_op *op = new_op();
  CHECK(ag_op_reject(op, NULL, "unasked") == AG_OK);
  ag_op_unref(op);
  lua_settop(L, 0);
  step_all();
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is("unasked"));
}

static void gives_up(void) {
  ag_op *op = awaited_op();
  CHECK(ag_op_ref(op) == op);
  ag_op_unref(op);
  CHECK(step_all() == AG_IDLE && ag_op_wanted(op));
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is("false the operation was given up without an answer nil"));
  ag_op_unref(NULL);
}

static void is_cancelled(void) {
  ag_op *op = awaited_op();
  CHECK(ag_future_cancel(L, 1, "why") == AG_OK && trail_is("unwanted op") && !ag_op_wanted(op));
  CHECK(ag_op_resolve(op, push_one, release, "x") == AG_CLOSED && trail_is("release x"));
  CHECK(ag_op_reject(op, NULL, "late") == AG_CLOSED);
  CHECK(step_all() == AG_DONE && trail_is("false why nil"));
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is(""));
}

static void is_cancelled_through_its_task(void) {
  ag_op *op = new_op();
  lua_pushvalue(L, -1);
  spawn(awaiting, 1);
  CHECK(step_all() == AG_IDLE && ag_future_cancel(L, 2, NULL) == AG_OK && trail_is("unwanted op"));
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is("false CancelledError nil"));
}

static void is_cancelled_under_way(void) {
  ag_op *op = awaited_op();
  CHECK(ag_op_resolve(op, push_one, release, "x") == AG_OK); /* in the mailbox */
  CHECK(ag_future_cancel(L, 1, "why") == AG_OK && trail_is(""));
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is("false why nil release x"));
}

static void is_settled_by_hand(void) {
  ag_op *op = awaited_op();
  lua_pushliteral(L, "mine");
  CHECK(ag_future_set_result(L, 1, 1) == AG_OK && trail_is("unwanted op"));
  CHECK(ag_op_resolve(op, push_one, release, "x") == AG_CLOSED && trail_is("release x"));
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is("true mine nil"));
}

static int push_cancelling(lua_State *S, void *data) {
  (void)data;
  lua_getglobal(S, "future");
  CHECK(ag_future_cancel(S, -1, "meanwhile") == AG_OK);
  return 1;
}

static void is_cancelled_by_its_push(void) {
  ag_op *op = awaited_op();
  lua_pushvalue(L, 1);
  lua_setglobal(L, "future");
  CHECK(ag_op_resolve(op, push_cancelling, release, "x") == AG_OK);
  ag_op_unref(op);
  CHECK(step_all() == AG_DONE && trail_is("release x false meanwhile nil"));
}

static void loop_closes(void) {
  ag_op *waits = new_op(), *answered = new_op(), *late = new_op();
  CHECK(ag_op_resolve(answered, push_one, release, "x") == AG_OK);
  CHECK(ag_op_ref(waits) == waits);
  lua_pushliteral(L, "by hand");
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is("unwanted op unwanted op release x"));
  CHECK(ag_op_resolve(late, push_one, release, "y") == AG_CLOSED && trail_is("release y"));
  CHECK(ag_future_state(L, 1) == AG_PENDING && ag_future_set_result(L, 1, 1) == AG_OK && trail_is(""));
  ag_op *none;
  CHECK(ag_op_create(L, loop, NULL, NULL, &none) == AG_CLOSED && none == NULL);
  lua_close(L);
  L = NULL;
  ag_op_unref(waits);
  ag_op_unref(waits);
  ag_op_unref(answered);
  ag_op_unref(late);
  CHECK(trail_is(""));
}

static void state_closes(void) {
  ag_op *op = new_op();
  lua_close(L);
  L = NULL;
  CHECK(trail_is("unwanted op"));
  CHECK(ag_op_resolve(op, push_one, release, "x") == AG_CLOSED && trail_is("release x"));
  ag_op_unref(op);
}

static void keeps_the_loop_alive(void) {
  ag_op *op = new_op();
  lua_settop(L, 0);
  lua_gc(L, LUA_GCCOLLECT, 0); /* the loop keeps the future */
  CHECK(ag_alive(loop) && ag_step(L, loop) == AG_IDLE && ag_timeout(loop) < 0);
  CHECK(ag_op_resolve(op, push_one, release, "x") == AG_OK && step_all() == AG_DONE && trail_is("push release x"));
  CHECK(!ag_alive(loop));
  ag_op_unref(op);
}

/* ---- posts ---- */

static void posted(lua_State *S, void *data) {
  CHECK(lua_gettop(S) == 0 && ag_loop_of(S) == loop);
  note(data);
}

static void drop(void *data) {
  note("drop");
  note(data);
}

static void runs_posts_in_order(void) {
  ag_remote *remote = ag_loop_remote(loop);
  CHECK(ag_post(remote, posted, drop, "a") == AG_OK && ag_post(remote, posted, drop, "b") == AG_OK);
  CHECK(ag_post(remote, posted, NULL, "c") == AG_OK && trail_is("") && ag_alive(loop) && ag_timeout(loop) == 0);
  CHECK(step_all() == AG_DONE && trail_is("a b c") && !ag_alive(loop));
  ag_remote_unref(remote);
  ag_remote_unref(NULL);
}

static void post_again(lua_State *S, void *data) {
  note(data);
  ag_remote *remote = ag_loop_remote(ag_loop_of(S));
  CHECK(ag_post(remote, post_again, drop, data) == AG_OK);
  ag_remote_unref(remote);
}

static void posts_from_posts(void) {
  ag_remote *remote = ag_loop_remote(loop);
  CHECK(ag_post(remote, post_again, NULL, "again") == AG_OK);
  spawn("for i = 1, 3 do agather.sleep(0) note(tostring(i)) end", 0); /* has its turn all the same */
  for (int i = 0; i < 4; i++)
    CHECK(ag_step(L, loop) == AG_MORE);
  CHECK(strstr(trail, "1 ") != NULL && strstr(trail, " 3") != NULL && strstr(trail, "again again") == NULL);
  trail[0] = '\0';
  ag_remote *kept = ag_remote_ref(remote);
  ag_remote_unref(remote);
  CHECK(ag_loop_destroy(L, loop) == AG_OK);
  CHECK(strstr(trail, "drop again") != NULL);
  trail[0] = '\0';
  ag_remote_unref(kept);
}

static void spawning(lua_State *S, void *data) {
  CHECK(luaL_loadstring(S, data) == LUA_OK);
  CHECK(ag_spawn(S, ag_loop_of(S), 0) == AG_OK);
}

static void posts_spawn(void) {
  ag_remote *remote = ag_loop_remote(loop);
  CHECK(ag_post(remote, spawning, NULL, "agather.sleep(0) note('task')") == AG_OK);
  CHECK(step_all() == AG_DONE && trail_is("task"));
  ag_remote_unref(remote);
}

static void raising(lua_State *S, void *data) { luaL_error(S, "%s", (const char *)data); }

static void reports_raising_posts(void) {
  spawn("agather.get_running_loop():set_exception_handler(function(context) "
        "note(context.message) note(context.exception.message) end)",
        0);
  step_all();
  ag_remote *remote = ag_loop_remote(loop);
  CHECK(ag_post(remote, raising, drop, "oops") == AG_OK && ag_post(remote, posted, drop, "next") == AG_OK);
  CHECK(step_all() == AG_DONE && trail_is("Exception in posted function oops next"));
  ag_remote_unref(remote);
}

static int push_endless(lua_State *S, void *data) {
  (void)data;
  return luaL_dostring(S, "while true do end") == LUA_OK ? 0 : lua_error(S);
}

static void post_endless(lua_State *S, void *data) { push_endless(S, data); }

static void bounds_what_runs(void) {
  ag_limits limits = {.instructions = 100000};
  CHECK(ag_set_limits(L, &limits) == AG_OK);
  spawn("agather.get_running_loop():set_exception_handler(function(context) note(context.message) end)", 0);
  step_all();
  ag_remote *remote = ag_loop_remote(loop);
  CHECK(ag_post(remote, post_endless, drop, "x") == AG_OK && ag_post(remote, posted, drop, "next") == AG_OK);
  CHECK(step_all() == AG_DONE && trail_is("Exception in posted function next"));
  ag_remote_unref(remote);
  ag_op *op = new_op();
  CHECK(ag_op_resolve(op, push_endless, NULL, NULL) == AG_OK && step_all() == AG_DONE);
  ag_op_unref(op);
  CHECK(ag_future_outcome(L, -1) == AG_ERROR && pops_text("a step took more than its 100000 instructions"));
}

static void bounds_operations(void) {
  ag_limits limits = {.handles = 2};
  CHECK(ag_set_limits(L, &limits) == AG_OK);
  ag_op *one = new_op(), *two = new_op(), *three;
  CHECK(ag_op_create(L, loop, NULL, NULL, &three) == AG_ERROR && three == NULL && pops_text("handles"));
  CHECK(ag_op_resolve(one, NULL, NULL, NULL) == AG_OK && step_all() == AG_IDLE);
  CHECK(ag_op_create(L, loop, NULL, NULL, &three) == AG_OK);
  ag_op_unref(one);
  ag_op_unref(two);
  ag_op_unref(three);
}

static void refuses_posts_when_closed(void) {
  ag_remote *remote = ag_loop_remote(loop);
  CHECK(ag_post(remote, posted, drop, "early") == AG_OK);
  lua_close(L); /* without a shutdown, nothing has its turn any more */
  L = NULL;
  CHECK(trail_is("drop early"));
  CHECK(ag_post(remote, posted, drop, "late") == AG_CLOSED && trail_is("drop late"));
  CHECK(ag_post(remote, posted, NULL, "late") == AG_CLOSED && trail_is(""));
  ag_remote_wakeup(remote);
  ag_remote_unref(remote);
}

static void runs_posts_at_shutdown(void) {
  ag_remote *remote = ag_loop_remote(loop);
  spawn("agather.sleep(100)", 0);
  CHECK(step_all() == AG_IDLE && ag_post(remote, posted, drop, "early") == AG_OK);
  CHECK(ag_loop_destroy(L, loop) == AG_OK && trail_is("early"));
  CHECK(ag_post(remote, posted, drop, "late") == AG_CLOSED && trail_is("drop late"));
  ag_remote_unref(remote);
}

static void wakes_a_wait(void) {
  ag_remote *remote = ag_loop_remote(loop);
  ag_remote_wakeup(remote);
  ag_wakeup(loop);
  CHECK(ag_step(L, loop) == AG_DONE);
  ag_remote_unref(remote);
}

int main(int argc, char **argv) {
  static const test_case cases[] = {
      {"is answered once, in the next step", answers},
      {"may be answered with nothing", answers_with_nothing},
      {"may be answered with 300 results", answers_with_many},
      {"can be rejected with an error of a class, or a plain string", rejects},
      {"cuts long messages of a rejection", cuts_long_messages},
      {"fails with what its push function raises", fails_with_what_push_raises},
      {"is reported when it failed and nobody awaits it", is_reported_when_nobody_awaits},
      {"fails when all references are gone and nobody has answered", gives_up},
      {"is not wanted any more when its future is cancelled", is_cancelled},
      {"is not wanted any more when the task that awaits it is cancelled", is_cancelled_through_its_task},
      {"may be cancelled while its answer is under way", is_cancelled_under_way},
      {"is not wanted any more when its future is settled by hand", is_settled_by_hand},
      {"may be cancelled by its own push function", is_cancelled_by_its_push},
      {"outlives its loop, whose end makes it unwanted", loop_closes},
      {"outlives the state", state_closes},
      {"keeps the loop alive and its future with it", keeps_the_loop_alive},
      {"shares the mailbox with posts, which run in order", runs_posts_in_order},
      {"leaves turns to tasks though a post posts again and again", posts_from_posts},
      {"may be what a posted function makes a task for", posts_spawn},
      {"shares the loop with posts that raise, which is reported", reports_raising_posts},
      {"shares the limits of a step with posts", bounds_what_runs},
      {"is one of no more than there may be handles", bounds_operations},
      {"shares the mailbox with posts, which are dropped when the state closes", refuses_posts_when_closed},
      {"shares the mailbox with posts, which a shutdown still runs", runs_posts_at_shutdown},
      {"may be waited for by a loop that is woken for nothing", wakes_a_wait},
  };
  return run_case(cases, sizeof cases / sizeof *cases, argc > 1 ? argv[1] : NULL);
}
