-- Tasks without the world outside: combinators, locks, queues, groups, generators, timeouts, contexts, errors.
local agather = require "agather"
local engine = require "spec.soak.engine"

local equal, raises = engine.equal, engine.raises

local function add_up(list)
  local sum = 0
  for place = 1, list.n or #list do sum = sum + list[place] end
  return sum
end

local function gathers(soak, random)
  soak:every(20, "gather keeps the order of a hundred", function()
    local jobs = {}
    for place = 1, 100 do
      jobs[place] = function()
        agather.sleep(random() * 0.005)
        return place
      end
    end
    local results = agather.gather_list(jobs):await()
    for place = 1, 100 do equal(place, results[place]) end
  end)
  soak:every(10, "gather that fails cancels the others", function()
    local ended = 0
    local function waits()
      local _ <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
      agather.sleep(100)
    end
    local err = raises(nil, function()
      agather.gather(waits, waits, function()
        agather.sleep(0.001)
        error(agather.Error("on purpose"))
      end, { cancel_on_error = true }):await()
    end)
    assert(tostring(err):find("on purpose", 1, true))
    equal(2, ended)
  end)
  soak:every(10, "gather is cancelled", function()
    assert(engine.cancelled(random() * 0.01, function()
      agather.gather(function() agather.sleep(100) end, agather.async(agather.sleep)(100), agather.future()):await()
    end))
  end)
  soak:every(5, "map runs a few at a time", function()
    local now, most = 0, 0
    local results = agather.map(function(item)
      now = now + 1
      most = math.max(most, now)
      agather.sleep(random() * 0.002)
      now = now - 1
      return item * 2
    end, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, { limit = 3 })
    if agather.is_awaitable(results) then results = results:await() end
    equal(110, add_up(results))
    assert(most <= 3)
  end)
  soak:every(5, "as_completed, wait and shield", function()
    local tasks = {}
    for place = 1, 5 do tasks[place] = agather.spawn(agather.sleep, random() * 0.01, place) end
    local sum = 0
    for task in agather.as_completed(tasks) do sum = sum + task:await() end
    equal(15, sum)
    local slow, quick = agather.spawn(agather.sleep, 100), agather.spawn(agather.sleep, 0.001)
    local done, pending = agather.wait({ slow, quick }, { return_when = agather.FIRST_COMPLETED })
    assert(done[1] == quick and pending[1] == slow)
    local shielded = agather.shield(slow)
    shielded:cancel()
    raises(agather.CancelledError, shielded.await, shielded)
    assert(not slow:done())
    slow:cancel()
    raises(agather.CancelledError, slow.await, slow)
  end)
end

local function scopes(soak, random)
  soak:every(10, "a group waits for all and raises what failed", function()
    local sum = 0
    do
      local group <close> = agather.TaskGroup()
      for place = 1, 10 do
        group:spawn(function()
          agather.sleep(random() * 0.005)
          sum = sum + place
        end)
      end
    end
    equal(55, sum)
    local err = raises(agather.ExceptionGroup, function()
      local group <close> = agather.TaskGroup()
      group:spawn(agather.sleep, 100)
      group:spawn(error, agather.Error("on purpose"))
      group:spawn(error, "on purpose")
    end)
    assert(#err.exceptions >= 1)
  end)
  soak:every(20, "timeouts end what waits", function()
    raises(agather.TimeoutError, function()
      local _ <close> = agather.timeout(random() * 0.01)
      agather.sleep(100)
    end)
    raises(agather.TimeoutError, agather.wait_for, agather.async(agather.sleep)(100), 0.002)
    local scope <close> = agather.timeout(100)
    scope:reschedule(agather.get_running_loop():time() + 50)
    agather.sleep(0)
  end)
  soak:every(10, "contexts stay with their tasks", function()
    local variable = agather.ContextVar("soak", 0)
    local token = variable:set(1)
    local task = agather.spawn(function()
      variable:set(variable:get() + 1)
      agather.sleep(0.001)
      return variable:get()
    end)
    variable:set(7)
    equal(2, task:await())
    equal(7, variable:get())
    variable:reset(token)
  end)
  soak:every(5, "handles and futures", function()
    local loop, called = agather.get_running_loop(), 0
    local future = agather.future()
    for place = 1, 20 do
      local handle = loop:call_later(place % 2 == 0 and 100 or random() * 0.005, function()
        called = called + 1
        if called == 10 then future:set_result("all") end
      end)
      if place % 2 == 0 then handle:cancel() end
    end
    equal("all", future:await())
  end)
end

local function generators(soak, random)
  soak:every(10, "a generator waits between its values", function()
    local next_value = agather.coroutine.wrap(function()
      for place = 1, 20 do
        if random(4) == 1 then agather.sleep(0) end
        agather.coroutine.yield(place)
      end
    end)
    local sum = 0
    for place in next_value do sum = sum + place end
    equal(210, sum)
    local left = agather.coroutine.wrap(function()
      local _ <close> = setmetatable({}, { __close = function() end })
      agather.coroutine.yield(1)
    end)
    equal(1, left()) -- and is left where it stands
  end)
  soak:every(5, "a chain of awaits, and its error", function()
    local function deep(level)
      if level == 0 then
        agather.sleep(0)
        error(agather.Error("on purpose"), 0)
      end
      return agather.await(agather.async(deep)(level - 1))
    end
    raises(agather.Error, deep, 30)
  end)
  soak:every(5, "an error that nobody asks for is reported", function()
    local before = soak.expected_reports
    agather.spawn(error, agather.Error("on purpose: nobody asks"))
    agather.sleep(0.001)
    local deadline = 20
    repeat
      collectgarbage()
      agather.sleep(0.001)
      deadline = deadline - 1
    until soak.expected_reports > before or deadline == 0
    assert(soak.expected_reports > before, "the error was not reported")
  end)
end

local function queues(soak, random)
  soak:every(10, "a queue loses nothing though getters are cancelled", function()
    local queue, sum, getters = agather.Queue(3), 0, {}
    for place = 1, 6 do
      getters[place] = agather.spawn(function()
        for item in queue:items() do
          sum = sum + item
          if random(3) == 1 then agather.sleep(0) end
        end
      end)
    end
    local expected = 0
    for item = 1, 60 do
      if item % 20 == 0 then getters[item // 20]:cancel() end
      expected = expected + item
      queue:put(item)
    end
    queue:shutdown()
    for _, getter in ipairs(getters) do pcall(getter.await, getter) end
    equal(expected, sum)
  end)
  soak:every(5, "heaps and stacks give their items in order", function()
    local heap, stack, last = agather.PriorityQueue(), agather.LifoQueue(), -1
    for place = 1, 50 do
      heap:put(random(1000))
      stack:put(place)
    end
    for place = 50, 1, -1 do
      local item = heap:get()
      assert(item >= last)
      last = item
      equal(place, stack:get())
    end
    raises(agather.QueueEmpty, heap.get_nowait, heap)
  end)
end

local function locks(soak, random)
  soak:every(10, "one task at a time holds a lock, though waiters are cancelled", function()
    local lock, inside, passed, tasks = agather.Lock(), 0, 0, {}
    for place = 1, 10 do
      tasks[place] = agather.spawn(function()
        local _ <close> = lock:acquire()
        inside = inside + 1
        equal(1, inside)
        agather.sleep(random() * 0.001)
        inside = inside - 1
        passed = passed + 1
      end)
    end
    agather.sleep(0)
    tasks[5]:cancel()
    tasks[7]:cancel()
    for _, task in ipairs(tasks) do pcall(task.await, task) end
    equal(8, passed)
    assert(not lock:locked())
  end)
  soak:every(5, "semaphores, conditions, events and barriers", function()
    local semaphore, condition, event, barrier = agather.BoundedSemaphore(2), agather.Condition(), agather.Event(),
      agather.Barrier(3)
    local woken = 0
    local function takes_part()
      event:wait()
      do
        local _ <close> = semaphore:acquire()
        agather.sleep(random() * 0.001)
      end
      do
        local _ <close> = condition:acquire()
        woken = woken + 1
        condition:notify_all()
        condition:wait_for(function() return woken == 3 end)
      end
      return barrier:wait()
    end
    local group = agather.gather(takes_part, takes_part, takes_part)
    event:set()
    equal(3, add_up(group:await()))
    raises(agather.TimeoutError, function()
      local _ <close> = agather.timeout(0.001)
      barrier:wait()
    end)
  end)
end

return {
  name = "tasks",
  start = function(soak)
    local random = engine.random(11)
    gathers(soak, random)
    scopes(soak, random)
    generators(soak, random)
    queues(soak, random)
    locks(soak, random)
  end,
}
