-- What the specs of re-entrancy share: what user code may do while something else has control. Each action is done once
-- from within each kind of callback, while tasks of others run and wait; then every task has an outcome, the others
-- were not disturbed, the loop closes, and nothing of it is left.
local agather = require "agather"
local support = require "spec.support"
local busted = require "busted"

local reentry = {}

local refusals = { "cannot wait across", "cannot wait inside a plain coroutine", "no running task", "use it inside a task" }

-- Calls f, which must say that nothing can wait here.
local function refused(what, f, ...)
  local ok, err = pcall(f, ...)
  if ok then error(what .. " was not refused", 0) end
  if not agather.is_error(err, agather.RuntimeError) then error(what .. " raised " .. tostring(err), 0) end
  for _, text in ipairs(refusals) do
    if tostring(err):find(text, 1, true) then return end
  end
  error(what .. " raised " .. tostring(err), 0)
end

-- Everything of the core that waits.
local function every_wait()
  local lock, condition, full = agather.Lock(), agather.Condition(), agather.Queue(1)
  full:put_nowait(1)
  assert(lock:acquire() and condition:acquire()) -- free ones need no wait
  local task = agather.spawn(function() end)
  return {
    sleep = { agather.sleep, 0 },
    ["sleep of a while"] = { agather.sleep, 0.001 },
    await = { agather.await, agather.future() },
    ["await of a task"] = { task.await, task },
    ["await of a function"] = { agather.await, function() end },
    ["await of a gather"] = { agather.await, agather.gather(task) },
    wait = { agather.wait, { task } },
    wait_for = { agather.wait_for, task, 1 },
    get = { agather.Queue().get, agather.Queue() },
    put = { full.put, full, 2 },
    join = { full.join, full },
    event = { agather.Event().wait, agather.Event() },
    semaphore = { agather.Semaphore(0).acquire, agather.Semaphore(0) },
    barrier = { agather.Barrier(2).wait, agather.Barrier(2) },
    lock = { lock.acquire, lock },
    condition = { condition.wait, condition },
    map = { agather.map, function() end, { 1 } },
  }
end

-- In a task of the loop, while it runs. Each has act(world, kind), called from within the callback, and may have
-- after(world, kind), called in the main task when the task of the kind has ended, and finally(world, kind), called when
-- the run has. [stops]: the run ends by it.
reentry.actions = {
  ["runs a main function"] = {
    act = function()
      assert(agather.run(function() agather.sleep(0) return 7 end) == 7)
      local _, err = pcall(agather.run, function() agather.sleep(0) error("in it", 0) end)
      assert(err == "in it" or tostring(err):find("in it", 1, true), err)
    end,
  },
  ["runs a main function in a run"] = {
    act = function()
      local function nested(depth)
        agather.sleep(0)
        return depth == 0 and 1 or 1 + agather.run(nested, depth - 1)
      end
      assert(agather.run(nested, 5) == 6)
    end,
  },
  ["runs another loop"] = {
    act = function()
      local other, runner = agather.new_event_loop(), agather.Runner()
      support.raises("already running", other.run_until_complete, other, function() end)
      support.raises("already running", other.run_forever, other)
      support.raises("cannot be called from a running event loop", runner.run, runner, function() end)
      assert(not other:is_running() and not other:is_closed())
      support.raises("cannot be closed while a loop runs", runner.close, runner)
      other:close()
      assert(other:is_closed())
      runner:get_loop():close()
    end,
  },
  ["closes the loop"] = {
    act = function(world)
      support.raises("Cannot close a running event loop", world.loop.close, world.loop)
      assert(world.loop:is_running() and not world.loop:is_closed())
      support.raises("already running", world.loop.run_until_complete, world.loop, function() end)
      support.raises("already running", world.loop.run_forever, world.loop)
    end,
  },
  ["stops the loop"] = {
    stops = true,
    act = function(world) world.loop:stop() end,
  },
  ["stops the loop and runs a main function"] = {
    stops = true,
    act = function(world)
      world.loop:stop()
      local ok, err = pcall(agather.run, function() agather.sleep(0) end)
      assert(ok or tostring(err):find("stopped before", 1, true) or agather.is_error(err, agather.CancelledError), err)
    end,
  },
  ["cancels a task that waits"] = {
    act = function(world)
      assert(world.waiting:cancel() == true)
      assert(world.asleep:cancel("why") == true)
    end,
    after = function(world)
      agather.sleep(0)
      agather.sleep(0)
      assert(world.waiting:cancelled() and world.asleep:cancelled())
    end,
  },
  ["cancels the task that it is in"] = {
    cancels = true,
    act = function(world) assert(world.subject:cancel() == true) end,
  },
  ["cancels everything but the main task"] = {
    cancels = true,
    act = function(world)
      for _, task in ipairs(agather.all_tasks()) do
        if task ~= world.main and task ~= world.bystander then task:cancel() end
      end
    end,
  },
  ["cancels main"] = {
    stops = true,
    act = function(world) assert(world.main:cancel() == true) end,
  },
  ["spawns a task"] = {
    act = function(world)
      world.spawned = agather.spawn(function() agather.sleep(0) return "spawned" end)
      world.gathered = agather.gather(world.spawned, function() agather.sleep(0) return 2 end)
      assert(not world.spawned:done())
    end,
    after = function(world)
      assert(world.spawned:await() == "spawned")
      assert(world.gathered:await()[2] == 2)
    end,
  },
  ["settles what others wait for"] = {
    act = function(world)
      world.settled:set_result("settled")
      support.raises("invalid state", world.settled.set_result, world.settled, 2)
      world.failed:set_exception("failed")
      world.queue:put_nowait("item")
      world.event:set()
      world.lock:release()
    end,
    after = function(world)
      for name, waiter in pairs(world.waiters) do
        local ok, result = pcall(waiter.await, waiter)
        assert(ok == (name ~= "failed") and (not ok or result == name or result == true), name)
      end
    end,
  },
  ["waits"] = {
    act = function(world, kind)
      if kind.waits then
        agather.sleep(0)
        agather.sleep(0.0001)
        assert(agather.spawn(function() return 3 end):await() == 3)
        return
      end
      for what, call in pairs(every_wait()) do refused(what, table.unpack(call)) end
      assert(world.loop:is_running())
    end,
  },
  ["raises an error"] = {
    raises = true,
    act = function() end,
    finally = function(world, kind)
      local marker = world.marker
      if kind.errors == "reported" then
        local found
        for _, context in ipairs(world.reports) do found = found or agather.error_object(context.exception).value == marker end
        assert(found or world.reports.raised == marker, "the error was not reported")
      elseif kind.errors == "raised" then
        local raised = world.raised
        while type(raised) == "table" and raised ~= marker and rawget(raised, "exceptions") do raised = raised.exceptions[1] end
        if agather.is_error(raised) then raised = raised.value end
        assert(raised == marker, ("the error was not raised but %s"):format(tostring(world.raised)))
      else
        assert(kind.errors == "nobody's" and world.raised == nil, tostring(world.raised))
      end
    end,
  },
  ["collects garbage"] = {
    act = function()
      for _ = 1, 2 do collectgarbage() end
      for _ = 1, 100 do setmetatable({}, { __gc = function() agather.future():cancel() end }) end
      collectgarbage("step")
    end,
  },
  ["yields in a plain coroutine"] = {
    act = function()
      assert(coroutine.wrap(function() coroutine.yield(5) end)() == 5)
      assert(agather.coroutine.wrap(function() agather.coroutine.yield(6) end)() == 6)
      local co = coroutine.create(function() local _ <close> = support.closing(function() end) coroutine.yield() end)
      coroutine.resume(co)
      assert(coroutine.close(co))
    end,
  },
  ["lays hands on the threads of tasks"] = {
    act = function(world)
      for _, task in ipairs { world.main, world.subject, world.waiting } do
        assert(type(task:traceback()) == "string")
        assert(tostring(task):find("Task", 1, true))
      end
      assert(#agather.all_tasks() >= 3)
      support.raises("settled by the loop", getmetatable(world.settled).__index.set_result, world.waiting, 1)
    end,
  },
  ["closes what it is called by"] = {
    act = function(world)
      if world.close then
        world.close()
        world.close()
      end
    end,
    closes = true,
  },
}

-- The tasks of others, which wait for what there is.
local function fill(world)
  world.settled, world.failed, world.queue = agather.future(), agather.future(), agather.Queue()
  world.event, world.lock = agather.Event(), agather.Lock()
  world.lock:acquire()
  world.waiters = {
    settled = agather.spawn(world.settled.await, world.settled),
    failed = agather.spawn(world.failed.await, world.failed),
    item = agather.spawn(world.queue.get, world.queue),
    event = agather.spawn(world.event.wait, world.event),
    lock = agather.spawn(function() local _ <close> = world.lock:acquire() return "lock" end),
  }
  world.waiting = agather.spawn(function() agather.future():await() end)
  world.asleep = agather.spawn(agather.sleep, 3600)
  world.bystander = agather.spawn(function()
    for _ = 1, 20 do agather.sleep(0) end
    agather.sleep(0.0005)
    return "undisturbed"
  end)
end

-- What the kind calls: does the action, once.
local function caller(world, kind, action)
  return function(...)
    world.calls = world.calls + 1
    if world.calls > 1 then return ... end
    local ok, problem = pcall(action.act, world, kind)
    if not ok and not (kind.waits and agather.is_error(problem, agather.CancelledError)) then world.problem = problem end
    if action.raises then error(world.marker, 0) end
    return ...
  end
end

local function check(ok, text) if not ok then error(text, 0) end end

-- The kind in a task, its outcome and what must hold then.
local function main(world, kind, action)
  world.main, world.loop = agather.current_task(), agather.get_running_loop()
  world.loop:set_exception_handler(function(context) world.reports[#world.reports + 1] = context end)
  fill(world)
  world.tasks = agather.all_tasks()
  agather.sleep(0)
  local call = caller(world, kind, action)
  world.subject = agather.spawn(function()
    local results = table.pack(pcall(kind.run, call, world))
    if not results[1] then
      world.raised = results[2]
      if agather.is_error(world.raised, agather.CancelledError) then error(world.raised, 0) end
    end
    agather.sleep(0)
  end)
  world.tasks[#world.tasks + 1] = world.subject
  agather.wait { world.subject }
  agather.sleep(0)
  check(world.calls > 0, "the callback was not called")
  check(not world.problem, world.problem)
  if action.cancels and not kind.elsewhere then check(world.subject:cancelled(), "the task was not cancelled") end
  if action.after then action.after(world, kind) end
  check(action.raises or action.closes or action.cancels or not world.raised, world.raised)
  check(world.bystander:await() == "undisturbed", "another task was disturbed")
end

-- Does one action in one kind of callback.
local function cell(kind, action)
  local world = { calls = 0, reports = {}, marker = setmetatable({}, { __tostring = function() return "marker" end }) }
  local ok, err = pcall(agather.run, main, world, kind, action)
  if action.stops then
    check(not ok, "the run was not stopped")
    check(agather.is_error(err, agather.CancelledError) or tostring(err):find("stopped before Future completed", 1, true), err)
    check(world.calls > 0, "the callback was not called")
    check(not world.problem, world.problem)
  else
    check(ok, err)
  end
  if action.finally then action.finally(world, kind) end
  check(world.loop:is_closed() and not world.loop:is_running(), "the loop is not closed")
  check(not pcall(agather.get_running_loop), "a loop runs still")
  for _, task in ipairs(world.tasks) do check(task:done(), "without an outcome: " .. tostring(task)) end
  for _, context in ipairs(world.reports) do
    local exception = context.exception and agather.error_object(context.exception).value
    check(action.raises and exception == world.marker or kind.reports, tostring(context.message) .. ": " .. tostring(exception))
  end
  check(agather.run(function() agather.sleep(0) return 1 end) == 1, "the next run failed")
  return world
end

--- Declares a spec for each action in this kind of callback. kind.run(call, world) has call called by the library.
function reentry.kind(kind)
  local kept = setmetatable({}, { __mode = "k" })
  busted.describe(kind[1], function()
    local names = {}
    for name in pairs(reentry.actions) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      busted.it("that " .. name, function() kept[cell(kind, reentry.actions[name])] = name end)
    end

    busted.it("leaves nothing behind", function()
      for _ = 1, 3 do collectgarbage() end
      local left = {}
      for _, name in pairs(kept) do left[#left + 1] = name end
      table.sort(left)
      check(#left == 0, "is kept alive: " .. table.concat(left, ", "))
    end)
  end)
end

return reentry
