-- Tasks, futures, loops, contexts, generators and what puts tasks together, for torture.c: errors of its own are caught,
-- so that only memory can end it. With an argument it runs as a task of a host's loop (spec/embed/torture_host.c), whose
-- clock is the real one: the argument is what a second takes.
local agather = require "agather"
local second = ... or 1

local function see() end -- its arguments are what is used

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

-- What is asked of tasks and futures, and all that can become of them.
local function futures()
  local loop = agather.get_running_loop()
  local task = agather.create_task(agather.async(function(seconds) agather.sleep(seconds) end, "named")(second),
    { name = "worker", context = agather.copy_context() })
  task:set_name(task:get_name() .. " 1")
  see(tostring(task), task:get_coro(), task:get_context(), task:get_loop())
  agather.sleep(0)
  task:traceback()
  task:cancel("why")
  task:uncancel()
  see(task:cancelling())
  pcall(task.await, task)
  see(task:done(), task:cancelled(), agather.all_tasks(), agather.current_task())
  local failed = agather.spawn(function() error({ "wrong" }) end)
  agather.pcall(agather.await, failed)
  agather.xpcall(agather.await, function(err) return err end, failed)
  see(agather.is_error(failed:exception(), agather.Error), tostring(failed:exception()))
  pcall(failed.result, failed)
  local future = loop:create_future()
  local function callback() end
  future:add_done_callback(callback)
  future:remove_done_callback(callback)
  agather.ensure_future(future)
  future:set_exception(agather.Error("wrong"))
  pcall(future.await, future)
  see(tostring(future), future:get_loop(), agather.is_awaitable(future), future:done(), future:cancelled())
  local answered = agather.future()
  answered:set_result(1, 2, 3, 4)
  see(answered:exception(), answered:result())
  pcall(answered.set_result, answered)
  agather.future():cancel()
  agather.future():set_exception(agather.Error:subclass("Own")("nobody asks", { field = 1 }))
  local coro = agather.async(function() end)()
  see(tostring(coro))
  coro:close()
  local used = agather.async(function() agather.sleep(0) end)()
  used:await()
  see(tostring(used))
  pcall(used.await, used)
  used:close()
  pcall(error, agather.error_object("plain"))
end

-- A loop within a task, as far as that goes, and what can be asked of the loop.
local function loops()
  local loop = agather.get_running_loop()
  local handle = loop:call_soon(function() error("in a callback") end)
  see(tostring(handle), handle:when())
  local timer = loop:call_at(loop:time() + second, function() end)
  timer:cancel()
  see(timer:cancelled(), timer:when(), tostring(timer), tostring(loop), loop:is_running(), loop:is_closed())
  agather.sleep(0)
  loop:call_exception_handler({ message = "told" })
  loop:set_debug(not loop:get_debug())
  loop:create_task(function() agather.sleep(0) end, { name = "of the loop" }):await()
  loop:set_debug(not loop:get_debug())
  agather.run(function() agather.sleep(0) end)
  see(agather.isatty(1))
  agather.companion("no such module", function() end)
end

-- Loops of their own, for which no other may run.
local function own_loops()
  local loop = agather.new_event_loop()
  local _ <close> = closing(function() loop:close() end)
  loop:set_exception_handler(function() end)
  loop:run_until_complete(agather.async(agather.sleep)(0))
  loop:call_soon(function() loop:stop() end)
  loop:run_forever()
  see(tostring(loop), loop:is_running(), loop:is_closed())
  local left = loop:create_task(function() agather.sleep(100) end)
  loop:run_until_complete(function() agather.sleep(0) end)
  loop:close()
  see(left:cancelled())
  local runner = agather.Runner { clock = "virtual" }
  runner:get_loop():set_exception_handler(function() end)
  runner:run(agather.sleep, 1)
  pcall(runner.run, runner, function() error("wrong") end)
  runner:close()
  agather.testing.run(function() agather.sleep(1) end)
  agather.testing.async(function() agather.sleep(1) end)()
end

local function contexts()
  local variable = agather.ContextVar("variable", 1)
  see(tostring(variable), variable:name(), variable:get())
  local token = variable:set(2)
  variable:reset(token)
  local context = agather.copy_context()
  context:run(function() variable:set(4) end)
  see(context:copy():get(variable))
end

local function more_generators()
  local coroutines = agather.coroutine
  local co
  co = coroutines.create(function(...)
    see(coroutines.isyieldable(), coroutines.running())
    agather.sleep(0)
    coroutines.yield(...)
    error("in a generator")
  end)
  coroutines.resume(co, 1, 2)
  see(coroutines.status(co))
  coroutines.resume(co)
  coroutines.close(co)
end

local function main()
  gathers()
  scopes()
  synchronization()
  generators()
  tasks()
  futures()
  loops()
  contexts()
  more_generators()
end

if ... then return main() end
local _ = agather.testing -- loads here
return { clock = "virtual", run = main, alone = own_loops }
