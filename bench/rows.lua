-- What is measured: the rows of the table "Figures to reach" of the design, and what stands beside them.
--
-- A row has metrics, each a line of the table: the key that a peer prints, its unit, and the bound that agather must
-- keep, if any:
--   { factor = 0.5, of = "bare" }                      at most so many times the peer's figure of the same row
--   { factor = 2, of = "bare", row = "yield_100k" }    or of another row, of the same metric
--   { limit = 3 }                                      at most this
--   { factor = 1, of = { "luv", "uvloop" } }           no worse than the best of these
-- "runs" is how often a process does the work, where one time takes so short that whatever else the machine does then
-- would be most of the figure; "is_short" says that a bound may have more rounds. "%s" in a title is the count; "quick"
-- is the count with --quick: without one the row is left out then.

local nanoseconds = "nanoseconds_per_unit"

local function tasks(name, title, unit, work, count, quick, bound, runs)
  return {
    name = name, title = title, kind = "tasks", work = work, count = count, quick = quick, runs = runs,
    is_short = bound ~= nil,
    metrics = { { key = nanoseconds, unit = "ns per " .. unit, bound = bound } },
  }
end

local function server(name, title)
  local best = { factor = 1, of = { "luv", "uvloop" } }
  return {
    name = name, title = title, kind = "server", work = name, count = 50, quick = 50,
    metrics = {
      { key = "requests_per_second", unit = "requests/s", more_is_better = true, bound = best },
      { key = "server_nanoseconds_per_request", unit = "ns of server's CPU", bound = best },
    },
  }
end

local function memory(name, title, bound)
  return {
    name = name, title = title, kind = "tasks", work = name, count = 100000, quick = 30000,
    metrics = { { key = "bytes_per_task", unit = "bytes", bound = bound } },
  }
end

local function million(name, title, except, seconds, gigabytes)
  return {
    name = name, title = title, kind = "process", work = name, count = 1000000,
    except = except,
    metrics = {
      { key = "wall_seconds", unit = "s", bound = seconds and { limit = seconds } },
      { key = "peak_bytes", unit = "GB", scale = 1e-9, bound = gigabytes and { limit = gigabytes } },
    },
  }
end

local rows = {
  tasks("spawn_1k", "spawn + gather, %s short tasks", "task", "spawn", 1000, 1000),
  tasks("spawn_10k", "spawn + gather, %s", "task", "spawn", 10000, 10000),
  tasks("spawn_100k", "spawn + gather, %s", "task", "spawn", 100000, 30000, { factor = 0.5, of = "bare" }),
  tasks("spawn_1m", "spawn + gather, %s", "task", "spawn", 1000000),
  tasks("gather_100k", "gather of coroutine objects, %s", "task", "gather", 100000, 10000),
  tasks("yield_100k", "spawn + gather, each yields once, %s", "task", "yield", 100000, 10000,
    { factor = 0.8, of = "bare" }),
  tasks("sleep_100k", "each sleeps 10 ms, %s", "task", "sleep", 100000, 30000,
    { factor = 2, of = "bare", row = "yield_100k" }),
  tasks("switch", "switch: sleep(0), 100 tasks in turn", "switch", "switch", 300000, 30000,
    { factor = 0.9, of = "bare" }, 15),
  tasks("alone", "one task alone: sleep(0)", "turn", "alone", 300000, 30000, nil, 15),
  tasks("cancel_100k", "cancel %s sleeping tasks", "task", "cancel", 100000, 5000),
  tasks("queue", "queue of 100, put and get", "item", "queue", 300000, 30000),
  tasks("lock", "lock handed over among 100 tasks", "hand-over", "lock", 100000, 10000),
  tasks("chain_10k", "create and await, %s deep", "level", "chain", 10000, 10000),
  memory("memory", "memory of a sleeping task, %s", { factor = 1.15, of = "bare" }),
  memory("memory_function", "of a task whose function sleeps, %s"),
  -- Bare coroutines do not sleep; where a sleep is not a task by itself, there is only the row of functions.
  million("million", "a million tasks sleep 1 s, whole process",
    { bare = true, cqueues = true, luv = true, go1 = true, go2 = true }, 3, 1.4),
  million("million_functions", "a million whose functions sleep 1 s", { bare = true }),
  {
    name = "startup", title = "loading it, over the plain program", kind = "startup", count = 40, quick = 10,
    metrics = { { key = "more_seconds", unit = "ms", scale = 1e3 } },
  },
  server("echo", "TCP echo of 1 KiB, 50 connections"),
  server("http", "HTTP hello world, 50 connections"),
  {
    name = "client", title = "HTTP client, %s requests to nginx, 100 at once", kind = "client", count = 10000,
    quick = 1000,
    metrics = {
      { key = "requests_per_cpu_second", unit = "requests per s of CPU", more_is_better = true,
        bound = { factor = 1, of = { "node", "aiohttp", "httpx" } } },
      { key = "requests_per_second", unit = "requests/s", more_is_better = true },
    },
  },
}

return rows
