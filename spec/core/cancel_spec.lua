local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("task:cancel", function()
  it("raises CancelledError where the task waits, with the message", function()
    virtual(function()
      local reached = false
      local task = agather.spawn(function()
        agather.sleep(10)
        reached = true
      end)
      agather.sleep(0)
      assert.is_true(task:cancel("why"))
      assert.is_false(task:done())
      local err = raises("why", task.await, task)
      assert.is_true(agather.is_error(err, agather.CancelledError))
      assert.equal("why", err.message)
      assert.is_true(task:cancelled())
      assert.is_false(reached)
    end)
  end)

  it("before the first step holds also where the task would go on with the thread of one that ends", function()
    virtual(function()
      local ran = false
      local first, second = agather.spawn(function() end), agather.spawn(function() ran = true end)
      second:cancel("early")
      first:await()
      raises("early", second.await, second)
      assert.is_false(ran)
    end)
  end)

  it("is false when the task is done, and changes nothing", function()
    virtual(function()
      local task = agather.spawn(function() return 1 end)
      task:await()
      assert.is_false(task:cancel())
      assert.equal(0, task:cancelling())
      assert.equal(1, task:result())
    end)
  end)

  it("before the first step keeps the body from running at all", function()
    virtual(function()
      local ran = false
      local tasks = {
        agather.spawn(function() ran = true end),
        agather.create_task(agather.async(function() ran = true end)()),
      }
      for _, task in ipairs(tasks) do assert.is_true(task:cancel("early")) end
      for _, task in ipairs(tasks) do
        raises("early", task.await, task)
        assert.is_true(task:cancelled())
      end
      assert.is_false(ran)
    end)
  end)

  it("cancels the future that the task waits for", function()
    virtual(function()
      local future = agather.future()
      local task = agather.spawn(function() future:await() end)
      agather.sleep(0)
      task:cancel("why")
      assert.is_true(future:cancelled())
      raises("why", task.await, task)
    end)
  end)

  it("loses the result of a future that has just completed", function()
    virtual(function()
      local future = agather.future()
      local task = agather.spawn(function() return future:await() end)
      agather.sleep(0)
      future:set_result("lost")
      assert.is_true(task:cancel())
      pcall(task.await, task)
      assert.is_true(task:cancelled())
      assert.equal("lost", future:result())
    end)
  end)

  it("loses the end of a sleep that is due", function()
    virtual(function()
      local loop = agather.get_running_loop()
      local task
      loop:call_at(1, function() task:cancel() end)
      task = agather.spawn(function()
        agather.sleep(1)
        return "lost"
      end)
      pcall(task.await, task)
      assert.is_true(task:cancelled())
    end)
  end)

  it("cancels the task that the task waits for, and so its other awaiters, which were not asked to end", function()
    virtual(function()
      local inner = agather.spawn(agather.sleep, 10)
      local first = agather.spawn(function() inner:await() end)
      local second = agather.spawn(function() inner:await() end)
      support.turns(2)
      first:cancel()
      pcall(second.await, second)
      assert.is_true(inner:cancelled())
      assert.is_true(first:cancelled())
      assert.is_true(second:cancelled())
      assert.equal(1, inner:cancelling())
      assert.equal(1, first:cancelling())
      assert.equal(0, second:cancelling())
    end)
  end)

  it("is delivered once when it is asked for twice before the task runs", function()
    virtual(function()
      local deliveries = 0
      local task = agather.spawn(function()
        for _ = 1, 3 do
          if not pcall(agather.sleep, 1) then deliveries = deliveries + 1 end
        end
        return deliveries
      end)
      agather.sleep(0)
      assert.is_true(task:cancel("first"))
      assert.is_true(task:cancel("second"))
      assert.equal(1, task:await())
      assert.equal(2, task:cancelling())
    end)
  end)

  it("interrupts cleanup too", function()
    virtual(function()
      local log, say = support.log()
      local task = agather.spawn(function()
        local _ <close> = support.closing(function()
          say("cleanup")
          agather.sleep(10)
          say("not reached")
        end)
        agather.sleep(10)
      end)
      agather.sleep(0)
      task:cancel()
      agather.sleep(1)
      task:cancel()
      pcall(task.await, task)
      assert.same({ "cleanup" }, log)
      assert.is_true(task:cancelled())
      assert.equal(1, agather.get_running_loop():time())
    end)
  end)

  it("of itself arrives at the next wait", function()
    virtual(function()
      local reached = false
      local task = agather.spawn(function()
        assert.is_true(agather.current_task():cancel("self"))
        reached = true
        agather.sleep(1)
        return "not reached"
      end)
      raises("self", task.await, task)
      assert.is_true(reached)
      assert.is_true(task:cancelled())
    end)
  end)

  it("of itself without a wait afterwards loses the results", function()
    virtual(function()
      local task = agather.spawn(function()
        agather.current_task():cancel()
        return "lost"
      end)
      pcall(task.await, task)
      assert.is_true(task:cancelled())
    end)
  end)

  it("of itself arrives at a wait of each kind", function()
    virtual(function()
      local waits = {
        function() agather.sleep(0) end,
        function() agather.sleep(10) end,
        function() agather.future():await() end,
        function() agather.spawn(agather.sleep, 10):await() end,
        function() agather.gather(function() agather.sleep(10) end):await() end,
        function() agather.Semaphore(0):acquire() end,
        function() agather.Event():wait() end,
        function() agather.Queue():get() end,
        function() agather.Barrier(2):wait() end,
        function()
          local lock <close> = agather.Lock():acquire()
          lock:acquire()
        end,
        function()
          local condition <close> = agather.Condition():acquire()
          condition:wait()
        end,
      }
      for _, wait in ipairs(waits) do
        local task = agather.spawn(function()
          agather.current_task():cancel("self")
          wait()
          return "not reached"
        end)
        pcall(task.await, task)
        assert.is_true(task:cancelled())
      end
      assert.equal(0, agather.get_running_loop():time())
    end)
  end)

  it("may be caught: the task goes on, returns, and is not cancelled", function()
    virtual(function()
      local task = agather.spawn(function()
        pcall(agather.sleep, 10)
        agather.sleep(1)
        return "went on"
      end)
      agather.sleep(0)
      task:cancel()
      assert.equal("went on", task:await())
      assert.is_false(task:cancelled())
      assert.equal(1, task:cancelling())
    end)
  end)

  it("may be turned into another error", function()
    virtual(function()
      local task = agather.spawn(function()
        pcall(agather.sleep, 10)
        error("another", 0)
      end)
      agather.sleep(0)
      task:cancel()
      raises("another", task.await, task)
      assert.is_false(task:cancelled())
    end)
  end)

  it("runs close handlers, which may wait, in order", function()
    local log, say = support.log()
    virtual(function()
      local task = agather.spawn(function()
        local _ <close> = support.closing(function() agather.sleep(1) say("outer") end)
        local _ <close> = support.closing(function() agather.sleep(1) say("inner") end)
        agather.sleep(10)
      end)
      agather.sleep(0)
      task:cancel()
      pcall(task.await, task)
    end)
    assert.same({ "inner", "outer" }, log)
  end)

  it("reaches a task in a circle of awaiters", function()
    virtual(function()
      local first, second
      first = agather.spawn(function() second:await() end)
      second = agather.spawn(function() first:await() end)
      support.turns(2)
      assert.is_true(first:cancel())
      pcall(first.await, first)
      pcall(second.await, second)
      assert.is_true(first:cancelled())
      assert.is_true(second:cancelled())
    end)
  end)

  it("reaches a task that cancels itself before it closes a circle of awaiters", function()
    virtual(function()
      local first, second
      first = agather.spawn(function()
        agather.sleep(0)
        first:cancel("mine")
        local _, err = pcall(second.await, second)
        return err.message
      end)
      second = agather.spawn(function() return first:await() end)
      assert.equal("mine", second:await())
    end)
  end)

  it("reaches a task that cancels itself before it awaits a gather of itself", function()
    virtual(function()
      local task, other, both
      task = agather.spawn(function()
        agather.sleep(0)
        both = agather.gather(task, other)
        task:cancel()
        return (pcall(both.await, both))
      end)
      other = agather.spawn(agather.sleep, 10)
      assert.is_false(task:await())
      assert.is_true(other:cancelled())
      local _, err = pcall(both.await, both)
      assert.is_true(agather.is_error(err, agather.CancelledError))
    end)
  end)

  it("takes any value as message", function()
    virtual(function()
      local message = { code = 1 }
      local task = agather.spawn(agather.sleep, 10)
      agather.sleep(0)
      task:cancel(message)
      local _, err = pcall(task.await, task)
      assert.equal(message, err.message)
    end)
  end)

  it("reaches what a gather waits for", function()
    virtual(function()
      local children = { agather.spawn(agather.sleep, 10), agather.spawn(agather.sleep, 10) }
      local task = agather.spawn(function() agather.gather(agather.gather_list(children)):await() end)
      support.turns(1)
      task:cancel("why")
      raises("why", task.await, task)
      agather.sleep(0)
      assert.is_true(children[1]:cancelled())
      assert.is_true(children[2]:cancelled())
    end)
  end)
end)

describe("CancelledError", function()
  it("that a task raises by itself ends it cancelled, with no request counted", function()
    virtual(function()
      local task = agather.spawn(function() error(agather.CancelledError("mine")) end)
      raises("mine", task.await, task)
      assert.is_true(task:cancelled())
      assert.equal(0, task:cancelling())
    end)
  end)

  it("of an awaited task ends the awaiter cancelled too", function()
    virtual(function()
      local inner = agather.spawn(agather.sleep, 10)
      local outer = agather.spawn(function() inner:await() end)
      support.turns(2)
      inner:cancel()
      pcall(outer.await, outer)
      assert.is_true(outer:cancelled())
      assert.equal(0, outer:cancelling())
    end)
  end)
end)

describe("task:uncancel", function()
  it("takes back one request and returns how many are left, never below zero", function()
    virtual(function()
      local task = agather.spawn(function()
        pcall(agather.sleep, 10)
        agather.sleep(10)
      end)
      agather.sleep(0)
      task:cancel()
      task:cancel()
      assert.equal(2, task:cancelling())
      assert.equal(1, task:uncancel())
      assert.equal(0, task:uncancel())
      assert.equal(0, task:uncancel())
      assert.equal(0, task:cancelling())
      task:cancel()
    end)
  end)

  it("to zero takes back a request that has not been delivered", function()
    virtual(function()
      local task = agather.spawn(function()
        local self = agather.current_task()
        self:cancel()
        self:uncancel()
        agather.sleep(1)
        return "went on"
      end)
      assert.equal("went on", task:await())
    end)
  end)
end)

describe("future:cancel", function()
  it("wakes every awaiter with CancelledError", function()
    virtual(function()
      local future = agather.future()
      local tasks = {}
      for i = 1, 3 do tasks[i] = agather.spawn(function() future:await() end) end
      agather.sleep(0)
      assert.is_true(future:cancel("why"))
      for i = 1, 3 do
        raises("why", tasks[i].await, tasks[i])
        assert.is_true(tasks[i]:cancelled())
      end
    end)
  end)
end)
