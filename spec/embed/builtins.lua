-- Uses every builtin of the core, for torture.c: errors of its own are caught, so that only memory can end it.
-- With an argument it runs as a task of a host's loop, whose clock is the real one: the argument is what a second takes.
local agather = require "agather"
local second = ... or 1

local function closing(f) return setmetatable({}, { __close = f }) end

local function gathers()
  local job = agather.async(function(seconds)
    agather.sleep(seconds)
    return seconds
  end)
  agather.gather(job(second), job(2 * second), function() error("wrong") end, { return_exceptions = true }):await()
  local group = agather.gather(agather.spawn(agather.sleep, 9 * second), agather.spawn(agather.sleep, 8 * second))
  group:cancel("why")
  pcall(group.await, group)
  agather.gather_list({ function() return 1 end, function() agather.sleep(second) end }, { limit = 1 }):await()
  agather.map(function(seconds) agather.sleep(seconds) end, { second, 2 * second, 3 * second }, { limit = 2 })
  agather.wait({ agather.spawn(agather.sleep, second), agather.spawn(agather.sleep, 2 * second) }, { timeout = second })
  local sleepers = { agather.spawn(agather.sleep, second), agather.spawn(agather.sleep, 2 * second) }
  for task in agather.as_completed(sleepers) do task:await() end
end

local function scopes()
  pcall(function()
    local _ <close> = agather.timeout(second)
    agather.sleep(5 * second)
  end)
  pcall(function()
    local tasks <close> = agather.TaskGroup()
    tasks:spawn(function() error("wrong") end)
    tasks:spawn(agather.sleep, 3 * second)
  end)
  pcall(agather.wait_for, function() agather.sleep(5 * second) end, second)
  pcall(agather.await, agather.shield(agather.spawn(agather.sleep, second)))
end

local function synchronization()
  local lock, queue, condition = agather.Lock(), agather.Queue(2), agather.Condition()
  agather.spawn(function()
    for item = 1, 5 do queue:put(item) end
    queue:shutdown()
  end)
  for _ in queue:items() do agather.sleep(0) end
  local holder = agather.spawn(function()
    local _ <close> = lock:acquire()
    agather.sleep(5 * second)
  end)
  agather.sleep(0)
  holder:cancel("why")
  pcall(holder.await, holder)
  local waiter = agather.spawn(function()
    local _ <close> = condition:acquire()
    condition:wait()
  end)
  agather.sleep(0)
  do
    local _ <close> = condition:acquire()
    condition:notify()
  end
  pcall(waiter.await, waiter)
  local barrier = agather.Barrier(2)
  pcall(function() agather.gather(function() barrier:wait() end, function() barrier:wait() end):await() end)
  local heap = agather.PriorityQueue()
  for item = 1, 20 do heap:put_nowait(-item) end
  for _ = 1, 20 do heap:get_nowait() end
end

local function generators()
  local coroutines = agather.coroutine
  local numbers = coroutines.wrap(function()
    for number = 1, 3 do
      agather.sleep(second)
      coroutines.yield(number)
    end
  end)
  for _ in numbers do agather.sleep(0) end
  local generator = coroutines.create(function()
    local _ <close> = closing(function() agather.sleep(second) end)
    coroutines.yield(1)
  end)
  coroutines.resume(generator)
  coroutines.close(generator)
end

local function tasks()
  local variable = agather.ContextVar("variable", 1)
  variable:set(2)
  agather.spawn(function() variable:set(3) end):await()
  local deep
  deep = agather.async(function(levels)
    if levels > 0 then return agather.await(deep(levels - 1)) end
    agather.sleep(second)
    error("bottom")
  end)
  pcall(agather.await, deep(40))
  agather.create_task(function() agather.sleep(second) end, { eager_start = true, name = "eager" }):await()
  local stray = agather.spawn(function() coroutine.yield(5) end)
  pcall(stray.await, stray)
  local future = agather.future()
  future:add_done_callback(function() end)
  agather.get_running_loop():call_later(second, function() future:set_result(1, 2, 3) end)
  future:await()
  local loop = agather.get_running_loop()
  agather.from_callback(function(done) loop:call_later(second, done, 1) end):await()
  pcall(agather.wait_for, agather.from_callback(function(_, fail)
    local handle = loop:call_later(10 * second, fail, "late")
    return function() handle:cancel() end
  end), second)
  agather.spawn(function() error("never asked for") end)
  deep(3)
  agather.spawn(function()
    while true do agather.sleep(3600) end
  end)
end

local function main()
  gathers()
  scopes()
  synchronization()
  generators()
  tasks()
end

if ... then return main() end
local runner <close> = agather.Runner { clock = "virtual" }
runner:get_loop():set_exception_handler(function() end)
runner:run(main)
