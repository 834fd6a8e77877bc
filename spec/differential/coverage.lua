-- What the random programs reach: which builtins their statements call, and how often each statement ended in which
-- way. Runs agather's side only, in a process of its own, for it wraps every builtin:
--   lua5.4 spec/differential/coverage.lua [COUNT [SEED]]
-- Prints the statements with their counts, then what no program reached, and fails if there is anything.
-- A new builtin without I/O must appear in a statement (statements.lua and both interpreters), or below with a reason.
local agather = require "agather"
local generator = require "spec.differential.generator"

-- Builtins that no program reaches, and why.
local left_out = {
  ["agather.run"] = "its clock is real: run_spec",
  ["agather.new_event_loop"] = "its clock is real: loop_spec",
  ["agather.error_object"] = "asyncio's errors are objects",
  ["agather.map"] = "asyncio has none: map_spec",
  ["agather.from_callback"] = "asyncio has none: callback_spec",
  ["agather.companion"] = "asyncio has none: companion_spec",
  ["agather.isatty"] = "no matter of tasks",
  ["agather.coroutine.isyieldable"] = "asyncio has none: generator_spec",
  ["Runner.get_loop"] = "run_spec",
  ["Loop.set_debug"] = "what debugging shows is no part of a trace",
  ["Task.get_coro"] = "a task is its own coro",
  ["Task.traceback"] = "no two languages agree on it",
  ["ContextVar.name"] = "no matter of tasks",
}

-- Statements that may wait: each must have waited and ended, and must have been cancelled while it waited.
local waits = {
  "as_completed", "await", "await_shield", "barrier_wait", "condition", "condition_acquire",
  "condition_wait", "condition_wait_for", "event_wait", "finally", "gather", "generator_close", "generator_iterate",
  "generator_next", "group", "lock", "lock_acquire", "queue_get", "queue_items", "queue_join", "queue_put", "repeat",
  "semaphore", "semaphore_acquire", "sleep", "timeout", "try", "turn", "wait", "wait_for",
}

-- ---- the builtins ----

local counts = {} -- builtin -> calls by statements

-- Names "Owner.function" of what a file documents.
local function add_names(path, owners)
  for line in io.lines(path) do
    local owner, name = line:match("^function ([%w_.]+)[.:]([%w_]+)%(")
    owner = owners[owner] or owner
    if owner and owner ~= "Job" then counts[owner .. "." .. name] = 0 end
  end
end

add_names("lua/agather/meta.lua", {})
for _, file in ipairs { "wait", "timeout", "group", "barrier", "map", "callback" } do
  add_names("lua/agather/" .. file .. ".lua", { module = "agather" })
end
for name in pairs(counts) do -- metamethods are no names that a script calls
  if name:find("__", 1, true) then counts[name] = nil end
end

local function called_by_statement()
  local caller = debug.getinfo(3, "S")
  return caller.what == "C" or caller.short_src:find("spec/differential/", 1, true) ~= nil
end

-- Lets the functions in a table count their calls.
local function watch(functions, owner)
  for name, f in pairs(functions) do
    local key = owner .. "." .. name
    if type(f) == "function" and (counts[key] or owner == "Task" and counts["Future." .. name]) then
      counts[key] = counts[key] or 0 -- what tasks have of futures counts on its own
      functions[name] = function(...)
        if called_by_statement() then counts[key] = counts[key] + 1 end
        return f(...)
      end
    end
  end
end

local function watch_all()
  local objects = {}
  local runner <close> = agather.Runner { clock = "virtual" }
  runner:run(function()
    local loop = agather.get_running_loop()
    objects = {
      Runner = runner, Loop = loop, Handle = loop:call_soon(function() end), Future = agather.future(),
      Task = agather.current_task(), Coroutine = agather.async(function() end)(), Queue = agather.Queue(),
      Lock = agather.Lock(), Event = agather.Event(), Semaphore = agather.Semaphore(), Condition = agather.Condition(),
      ContextVar = agather.ContextVar("x"), Context = agather.copy_context(), Barrier = agather.Barrier(1),
      TaskGroup = agather.TaskGroup(), Timeout = agather.timeout(nil),
    }
    objects.Coroutine:close()
    for owner, object in pairs(objects) do
      local methods = getmetatable(object).__index
      if owner ~= "Coroutine" then watch(methods, owner) end
    end
  end)
  local coro = getmetatable(objects.Coroutine).__index
  watch(coro, "Coroutine")
  for _, name in ipairs { "wait", "timeout", "timeout_at", "wait_for", "as_completed", "shield", "TaskGroup", "Barrier",
    "map", "from_callback" } do
    assert(agather[name], name) -- loads it
  end
  watch(agather.coroutine, "agather.coroutine")
  watch(agather, "agather")
end

-- ---- running ----

local count, seed = tonumber(arg[1]) or 1000, tonumber(arg[2]) or 1
watch_all()
local interpreter = require "spec.differential.interpreter"
local features = generator.features(agather)
local ways = {} -- op -> way it ended -> times
for this = seed, seed + count - 1 do interpreter.run(generator.program(this, features), ways) end

local ops = {}
for op in pairs(ways) do ops[#ops + 1] = op end
table.sort(ops)
for _, op in ipairs(ops) do
  local parts, total = {}, 0
  for way, times in pairs(ways[op]) do
    parts[#parts + 1] = ("%s %d"):format(way, times)
    total = total + times
  end
  table.sort(parts)
  print(("%-20s %7d: %s"):format(op, total, table.concat(parts, ", ")))
end

local missing = {}
local function miss(...) missing[#missing + 1] = (...):format(select(2, ...)) end
for name, times in pairs(counts) do
  if times == 0 and not left_out[name] then miss("no statement calls %s", name) end
end
for name in pairs(left_out) do
  if not counts[name] then miss("%s, which coverage.lua leaves out, is no builtin", name) end
  if (counts[name] or 0) > 0 then miss("%s is reached: coverage.lua need not leave it out", name) end
end
for op in pairs(interpreter.statements) do
  if not ways[op] then miss("no program has the statement %s", op) end
end
for _, op in ipairs(waits) do
  for _, way in ipairs { "ends after a wait", "CancelledError after a wait" } do
    if not (ways[op] or {})[way] then miss("%s never %s", op, way) end
  end
end
table.sort(missing)
for _, text in ipairs(missing) do print(text) end
os.exit(#missing == 0, true)
