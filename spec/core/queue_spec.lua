local agather = require "agather"
local support = require "spec.support"
local it = require("agather.testing").it

local raises, turns = support.raises, support.turns
local plain_it = _ENV.it

local kinds = { "Queue", "LifoQueue", "PriorityQueue" }

local function now() return agather.get_running_loop():time() end

-- f(...) must raise an error of this class; returns it.
local function fails_with(class, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, class), "another error: " .. tostring(err))
  return err
end

-- Starts f(...) as a task and lets it come to its first wait.
local function start(f, ...)
  local task = agather.spawn(f, ...)
  agather.sleep(0)
  return task
end

local function assert_cancelled(task)
  fails_with(agather.CancelledError, task.await, task)
  assert.is_true(task:cancelled())
end

local function put_all(queue, items)
  for _, item in ipairs(items) do queue:put_nowait(item) end
end

-- All items, taken out without waiting.
local function drain(queue)
  local items = {}
  while not queue:empty() do items[#items + 1] = queue:get_nowait() end
  return items
end

local function assert_shut(queue)
  fails_with(agather.QueueShutDown, queue.put, queue, "item")
  fails_with(agather.QueueShutDown, queue.put_nowait, queue, "item")
  fails_with(agather.QueueShutDown, queue.get, queue)
  fails_with(agather.QueueShutDown, queue.get_nowait, queue)
end

for _, kind in ipairs(kinds) do
  describe(kind, function()
    local function new(...) return agather[kind](...) end

    plain_it("is empty and not full when it is new, outside a loop too", function()
      local queue = new()
      assert.is_true(queue:empty())
      assert.is_false(queue:full())
      assert.equal(0, queue:qsize())
      assert.equal(0, queue:maxsize())
    end)

    plain_it("takes and gives items without a loop while nobody has to wait", function()
      local queue = new(1)
      queue:put("item")
      assert.is_true(queue:full())
      assert.equal("item", queue:get())
      assert.is_true(queue:empty())
      queue:task_done()
      queue:join()
    end)

    plain_it("tells that waiting takes a task", function()
      local queue = new(1)
      raises("Queue.get: no running task", queue.get, queue)
      queue:put(1)
      raises("Queue.put: no running task", queue.put, queue, 2)
      raises("Queue.join: no running task", queue.join, queue)
      raises("Queue.get: no running task", function()
        for _ in queue:items() do end
      end)
    end)

    plain_it("takes a whole number as its size", function()
      raises("number has no integer representation", agather[kind], 1.3)
      raises("number expected, got string", agather[kind], "big")
      assert.equal(2, new(2.0):maxsize())
    end)

    plain_it("shows its size, its items and whether it was shut down", function()
      local queue = new(3)
      queue:put_nowait(1)
      assert.equal("<" .. kind .. " maxsize=3 items=1>", tostring(queue))
      queue:shutdown()
      assert.equal("<" .. kind .. " maxsize=3 items=1 shutdown>", tostring(queue))
    end)

    it("names what was given in its place", function()
      local queue = new()
      local methods = {
        "put", "get", "put_nowait", "get_nowait", "items", "task_done", "join", "shutdown", "qsize", "empty", "full",
        "maxsize",
      }
      for _, method in ipairs(methods) do
        raises("Queue expected, got Lock", queue[method], agather.Lock())
        raises("Queue expected, got no value", queue[method])
      end
    end)

    it("refuses nil as an item", function()
      local queue = new()
      raises("item expected, got nil", queue.put, queue, nil)
      raises("item expected, got nil", queue.put, queue)
      raises("item expected, got nil", queue.put_nowait, queue, nil)
      assert.equal(0, queue:qsize())
      queue:join()
    end)

    it("has no limit when its size is zero or negative", function()
      for _, size in ipairs { 0, -1 } do
        local queue = new(size)
        for i = 1, 1000 do queue:put_nowait(i) end
        assert.is_false(queue:full())
        assert.equal(1000, queue:qsize())
      end
    end)

    it("is full with as many items as its size", function()
      local queue = new(2)
      queue:put_nowait(1)
      assert.is_false(queue:full())
      queue:put_nowait(2)
      assert.is_true(queue:full())
      assert.equal(2, queue:maxsize())
      queue:get_nowait()
      assert.is_false(queue:full())
      assert.equal(1, queue:qsize())
    end)

    it("raises QueueEmpty and QueueFull instead of waiting", function()
      local queue = new(1)
      fails_with(agather.QueueEmpty, queue.get_nowait, queue)
      raises("the queue is empty", queue.get_nowait, queue)
      queue:put_nowait(1)
      fails_with(agather.QueueFull, queue.put_nowait, queue, 2)
      raises("the queue is full (1 items)", queue.put_nowait, queue, 2)
      assert.equal(1, queue:qsize())
      assert.equal(1, queue:get_nowait())
    end)

    it("takes no turn of the loop when nobody has to wait", function()
      local queue, log = new(), {}
      agather.spawn(function() log[#log + 1] = "other" end)
      queue:put(1)
      queue:get()
      log[#log + 1] = "got"
      agather.sleep(0)
      assert.same({ "got", "other" }, log)
    end)

    it("makes a putter wait while it is full", function()
      local queue, put = new(2), {}
      local task = start(function()
        for i = 1, 3 do
          queue:put(i)
          put[#put + 1] = i
        end
      end)
      turns(3)
      assert.same({ 1, 2 }, put)
      queue:get()
      agather.sleep(0)
      assert.same({ 1, 2, 3 }, put)
      assert.is_true(task:done())
      assert.equal(2, queue:qsize())
    end)

    it("makes a getter wait while it is empty", function()
      local queue = new()
      local task = start(queue.get, queue)
      agather.get_running_loop():call_later(2, queue.put_nowait, queue, "item")
      assert.equal("item", task:await())
      assert.equal(2, now())
      assert.is_true(queue:empty())
    end)

    it("shows in the tasks that wait for it", function()
      local queue = new(1)
      local getter = start(queue.get, queue)
      assert.truthy(tostring(getter):find("wait_for=<Queue.get>", 1, true))
      queue:put_nowait(1)
      queue:put(2)
      local putter = start(queue.put, queue, 3)
      local joiner = start(queue.join, queue)
      assert.truthy(tostring(putter):find("wait_for=<Queue.put>", 1, true))
      assert.truthy(tostring(joiner):find("wait_for=<Queue.join>", 1, true))
      putter:cancel()
      joiner:cancel()
      getter:await()
    end)

    it("serves getters in the order in which they came", function()
      local queue, log = new(), {}
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = agather.spawn(function()
          queue:get()
          log[#log + 1] = i
        end)
      end
      agather.sleep(0)
      for i = 1, 3 do queue:put_nowait(i) end
      agather.gather_list(tasks):await()
      assert.same({ 1, 2, 3 }, log)
    end)

    it("serves putters in the order in which they came", function()
      local queue, log = new(1), {}
      queue:put_nowait(0)
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = agather.spawn(function()
          queue:put(i)
          log[#log + 1] = i
        end)
      end
      agather.sleep(0)
      local items = {}
      for i = 1, 4 do items[i] = queue:get() end
      agather.gather_list(tasks):await()
      assert.same({ 1, 2, 3 }, log)
      assert.same({ 0, 1, 2, 3 }, items)
    end)

    it("passes items between one producer and one consumer through one place", function()
      local queue, got = new(1), {}
      agather.gather(
        function() for i = 1, 5 do queue:put(i) end end,
        function() for i = 1, 5 do got[i] = queue:get() end end
      ):await()
      assert.same({ 1, 2, 3, 4, 5 }, got)
      assert.is_true(queue:empty())
    end)

    it("lets all waiting putters go on when it is emptied at once", function()
      local queue, tasks = new(2), {}
      local getter = agather.spawn(function()
        agather.sleep(0)
        for _ = 1, queue:qsize() do queue:get_nowait() end
      end)
      for i = 1, 4 do tasks[i] = agather.spawn(queue.put, queue, i) end
      getter:await()
      agather.gather_list(tasks):await()
      assert.equal(2, queue:qsize())
    end)

    it("is not held by getters and putters that were cancelled", function()
      local queue = new(1)
      local getter, next_getter = agather.spawn(queue.get, queue), start(queue.get, queue)
      getter:cancel()
      assert_cancelled(getter)
      queue:put(1)
      assert.equal(1, next_getter:await())
      queue:put(2)
      local putter, next_putter = agather.spawn(queue.put, queue, 3), start(queue.put, queue, 4)
      putter:cancel()
      assert_cancelled(putter)
      assert.equal(2, queue:get_nowait())
      next_putter:await()
      assert.equal(4, queue:get_nowait())
      assert.is_true(queue:empty())
    end)

    it("keeps the item when the getter that it woke is cancelled in the same iteration", function()
      local queue = new()
      local getter = start(queue.get, queue)
      queue:put_nowait(1)
      getter:cancel()
      assert_cancelled(getter)
      assert.equal(1, queue:qsize())
      assert.equal(1, queue:get())
    end)

    it("passes the wake-up on when the getter that it woke is cancelled in the same iteration", function()
      local queue, getters = new(), {}
      for i = 1, 3 do getters[i] = agather.spawn(queue.get, queue) end
      agather.sleep(0)
      queue:put_nowait(1)
      queue:put_nowait(2)
      getters[1]:cancel()
      assert_cancelled(getters[1])
      local got = { getters[2]:await(), (getters[3]:await()) }
      table.sort(got)
      assert.same({ 1, 2 }, got)
    end)

    it("passes the wake-up on along a row of getters that are all cancelled", function()
      local queue, getters = new(), {}
      for i = 1, 10 do getters[i] = agather.spawn(queue.get, queue) end
      agather.sleep(0)
      queue:put_nowait("item")
      for i = 1, 9 do getters[i]:cancel() end
      assert.equal("item", getters[10]:await())
      for i = 1, 9 do assert.is_true(getters[i]:cancelled()) end
    end)

    it("keeps the place when the putter that it woke is cancelled in the same iteration", function()
      local queue = new(1)
      queue:put_nowait(1)
      local putter = start(queue.put, queue, 2)
      queue:get_nowait()
      putter:cancel()
      assert_cancelled(putter)
      assert.equal(0, queue:qsize())
      queue:put_nowait(3)
      assert.equal(3, queue:get_nowait())
    end)

    it("passes the wake-up on when the putter that it woke is cancelled in the same iteration", function()
      local queue = new(1)
      queue:put_nowait(1)
      local first, second = agather.spawn(queue.put, queue, 2), start(queue.put, queue, 3)
      queue:get_nowait()
      first:cancel()
      assert_cancelled(first)
      second:await()
      assert.same({ 3 }, drain(queue))
    end)

    it("wakes no second putter when the place went to somebody else before the cancellation came", function()
      local queue = new(1)
      queue:put_nowait(1)
      local first, second, third = agather.spawn(queue.put, queue, 2), agather.spawn(queue.put, queue, 3),
        start(queue.put, queue, 4)
      queue:get_nowait()
      first:cancel()
      queue:put_nowait(5)
      assert_cancelled(first)
      turns(3)
      assert.is_false(second:done())
      assert.equal(5, queue:get())
      assert.equal(3, queue:get())
      assert.equal(4, queue:get())
      agather.gather(second, third):await()
    end)

    it("wakes no second getter when the item went to somebody else before the cancellation came", function()
      local queue, log, getters = new(), {}, {}
      for i = 1, 3 do
        getters[i] = agather.spawn(function()
          queue:get()
          log[#log + 1] = i
        end)
      end
      agather.sleep(0)
      queue:put_nowait(1)
      getters[1]:cancel()
      assert.equal(1, queue:get_nowait())
      assert_cancelled(getters[1])
      turns(3)
      queue:put_nowait(2)
      agather.sleep(0)
      queue:put_nowait(3)
      agather.gather(getters[2], getters[3]):await()
      assert.same({ 2, 3 }, log)
    end)

    it("makes a woken getter wait again when somebody else took the item", function()
      local queue = new()
      local getter = start(queue.get, queue)
      queue:put_nowait(1)
      assert.equal(1, queue:get_nowait())
      turns(3)
      assert.is_false(getter:done())
      queue:put_nowait(2)
      assert.equal(2, getter:await())
    end)

    it("makes a woken putter wait again when somebody else took the place", function()
      local queue = new(1)
      queue:put_nowait(1)
      local putter = start(queue.put, queue, 2)
      queue:get_nowait()
      queue:put_nowait(3)
      turns(3)
      assert.is_false(putter:done())
      assert.equal(3, queue:get_nowait())
      putter:await()
      assert.same({ 2 }, drain(queue))
    end)

    it("lets a task that cancelled itself stop at the next wait", function()
      local queue = new(1)
      local getter = agather.spawn(function()
        agather.current_task():cancel()
        queue:get()
      end)
      assert_cancelled(getter)
      queue:put_nowait(1)
      local putter = agather.spawn(function()
        agather.current_task():cancel()
        queue:put(2)
      end)
      assert_cancelled(putter)
      assert.same({ 1 }, drain(queue))
    end)

    it("may be waited for with a timeout", function()
      local queue = new(1)
      fails_with(agather.TimeoutError, agather.wait_for, function() queue:get() end, 1)
      queue:put_nowait(1)
      fails_with(agather.TimeoutError, agather.wait_for, function() queue:put(2) end, 1)
      fails_with(agather.TimeoutError, agather.wait_for, function() queue:join() end, 1)
      assert.equal(3, now())
      assert.same({ 1 }, drain(queue))
      queue:task_done()
      queue:join()
    end)

    it("is waited for by join until task_done was called for every item", function()
      local queue, sum, running = new(), 0, true
      for i = 1, 100 do queue:put_nowait(i) end
      local function worker()
        while running do
          local item = queue:get()
          sum = sum + item
          agather.sleep(0)
          queue:task_done()
        end
      end
      local workers = { agather.spawn(worker), agather.spawn(worker) }
      queue:join()
      assert.equal(5050, sum)
      running = false
      put_all(queue, { 0, 0 })
      agather.gather_list(workers):await()
    end)

    it("is joined at once when nothing was put into it", function()
      local queue = new()
      queue:join()
      queue:join()
      assert.equal(0, select("#", queue:join()))
    end)

    it("is not joined by taking the items out", function()
      local queue = new()
      queue:put_nowait(1)
      queue:get_nowait()
      local joiner = start(queue.join, queue)
      turns(3)
      assert.is_false(joiner:done())
      queue:task_done()
      joiner:await()
    end)

    it("wakes all who join", function()
      local queue, log, tasks = new(), {}, {}
      queue:put_nowait(1)
      for i = 1, 3 do
        tasks[i] = agather.spawn(function()
          queue:join()
          log[#log + 1] = i
        end)
      end
      agather.sleep(0)
      tasks[2]:cancel()
      queue:task_done()
      agather.wait(tasks)
      assert.same({ 1, 3 }, log)
      assert.is_true(tasks[2]:cancelled())
    end)

    it("wants no more task_done than items", function()
      local queue = new()
      raises("task_done() called too many times", queue.task_done, queue)
      queue:put_nowait(1)
      queue:task_done()
      raises("task_done() called too many times", queue.task_done, queue)
      fails_with(agather.Error, queue.task_done, queue)
    end)

    it("gives its items to a for loop until it is shut down and empty", function()
      local queue, got = new(2), {}
      local producer = agather.spawn(function()
        for i = 1, 5 do queue:put(i) end
        queue:shutdown()
      end)
      for item in queue:items() do
        got[#got + 1] = item
        agather.sleep(1)
      end
      table.sort(got)
      assert.same({ 1, 2, 3, 4, 5 }, got)
      producer:await()
    end)

    it("ends a for loop that waits when it is shut down", function()
      local queue, got = new(), {}
      local consumer = start(function()
        for item in queue:items() do got[#got + 1] = item end
        return "ended"
      end)
      queue:put_nowait(1)
      agather.sleep(0)
      queue:shutdown()
      assert.equal("ended", consumer:await())
      assert.same({ 1 }, got)
    end)

    it("shares its items among several for loops", function()
      local queue, got = new(), {}
      local consumers = {}
      for i = 1, 3 do
        consumers[i] = agather.spawn(function()
          for item in queue:items() do
            got[#got + 1] = item
            agather.sleep(1)
          end
        end)
      end
      for i = 1, 9 do queue:put(i) end
      queue:shutdown()
      agather.gather_list(consumers):await()
      table.sort(got)
      assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9 }, got)
      assert.equal(3, now())
    end)

    it("leaves task_done to who goes through its items", function()
      local queue = new()
      put_all(queue, { 1, 2 })
      queue:shutdown()
      local joiner = start(queue.join, queue)
      for _ in queue:items() do
        assert.is_false(joiner:done())
        queue:task_done()
      end
      joiner:await()
    end)

    it("goes on after a break out of a for loop", function()
      local queue = new()
      put_all(queue, { 1, 2 })
      for _ in queue:items() do break end
      assert.equal(1, queue:qsize())
      queue:get()
      assert.is_true(queue:empty())
    end)

    it("loses no item to a for loop that is cancelled when it was woken", function()
      local queue = new()
      local consumer = start(function() for _ in queue:items() do error("got an item") end end)
      queue:put_nowait(1)
      consumer:cancel()
      assert_cancelled(consumer)
      assert.same({ 1 }, drain(queue))
    end)

    it("wakes its getters and takes no more items when it is shut down empty", function()
      local queue = new()
      local getters = { agather.spawn(queue.get, queue), start(queue.get, queue) }
      queue:shutdown()
      assert.equal(0, queue:qsize())
      queue:join()
      for _, getter in ipairs(getters) do
        raises("the queue was shut down", getter.await, getter)
        assert.is_true(agather.is_error(getter:exception(), agather.QueueShutDown))
      end
      assert_shut(queue)
    end)

    it("wakes its putters and gives what is left when it is shut down", function()
      local queue = new(1)
      queue:put_nowait(1)
      local joiner = agather.spawn(queue.join, queue)
      local putters = { agather.spawn(queue.put, queue, 2), start(queue.put, queue, 3) }
      queue:shutdown()
      assert.equal(1, queue:qsize())
      for _, putter in ipairs(putters) do fails_with(agather.QueueShutDown, putter.await, putter) end
      fails_with(agather.QueueShutDown, queue.put, queue, 4)
      assert.equal(1, queue:get())
      turns(2)
      assert.is_false(joiner:done())
      assert_shut(queue)
      queue:task_done()
      joiner:await()
      raises("task_done() called too many times", queue.task_done, queue)
    end)

    it("drops its items and wakes who joins when it is shut down immediately", function()
      local queue = new()
      put_all(queue, { 1, 2, 3 })
      local joiner = start(queue.join, queue)
      queue:shutdown(true)
      assert.equal(0, queue:qsize())
      joiner:await()
      assert_shut(queue)
      raises("task_done() called too many times", queue.task_done, queue)
    end)

    it("waits for the items that were taken before it was shut down immediately", function()
      local queue = new()
      put_all(queue, { 1, 2 })
      local joiner = start(queue.join, queue)
      queue:get()
      queue:shutdown(true)
      assert.equal(0, queue:qsize())
      turns(2)
      assert.is_false(joiner:done())
      assert_shut(queue)
      queue:task_done()
      raises("task_done() called too many times", queue.task_done, queue)
      joiner:await()
    end)

    it("drops no more than its items when it is shut down immediately with putters waiting", function()
      local queue = new(1)
      queue:put_nowait(1)
      local putter = start(queue.put, queue, 2)
      queue:shutdown(true)
      fails_with(agather.QueueShutDown, putter.await, putter)
      assert.equal(0, queue:qsize())
      queue:join()
    end)

    it("gives an item to a getter that was woken before it was shut down", function()
      local queue = new()
      local first, second = agather.spawn(queue.get, queue), start(queue.get, queue)
      queue:put_nowait(1)
      queue:shutdown()
      assert.equal(1, first:await())
      fails_with(agather.QueueShutDown, second.await, second)
    end)

    it("takes no item of a putter that was woken before it was shut down", function()
      local queue = new(1)
      queue:put_nowait(1)
      local putter = start(queue.put, queue, 2)
      queue:get_nowait()
      queue:shutdown()
      fails_with(agather.QueueShutDown, putter.await, putter)
      assert.is_true(queue:empty())
    end)

    it("cancels a getter that it woke by its shutdown", function()
      local queue = new()
      local first, second = agather.spawn(queue.get, queue), start(queue.get, queue)
      queue:shutdown()
      first:cancel()
      assert_cancelled(first)
      fails_with(agather.QueueShutDown, second.await, second)
    end)

    it("may be shut down again, then immediately", function()
      local queue = new()
      put_all(queue, { 1, 2 })
      queue:shutdown()
      queue:shutdown()
      assert.equal(2, queue:qsize())
      queue:shutdown(true)
      queue:shutdown(true)
      assert.equal(0, queue:qsize())
      queue:join()
    end)

    it("does not break under collection of garbage while tasks wait", function()
      local queue, sum = new(3), 0
      local tasks = {}
      for i = 1, 5 do
        tasks[i] = agather.spawn(function()
          for k = 1, 20 do
            queue:put(i * 100 + k)
            collectgarbage("step")
          end
        end)
        tasks[5 + i] = agather.spawn(function()
          for _ = 1, 20 do
            local item = queue:get()
            sum = sum + item
            collectgarbage("step")
          end
        end)
      end
      for _ = 1, 10 do
        agather.sleep(0)
        collectgarbage()
      end
      agather.gather_list(tasks):await()
      assert.equal(20 * 1500 + 5 * 210, sum)
    end)

    plain_it("lets its items go when they are taken and when it is shut down immediately", function()
      local queue = new(0, kind == "PriorityQueue" and function(a, b) return a[1] < b[1] end or nil)
      local weak = setmetatable({}, { __mode = "k" })
      for i = 1, 20 do
        local item = { i }
        weak[item] = true
        queue:put_nowait(item)
      end
      local function count()
        collectgarbage()
        collectgarbage()
        local n = 0
        for _ in pairs(weak) do n = n + 1 end
        return n
      end
      assert.equal(20, count())
      for _ = 1, 15 do queue:get_nowait() end
      assert.equal(5, count())
      queue:shutdown(true)
      assert.equal(0, count())
    end)

    plain_it("serves one loop after another", function()
      local queue = new(1)
      for round = 1, 2 do
        support.virtual(function()
          local producer = agather.spawn(function() for i = 1, 3 do queue:put(i) end end)
          for i = 1, 3 do assert.equal(i, queue:get()) end
          producer:await()
          agather.spawn(queue.get, queue)
          agather.spawn(queue.join, queue)
          agather.sleep(0)
        end)
        collectgarbage()
        assert.equal(0, queue:qsize(), round)
      end
      queue:put_nowait("item")
      assert.equal("item", queue:get_nowait())
    end)
  end)
end

describe("Queue", function()
  it("gives the oldest item first", function()
    local queue = agather.Queue()
    put_all(queue, { 1, 3, 2 })
    assert.same({ 1, 3, 2 }, drain(queue))
  end)

  it("keeps its order while it grows with items in it", function()
    local queue, expected, next_item = agather.Queue(), 1, 1
    for round = 1, 50 do
      for _ = 1, round do
        queue:put_nowait(next_item)
        next_item = next_item + 1
      end
      for _ = 1, round // 2 do
        assert.equal(expected, queue:get_nowait())
        expected = expected + 1
      end
    end
    while not queue:empty() do
      assert.equal(expected, queue:get_nowait())
      expected = expected + 1
    end
    assert.equal(next_item, expected)
  end)

  it("takes false as an item", function()
    local queue = agather.Queue()
    queue:put(false)
    queue:put(1)
    assert.is_false(queue:get())
    queue:put(false)
    queue:shutdown()
    local got = {}
    for item in queue:items() do got[#got + 1] = item end
    assert.same({ 1, false }, got)
  end)

  it("takes an item of any kind and gives the very same", function()
    local queue = agather.Queue()
    for _, item in ipairs { {}, print, io.stdout, coroutine.create(print), 0 / 1, "", math.mininteger } do
      queue:put(item)
      assert.equal(item, queue:get())
    end
  end)

  plain_it("takes no comparison function", function()
    raises("only a PriorityQueue takes a comparison function", agather.Queue, 0, function() end)
  end)
end)

describe("LifoQueue", function()
  it("gives the newest item first", function()
    local queue = agather.LifoQueue()
    put_all(queue, { 1, 3, 2 })
    assert.same({ 2, 3, 1 }, drain(queue))
  end)

  it("takes false as an item", function()
    local queue = agather.LifoQueue()
    put_all(queue, { 1, false })
    assert.same({ false, 1 }, drain(queue))
  end)

  plain_it("takes no comparison function", function()
    raises("only a PriorityQueue takes a comparison function", agather.LifoQueue, 0, function() end)
  end)
end)

describe("PriorityQueue", function()
  local function by_priority(a, b) return a.priority < b.priority end

  plain_it("takes nothing but a function to compare by", function()
    raises("function expected, got number", agather.PriorityQueue, 0, 5)
    raises("function expected, got table", agather.PriorityQueue, 0, {})
    raises("function expected, got boolean", agather.PriorityQueue, 0, false)
  end)

  it("gives the smallest item first", function()
    local queue = agather.PriorityQueue()
    put_all(queue, { 1, 3, 2 })
    assert.same({ 1, 2, 3 }, drain(queue))
    put_all(queue, { "pear", "apple", "fig" })
    assert.same({ "apple", "fig", "pear" }, drain(queue))
  end)

  it("compares integers and floats as numbers", function()
    local queue = agather.PriorityQueue()
    put_all(queue, { 2, 1.5, 1, 0.5, math.huge, -math.huge, math.mininteger })
    assert.same({ -math.huge, math.mininteger, 0.5, 1, 1.5, 2, math.huge }, drain(queue))
  end)

  it("gives the same order as a sort, for many items put and taken by turns", function()
    local queue, kept = agather.PriorityQueue(), {}
    local seed = 12345
    local function random()
      seed = (seed * 1103515245 + 12345) % 2147483648
      return seed // 65536 % 100
    end
    for round = 1, 300 do
      for _ = 1, round % 5 do
        local item = random()
        queue:put_nowait(item)
        kept[#kept + 1] = item
      end
      table.sort(kept)
      for _ = 1, math.min(round % 3, #kept) do assert.equal(table.remove(kept, 1), queue:get_nowait()) end
    end
    assert.same(kept, drain(queue))
  end)

  it("gives items that compare equal in the order in which they came", function()
    local queue = agather.PriorityQueue(0, by_priority)
    local names = {}
    for i = 1, 60 do queue:put_nowait { priority = i % 3, name = i } end
    for i, item in ipairs(drain(queue)) do names[i] = item.name end
    local expected = {}
    for priority = 0, 2 do
      for i = 1, 60 do
        if i % 3 == priority then expected[#expected + 1] = i end
      end
    end
    assert.same(expected, names)
  end)

  it("keeps the order of equal items while others are put and taken", function()
    local queue = agather.PriorityQueue(0, by_priority)
    local names = {}
    local next_name = 1
    for round = 1, 20 do
      for _ = 1, 3 do
        queue:put_nowait { priority = 5, name = next_name }
        next_name = next_name + 1
      end
      queue:put_nowait { priority = 1, name = "urgent" .. round }
      assert.equal("urgent" .. round, queue:get_nowait().name)
      names[#names + 1] = queue:get_nowait().name
    end
    for _, item in ipairs(drain(queue)) do names[#names + 1] = item.name end
    for i = 1, 60 do assert.equal(i, names[i]) end
  end)

  it("compares by __lt", function()
    local comparable = { __lt = function(a, b) return a[1] < b[1] end }
    local queue = agather.PriorityQueue()
    for _, number in ipairs { 3, 1, 2 } do queue:put(setmetatable({ number }, comparable)) end
    assert.equal(1, queue:get()[1])
    assert.equal(2, queue:get()[1])
    assert.equal(3, queue:get()[1])
  end)

  it("compares by the function that it was given", function()
    local queue = agather.PriorityQueue(0, function(a, b) return a > b end)
    put_all(queue, { 1, 3, 2 })
    assert.same({ 3, 2, 1 }, drain(queue))
  end)

  it("takes any true value of the comparison function for true", function()
    local queue = agather.PriorityQueue(0, function(a, b) return a < b and 0 or nil end)
    put_all(queue, { 2, 3, 1 })
    assert.same({ 1, 2, 3 }, drain(queue))
  end)

  it("raises what cannot be compared and stays as it was", function()
    local queue = agather.PriorityQueue()
    put_all(queue, { 2, 1, 3 })
    raises("attempt to compare", queue.put_nowait, queue, "text")
    raises("attempt to compare", queue.put, queue, {})
    assert.equal(3, queue:qsize())
    assert.same({ 1, 2, 3 }, drain(queue))
    for _ = 1, 3 do queue:task_done() end
    queue:join()
  end)

  it("stays as it was when the comparison function raises at a put, at every comparison", function()
    for fail_at = 1, 12 do
      local comparisons, armed = 0, false
      local queue = agather.PriorityQueue(0, function(a, b)
        comparisons = comparisons + 1
        if armed and comparisons == fail_at then error("cannot compare", 0) end
        return a < b
      end)
      for i = 20, 1, -1 do queue:put_nowait(i) end
      comparisons, armed = 0, true
      local ok, err = pcall(queue.put_nowait, queue, 0)
      armed = false
      if ok then
        assert.equal(0, queue:get_nowait())
      else
        assert.equal("cannot compare", err)
      end
      local items = drain(queue)
      assert.equal(20, #items)
      for i = 1, 20 do assert.equal(i, items[i]) end
      for _ = 1, ok and 21 or 20 do queue:task_done() end
      raises("too many times", queue.task_done, queue)
    end
  end)

  it("stays as it was when the comparison function raises at a get, at every comparison", function()
    local failures = 0
    for fail_at = 1, 20 do
      local comparisons, armed = 0, false
      local queue = agather.PriorityQueue(0, function(a, b)
        comparisons = comparisons + 1
        if armed and comparisons == fail_at then error("cannot compare", 0) end
        return a < b
      end)
      for i = 20, 1, -1 do queue:put_nowait(i) end
      comparisons, armed = 0, true
      local ok, got = pcall(queue.get_nowait, queue)
      armed = false
      if ok then
        assert.equal(1, got)
      else
        failures = failures + 1
        assert.equal("cannot compare", got)
        assert.equal(20, queue:qsize())
        assert.equal(1, queue:get_nowait())
      end
      local items = drain(queue)
      assert.equal(19, #items)
      for i = 1, 19 do assert.equal(i + 1, items[i]) end
    end
    assert.is_true(failures > 4)
  end)

  it("wakes nobody by a put that failed", function()
    local queue = agather.PriorityQueue(0, function(a, b)
      if a == "bad" or b == "bad" then error("cannot compare", 0) end
      return a < b
    end)
    local first, second = agather.spawn(queue.get, queue), start(queue.get, queue)
    queue:put_nowait(1)
    raises("cannot compare", queue.put_nowait, queue, "bad")
    assert.equal(1, first:await())
    turns(2)
    assert.is_false(second:done())
    queue:put_nowait(2)
    assert.equal(2, second:await())
    queue:task_done()
    queue:task_done()
    queue:join()
  end)

  it("raises a comparison error in the putter that waited", function()
    local queue = agather.PriorityQueue(2)
    put_all(queue, { 1, 2 })
    local putter = start(queue.put, queue, "text")
    assert.equal(1, queue:get_nowait())
    raises("attempt to compare", putter.await, putter)
    assert.same({ 2 }, drain(queue))
  end)

  it("cannot wait in its comparison function", function()
    local queue = agather.PriorityQueue(0, function(a, b)
      agather.sleep(1)
      return a < b
    end)
    queue:put(1)
    raises("sleep: cannot wait across", queue.put, queue, 2)
    assert.same({ 1 }, drain(queue))
  end)

  it("orders what waiting putters put when they can", function()
    local queue = agather.PriorityQueue(1)
    queue:put_nowait(5)
    local high, low = agather.spawn(queue.put, queue, 9), start(queue.put, queue, 1)
    assert.equal(5, queue:get())
    assert.equal(9, queue:get())
    assert.equal(1, queue:get())
    agather.gather(high, low):await()
  end)

  it("collects garbage while it compares", function()
    local queue = agather.PriorityQueue(0, function(a, b)
      collectgarbage("step")
      return a[1] < b[1]
    end)
    for i = 1, 40 do queue:put_nowait { i * 7 % 41 } end
    for i = 1, 40 do
      assert.equal(i, queue:get_nowait()[1])
      collectgarbage()
    end
  end)
end)

describe("A comparison of a PriorityQueue", function()
  it("stays whole when the comparison function puts items", function()
    local queue, depth
    queue = agather.PriorityQueue(0, function(a, b)
      if depth == 0 then
        depth = 1
        for i = 1, 7 do pcall(queue.put_nowait, queue, i) end
      end
      return a < b
    end)
    queue:put_nowait(5)
    depth = 0
    pcall(queue.put_nowait, queue, 3)
    local last, count = 0, queue:qsize()
    for _ = 1, count do
      local item = queue:get_nowait()
      assert.is_true(math.type(item) == "integer" and item >= last)
      last = item
    end
  end)
  it("stays whole when the comparison function shuts it down", function()
    local queue, armed
    queue = agather.PriorityQueue(0, function(a, b)
      if armed then queue:shutdown(true) end
      return a < b
    end)
    for i = 1, 5 do queue:put_nowait(i) end
    armed = true
    pcall(queue.get_nowait, queue)
    assert.equal(0, queue:qsize())
  end)
end)
