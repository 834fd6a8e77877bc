-- Programs whose traces once differed from asyncio's, made small by shrink.lua. `about` says what was wrong.
-- One with `open` still differs: the spec shows it as pending, and asks for the mark to be taken away once it agrees.
local no_objects = { futures = 1, queues = {}, semaphore = 1, bounded = false }

return {
  {
    about = "a TaskGroup whose child fails after the scope's body has ended leaves its task cancelled",
    program = {
      objects = no_objects,
      main = {
        { op = "try", handler = {}, block = {
          { op = "group", block = { { op = "group_spawn", body = 1, slot = 1 } } },
        } },
        { op = "sleep", delay = 0.125 },
        { op = "log", label = "main goes on" },
      },
      bodies = { { { op = "raise", form = "string", label = "u1" } } },
    },
  },
  {
    about = "a task in a gather twice cancels that gather: the loop crashes",
    program = {
      objects = no_objects,
      main = {
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "make_gather", items = { { kind = "task", slot = 1 }, { kind = "same", index = 1 } }, slot = 1,
          return_exceptions = false },
        { op = "sleep", delay = 0.125 },
      },
      bodies = { { { op = "cancel", target = { kind = "group", slot = 1 } } } },
    },
  },
  {
    about = "a task that is in a cancelled gather twice ends after its siblings",
    program = {
      objects = no_objects,
      main = {
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "spawn", body = 2, form = "coro", slot = 2 },
        { op = "make_gather", slot = 1, return_exceptions = false,
          items = { { kind = "task", slot = 1 }, { kind = "task", slot = 2 }, { kind = "same", index = 1 } } },
        { op = "turn" },
        { op = "cancel", target = { kind = "group", slot = 1 } },
        { op = "sleep", delay = 0.125 },
      },
      bodies = { { { op = "sleep", delay = 0.25 } }, { { op = "sleep", delay = 0.25 } } },
    },
  },
  {
    about = "cancelling a task that waits for another twice over: cancelling() counts both",
    program = {
      objects = no_objects,
      main = {
        { op = "spawn", body = 2, form = "coro", slot = 2 },
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "make_gather", slot = 1, return_exceptions = false,
          items = { { kind = "task", slot = 1 }, { kind = "same", index = 1 } } },
        { op = "turn" },
        { op = "cancel", target = { kind = "group", slot = 1 } },
        { op = "query", target = { kind = "task", slot = 1 } },
        { op = "query", target = { kind = "task", slot = 2 } },
        { op = "sleep", delay = 0.125 },
      },
      bodies = { { { op = "await", target = { kind = "task", slot = 2 } } }, { { op = "sleep", delay = 0.25 } } },
    },
  },
  {
    about = "a gather of one gather twice, whose children are done: cancel() is false",
    program = {
      objects = no_objects,
      main = {
        { op = "set_result", target = { kind = "future", slot = 1 }, value = "v1" },
        { op = "make_gather", items = { { kind = "future", slot = 1 } }, slot = 1, return_exceptions = false },
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "make_gather", items = { { kind = "group", slot = 1 }, { kind = "same", index = 1 } }, slot = 2,
          return_exceptions = false },
        { op = "cancel", target = { kind = "group", slot = 2 } },
        { op = "sleep", delay = 0.125 },
      },
      bodies = { {} },
    },
  },
  {
    about = "wait_for with no time left, of a gather: TimeoutError",
    program = {
      objects = no_objects,
      main = {
        { op = "make_gather", items = { { kind = "future", slot = 1 } }, slot = 1, return_exceptions = true },
        { op = "wait_for", target = { kind = "group", slot = 1 }, timeout = 0 },
      },
      bodies = { {} },
    },
  },
  {
    about = "a second cancel() before the step does not replace the message that the awaited future took",
    program = {
      objects = no_objects,
      main = {
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "turn" },
        { op = "cancel", target = { kind = "task", slot = 1 }, message = "m1" },
        { op = "cancel", target = { kind = "task", slot = 1 }, message = "m2" },
        { op = "sleep", delay = 0.125 },
      },
      bodies = { { { op = "sleep", delay = 0.25 } } },
    },
  },
  {
    about = "a cancel() after the awaited future was cancelled does not replace that future's message",
    program = {
      objects = no_objects,
      main = {
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "turn" },
        { op = "cancel", target = { kind = "future", slot = 1 }, message = "m1" },
        { op = "cancel", target = { kind = "task", slot = 1 }, message = "m2" },
        { op = "sleep", delay = 0.125 },
      },
      bodies = { { { op = "await", target = { kind = "future", slot = 1 } } } },
    },
  },
  {
    about = "a task that awaits itself gets the error one turn later",
    program = {
      objects = no_objects,
      main = {
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "await_itself", guard = true },
      },
      bodies = { {} },
    },
  },
  {
    about = "a thread that is in a gather twice runs once, as a coro does",
    program = {
      objects = no_objects,
      main = {
        { op = "gather", items = { { kind = "thread", body = 1 }, { kind = "same", index = 1 } },
          return_exceptions = false },
      },
      bodies = { { { op = "return", value = "r1" } } },
    },
  },
  {
    about = "a future that outlives its loop does not keep a gather that is gone (seen by the sanitizer)",
    program = {
      objects = no_objects,
      main = {
        { op = "make_gather", items = { { kind = "coro", body = 1 } }, slot = 2, return_exceptions = false },
        { op = "as_completed", items = { { kind = "function", body = 1 } } },
      },
      bodies = {
        {
          { op = "finally", block = {
            { op = "as_completed", items = { { kind = "future", slot = 1 } } },
          }, final = {
            { op = "make_gather", items = { { kind = "future", slot = 1 } }, slot = 1, return_exceptions = true },
          } },
        },
      },
    },
  },
  {
    about = "a cancelled gather whose child fails by itself carries the message",
    program = {
      objects = no_objects,
      main = {
        { op = "make_gather", items = { { kind = "coro", body = 1 } }, slot = 1, return_exceptions = true },
        { op = "sleep", delay = 0.125 },
      },
      bodies = {
        {
          { op = "cancel", target = { kind = "group", slot = 1 }, message = "m1" },
          { op = "raise", label = "u1", form = "string" },
        },
      },
    },
  },
  {
    about = "a cancelled gather raises CancelledError, whatever its child was thrown by the loop before",
    program = {
      objects = no_objects,
      main = {
        { op = "make_gather", items = { { kind = "coro", body = 1 } }, slot = 1, return_exceptions = false },
        { op = "turn" },
        { op = "cancel", target = { kind = "group", slot = 1 } },
        { op = "await", target = { kind = "group", slot = 1 } },
      },
      bodies = {
        {
          { op = "try", block = { { op = "sleep", delay = 0.125 } }, handler = {} },
          { op = "await_itself", guard = true },
        },
      },
    },
  },
  {
    about = "as_completed whose time is over in the iteration in which a task is done: nobody is told of an error",
    program = {
      objects = no_objects,
      main = { { op = "as_completed", items = { { kind = "coro", body = 1 } }, timeout = 0 } },
      bodies = { {} },
    },
  },
  {
    about = "a task cannot enter the context that it runs in",
    program = {
      objects = no_objects,
      main = {
        { op = "copy_context", slot = 1 },
        { op = "spawn", body = 1, context = 1, form = "coro", slot = 1 },
        { op = "sleep", delay = 0.125 },
      },
      bodies = { { { op = "context_run", guard = true, slot = 1, actions = {} } } },
    },
  },
  {
    about = "a task's context is its own while context:run has it in another",
    program = {
      objects = no_objects,
      main = {
        { op = "copy_context", slot = 1 },
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "sleep", delay = 0.125 },
      },
      bodies = {
        {
          { op = "variable_set", slot = 1, value = "x1" },
          { op = "context_run", guard = true, slot = 1, actions = {
            { op = "task_context_get", target = { kind = "task", slot = 1 } },
          } },
        },
      },
    },
  },
  {
    about = "a child of gather that has failed, between a coro and the same coro, has its turn after the coro's first step",
    program = {
      objects = no_objects,
      main = {
        { op = "spawn", body = 1, form = "coro", slot = 1 },
        { op = "turn" },
        { op = "turn" },
        { op = "gather", return_exceptions = false,
          items = { { kind = "coro", body = 2 }, { kind = "task", slot = 1 }, { kind = "same", index = 1 } } },
      },
      bodies = {
        { { op = "raise", form = "string", label = "u1" } },
        { { op = "spawn", body = 3, form = "coro", slot = 2 } },
        {},
      },
    },
  },
}
