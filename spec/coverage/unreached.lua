-- Lines of src/core that the specs do not reach, or not in every run, with the reasons: file -> list of { why =, pieces of
-- the file ... }. A piece is one line or several, however indented; each must be there as it stands here.
local memory = "C memory fails there: specs of torture try it, though not every place in every run"
local thread = "another thread is faster: seen by .ci/tsan, not in every run"
local finalizer = "a finalizer acts at this very place: spec/finalizer_spec.lua tries each place only in its full length"
local signal = "a signal comes at this very moment"

return {
  ["src/core/await.c"] = {
    { why = "no function of a script runs, which only a host's finalizer could bring about", 'return lua_pushliteral(L, "");' },
    { why = "what cannot be waited in is a function of C, and those have been looked at", 'return lua_pushliteral(L, "a C call");' },
    { why = "a future is watched only when nobody waits; here somebody did", "ag_unwatch(L, S, future, 1);" },
    { why = "ag_task_resumed before it raises what was refused", "ag_task_resumed(L, ag_self(L));\nreturn 0;" },
    { why = "needs a hundred calls above the await", "return INLINE_MAX;" },
    { why = memory, 'free(frame);\nag_thread_give(L, S, thread, true);\nreturn luaL_error(L, "not enough memory");' },
  },
  ["src/core/budget.c"] = {
    { why = "a host steps the loop on another thread than the one that has the timer, which no host of the specs does",
      "limiter->ticking = false;\nlimiter->every = EVERY;" },
    { why = "a step within a step of limited scripts, which the C API refuses", "if (was_active)\nag_budget_open(L, S);" },
  },
  ["src/core/cfuture.c"] = {
    { why = finalizer, 'return luaL_error(L, "a finalizer has settled the future");' },
  },
  ["src/core/coro.c"] = {
    { why = finalizer, "if (loop->closed) /* by a finalizer */\nag_loop_closed(L, S);", "if (loop->closed)\nag_loop_closed(L, S);" },
    { why = "coros that were started have another metatable; the state is closed when the last of them go",
      "if (task->started || S->closed)\nreturn 0;" },
  },
  ["src/core/error.c"] = {
    { why = "the metatable of errors is out of a script's reach, but for the debug library",
      "else\nlua_pushnil(L);" },
    { why = "all that call it have an error object, or a value that is one", "if (lua_type(L, -1) != LUA_TTABLE)\nreturn;" },
  },
  ["src/core/future.c"] = {
    { why = finalizer, "if (future->status != AG_PENDING) /* a finalizer was faster */\nraise_settled(L, S, future);" },
  },
  ["src/core/gather.c"] = {
    { why = "a gather that has failed has its list, or its error, there; this is for one that has neither",
      "if (!lua_istable(L, -1))\nreturn;" },
  },
  ["src/core/handle.c"] = {
    { why = "a promised callback that fails where its loop closes, which those of C do not",
      "if (lua_pcall(L, 2, 0, 0) != LUA_OK)\nlua_pop(L, 1);\nif (handle->promised)\nag_handle_kept(L, loop->S, handle);" },
    { why = memory, 'ag_handle_release(L, loop->S, handle);\nreturn luaL_error(L, "not enough memory");' },
    { why = finalizer, "if (ag_loop_find(S, id) == NULL) /* a finalizer has closed it */\nag_loop_closed(L, S);" },
  },
  ["src/core/interrupt.c"] = {
    { why = signal .. ", where no loop runs", "return NULL;" },
  },
  ["src/core/limits.c"] = {
    { why = memory, 'if (limiter == NULL)\nreturn luaL_error(L, "not enough memory");' },
  },
  ["src/core/loop.c"] = {
    { why = memory, "if (loop->poller != NULL)\nloop->poller->close(loop->poller);\nag_drop(L, S, loop->slot);\nno_poller(L, number);",
      "if (!met) /* for lack of memory: once more, soon */\npoller->wait(poller, 0.01);" },
    { why = "a virtual clock where I/O is expected, which needs a poller of its own", "poller->wait(poller, 0);" },
    { why = signal .. ", within an iteration", 'if (ag_error_is(L, loop->S, -1, "KeyboardInterrupt"))\nlua_error(L);' },
    { why = "run_forever with nothing to do ends by a signal alone",
      "loop->poller->wait(loop->poller, -1); /* run_forever: only a signal or another thread can end this */" },
    { why = "all that call it have looked", "if (loop->closed)\nreturn;" },
    { why = "a loop that closes in the middle of an iteration, whose rest are callbacks that its end has taken already",
      "ag_link_remove(loop->current.next);" },
  },
  ["src/core/loop_methods.c"] = {
    { why = "the reactor is opened by what needs an open loop", "poller->close(poller);\nreturn;" },
  },
  ["src/core/memory.c"] = {
    { why = "the system has no memory", "if (size > 0 && got == NULL) {\nrefuse(memory, block, size);\nreturn NULL;" },
  },
  ["src/core/op.c"] = {
    { why = thread, "ag_op_finish(op);\nreturn AG_CLOSED;", "if (op->future == NULL)\nreturn 0;" },
    { why = memory, 'lua_pushliteral(L, "not enough memory"); /* which Lua keeps made */\nreturn AG_ERROR;' },
  },
  ["src/core/poller.c"] = {
    { why = "nobody sleeps for a day", "timeout = 86400;" },
    { why = memory, "return NULL;", "free(s);\nreturn NULL;" },
  },
  ["src/core/post.c"] = {
    { why = memory, "if (drop != NULL)\ndrop(data);\nreturn AG_NO_MEMORY;" },
  },
  ["src/core/queue.c"] = {
    { why = memory, 'luaL_error(L, "not enough memory");' },
  },
  ["src/core/remote.c"] = {
    { why = memory, "return NULL;" },
  },
  ["src/core/restrict.c"] = {
    { why = "a host without Lua's require, or without the part of the library that is written in Lua",
      "lua_pop(L, 1);\nreturn false;", 'luaL_requiref(L, "agather.core", luaopen_agather_core, 0);' },
    { why = "strings without a metatable: a host that has not opened the string library", "lua_pushnil(L); /* 6 */" },
  },
  ["src/core/run.c"] = {
    { why = signal .. ", between the end of a loop and the handler's", "if (loop == NULL)\nreturn;" },
    { why = "a process that ignores SIGINT, as shells start those in the background",
      "if (sigaction(SIGINT, NULL, before) != 0 || before->sa_handler == SIG_IGN)\nreturn false;" },
    { why = finalizer, "if (loop->closed) /* by a finalizer */\nag_loop_closed(L, S);" },
    { why = memory, "int status = protected_phase(L, prepare_phase, base);\nif (status != LUA_OK)\nreturn status;" },
  },
  ["src/core/safe.c"] = {
    { why = "a userdata that has a length and is taken for a list", "lua_pop(L, 1);\nreturn luaL_len(L, 1);" },
  },
  ["src/core/shutdown.c"] = {
    { why = memory, "return;" },
    { why = signal .. ", while tasks are shut down", "if (status != LUA_OK)\nlua_error(L);" },
  },
  ["src/core/sleep.c"] = {
    { why = memory, 'return luaL_error(L, "not enough memory");' },
  },
  ["src/core/state.c"] = {
    { why = memory, 'luaL_error(L, "not enough memory");', "return false;" },
    { why = "a thread ends while the state closes, by a <close> handler", "if (S->closed)\nreturn;" },
    { why = "a coro has its function, unless it was made by hand", 'lua_pushliteral(L, "function <?>");\nreturn;' },
  },
  ["src/core/step.c"] = {
    { why = "an error left a thread without an error object: there was no memory for one",
      "if (!lua_istable(L, -1))\nreturn false;" },
    { why = "the state closes inside a task, and its <close> handlers raise: a program of its own in state_spec.lua",
      "lua_settop(L, 1);\nreturn 1;" },
    { why = "a thread resumed by hand belongs to a task, or has lost it before", "return NULL;" },
    { why = "a <close> handler of an abandoned task ends it in another way", "return; /* a <close> handler may do anything */" },
    { why = memory, "spoiled = true;\nlua_xmove(thread.L, L, 1);\nfinish_failed(L, S, task);\ntask->thread = (ag_thread){NULL, 0};" },
  },
  ["src/core/task.c"] = {
    { why = memory, "loop->task = outer;\nloop->here = here;\nloop->solo = solo;\nloop->inner_stuck = stuck;\n"
      .. "if (task->future.status == AG_PENDING && ag_list_empty(&task->timer.node.link))\nag_task_lost(L, loop, task);\n"
      .. "else\nlua_pop(L, 1);" },
    { why = "asked of a failed task before its report, which takes the watch away first",
      "lua_getiuservalue(L, -1, 1);\nlua_remove(L, -2);" },
  },
  ["src/core/throw.c"] = {
    { why = "a hook of a thread that was resumed by hand in between", "if (task == NULL || task->thread.L != L)\nreturn;" },
  },
  ["src/core/ticker.c"] = {
    { why = signal .. ", for a timer that is gone", "if (ticker == NULL || ticker->thread != &here)\nreturn;" },
    { why = "the system has no more timers", "if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &ticker->timer) != 0)\nreturn false;",
      "ag_ticker_free(ticker);\nreturn NULL;" },
    { why = memory, "if (ticker == NULL)\nreturn NULL;" },
  },
  ["src/core/timer.c"] = {
    { why = memory, "return false;" },
  },
  ["src/core/waiters.c"] = {
    { why = "who waits at a lock or queue holds it; only a state that closes takes both, and its tasks are gone by then",
      "ag_task *task = ag_waiters_first(list);\nag_link_remove(&task->turn_link);\nag_waiters_wake(S, task);" },
  },
}
