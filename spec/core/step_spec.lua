local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("order", function()
  it("create_task, spawn and gather queue the first step; nothing runs before the caller waits", function()
    local log, say = support.log()
    virtual(function()
      agather.spawn(say, "spawned")
      agather.create_task(agather.async(say)("created"))
      agather.gather(agather.async(say)("gathered 1"), function() say("gathered 2") end)
      say("caller")
      agather.sleep(0)
    end)
    assert.same({ "caller", "spawned", "created", "gathered 1", "gathered 2" }, log)
  end)

  it("a task given to gather keeps its earlier place in the queue", function()
    local log, say = support.log()
    virtual(function()
      local early = agather.spawn(say, "early")
      agather.gather(agather.async(say)("later"), early):await()
    end)
    assert.same({ "early", "later" }, log)
  end)

  it("tasks take turns at sleep(0)", function()
    local log, say = support.log()
    virtual(function()
      local function worker(name)
        return function()
          for i = 1, 3 do
            say(name .. i)
            agather.sleep(0)
          end
        end
      end
      agather.gather(worker("a"), worker("b")):await()
    end)
    assert.same({ "a1", "b1", "a2", "b2", "a3", "b3" }, log)
  end)

  it("a task's waiters are scheduled in the step in which its function returns, in order of arrival", function()
    local log, say = support.log()
    virtual(function()
      local task = agather.spawn(function()
        agather.sleep(0)
        agather.get_running_loop():call_soon(say, "scheduled before the end")
      end)
      for i = 1, 3 do
        agather.spawn(function()
          task:await()
          say("waiter " .. i)
        end)
      end
      support.turns(3)
    end)
    assert.same({ "scheduled before the end", "waiter 1", "waiter 2", "waiter 3" }, log)
  end)

  it("a gather's awaiter runs one iteration after its last child's awaiter", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      local child = agather.spawn(function() agather.sleep(0) end)
      local group = agather.gather(child)
      agather.spawn(function()
        group:await()
        say("awaiter of the gather")
      end)
      agather.spawn(function()
        child:await()
        say("awaiter of the child")
        loop:call_soon(say, "what that schedules")
      end)
      support.turns(5)
    end)
    assert.same({ "awaiter of the child", "awaiter of the gather", "what that schedules" }, log)
  end)

  it("a sleeper runs one iteration after its deadline is noticed", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      agather.spawn(function()
        agather.sleep(1)
        say("sleeper")
      end)
      agather.sleep(0)
      loop:call_at(loop:time() + 1, function()
        say("timer")
        loop:call_soon(say, "after the timer")
      end)
      agather.sleep(2)
    end)
    assert.same({ "timer", "sleeper", "after the timer" }, log)
  end)
end)

describe("the thread of a task", function()
  it("is the same from its first line to its last", function()
    virtual(function()
      local tasks = {}
      for i = 1, 10 do
        tasks[i] = agather.spawn(function()
          local thread = coroutine.running()
          agather.sleep(i % 3)
          return thread == coroutine.running()
        end)
      end
      for i = 1, 10 do assert.is_true(tasks[i]:await()) end
    end)
  end)

  it("is not shared by tasks that live at once", function()
    virtual(function()
      local seen, count = {}, 0
      for i = 1, 100 do
        agather.spawn(function()
          seen[coroutine.running()] = true
          agather.sleep(i)
        end)
      end
      agather.sleep(0)
      for _ in pairs(seen) do count = count + 1 end
      assert.equal(100, count)
    end)
  end)
end)

describe("coroutine.yield in a task", function()
  it("without values is one turn of the loop", function()
    local log, say = support.log()
    virtual(function()
      agather.get_running_loop():call_soon(say, "turn")
      coroutine.yield()
      say("task")
    end)
    assert.same({ "turn", "task" }, log)
  end)

  it("with values raises an error there, with file and line, and says what to do", function()
    virtual(function()
      local given = { number = 5, string = "x", table = {} }
      for kind, value in pairs(given) do
        local line, ok, err
        ok, err = pcall(function()
          line = debug.getinfo(1, "l").currentline + 1
          coroutine.yield(value)
          error("not reached")
        end)
        assert.is_false(ok)
        assert.is_true(agather.is_error(err, agather.RuntimeError))
        assert.equal("spec/core/step_spec.lua:" .. line .. ": task got a bad yield of a " .. kind
          .. " (to wait, call a function of agather; generators need agather.coroutine)", tostring(err))
      end
    end)
  end)

  it("with values fails the task that does not catch the error", function()
    virtual(function()
      local closed = false
      local task = agather.spawn(function()
        local _ <close> = support.closing(function()
          agather.sleep(1)
          closed = true
        end)
        coroutine.yield(1, 2, 3)
      end)
      raises("task got a bad yield of a number", task.await, task)
      assert.is_true(closed)
    end)
  end)

  it("leaves the task able to wait", function()
    virtual(function()
      pcall(function() coroutine.yield(1) end)
      assert.equal("fine", agather.sleep(1, "fine"))
    end)
  end)

  it("is a place where a cancellation arrives", function()
    virtual(function()
      local task = agather.spawn(function()
        while true do coroutine.yield() end
      end)
      support.turns(3)
      assert.is_true(task:cancel("enough"))
      local err = raises("enough", task.await, task)
      assert.is_true(agather.is_error(err, agather.CancelledError))
      assert.is_true(task:cancelled())
    end)
  end)
end)

describe("a task whose thread a script lays hands on", function()
  local resumed = "the thread of a task was resumed by hand: only the loop may do that"
  local closed = "the thread of a task was closed by hand: only the loop may do that"
  local waits = {
    sleep = function() agather.sleep(5) end,
    future = function() agather.future():await() end,
    task = function() agather.spawn(agather.sleep, 5):await() end,
    yield = function() coroutine.yield() end,
  }

  for kind, wait in pairs(waits) do
    it("fails when the thread is resumed while it waits: " .. kind, function()
      virtual(function()
        local thread
        local task = agather.spawn(function()
          thread = coroutine.running()
          wait()
          agather.sleep(1)
          error("not reached", 0)
        end)
        agather.sleep(0)
        coroutine.resume(thread)
        raises("by hand: only the loop may do that", task.await, task)
        assert.is_true(task:done())
      end)
    end)

    it("fails when the thread is closed while it waits: " .. kind, function()
      virtual(function()
        local thread
        local closes = 0
        local task = agather.spawn(function()
          local _ <close> = support.closing(function() closes = closes + 1 end)
          thread = coroutine.running()
          wait()
        end)
        agather.sleep(0)
        assert.is_true(coroutine.close(thread))
        assert.equal(1, closes)
        task:cancel()
        raises(closed, task.await, task)
      end)
    end)
  end

  it("gets the error where it waits, and whoever resumed it gets it too", function()
    virtual(function()
      local thread, inside
      local task = agather.spawn(function()
        thread = coroutine.running()
        local _
        _, inside = pcall(agather.sleep, 5)
      end)
      agather.sleep(0)
      coroutine.resume(thread)
      assert.truthy(tostring(inside):find(resumed, 1, true))
      raises(resumed, task.await, task)
    end)
  end)

  it("does no harm to others", function()
    virtual(function()
      local threads, others = {}, {}
      for i = 1, 20 do
        others[i] = agather.spawn(function()
          agather.sleep(1)
          return i
        end)
        local task = agather.spawn(function()
          threads[i] = coroutine.running()
          agather.sleep(1)
        end)
        task:add_done_callback(function() task:exception() end)
      end
      agather.sleep(0)
      for i = 1, 20 do
        if i % 2 == 0 then coroutine.resume(threads[i]) else coroutine.close(threads[i]) end
      end
      for i = 1, 20 do assert.equal(i, others[i]:await()) end
      for i = 1, 20 do
        local task = agather.spawn(function() return agather.sleep(1, i) end)
        assert.equal(i, task:await())
      end
    end)
  end)

  it("is done already: resuming or closing its thread changes nothing", function()
    virtual(function()
      local thread
      local task = agather.spawn(function()
        thread = coroutine.running()
        return 1
      end)
      task:await()
      pcall(coroutine.resume, thread)
      pcall(coroutine.close, thread)
      assert.equal(1, task:result())
      for i = 1, 10 do
        assert.equal(i, agather.spawn(function() return agather.sleep(1, i) end):await())
      end
    end)
  end)

  it("cannot resume itself", function()
    virtual(function()
      assert.same({ false, "cannot resume non-suspended coroutine" }, { coroutine.resume(coroutine.running()) })
    end)
  end)

  it("fails as well when it waits in coros nested deeply", function()
    virtual(function()
      local thread, down
      down = agather.async(function(n)
        if n == 0 then
          thread = coroutine.running()
          agather.sleep(5)
        end
        return agather.await(down(n - 1))
      end)
      local task = agather.create_task(down(60))
      agather.sleep(0)
      coroutine.resume(thread)
      raises(resumed, task.await, task)
    end)
  end)
end)

describe("eager_start", function()
  it("from a callback runs that task alone before create_task returns", function()
    local log, say = support.log()
    agather.run(function()
      agather.get_running_loop():call_soon(function()
        agather.create_task(function() say("eager") end, { eager_start = true })
        say("returned")
      end)
      agather.spawn(say, "spawned")
      agather.create_task(agather.async(say)("coro"))
      agather.sleep(0)
      assert.same({ "eager", "returned", "spawned", "coro" }, log)
    end)
  end)

  it("runs the first step at once", function()
    local log, say = support.log()
    virtual(function()
      local task = agather.create_task(function()
        say("eager")
        agather.sleep(1)
        return "result"
      end, { eager_start = true })
      say("caller")
      assert.is_false(task:done())
      assert.equal("result", task:await())
    end)
    assert.same({ "eager", "caller" }, log)
  end)

  it("gives a task that is done when it does not wait", function()
    virtual(function()
      local task = agather.create_task(function() return 1, 2 end, { eager_start = true })
      assert.is_true(task:done())
      assert.same({ 1, 2 }, { task:result() })
      local failed = agather.create_task(function() error("boom", 0) end, { eager_start = true })
      assert.is_true(failed:done())
      assert.equal("boom", failed:exception().value)
    end)
  end)

  it("makes the task the current one while it runs, and then the caller again", function()
    virtual(function()
      local caller, inside = agather.current_task(), nil
      local task = agather.create_task(function() inside = agather.current_task() end, { eager_start = true })
      assert.equal(task, inside)
      assert.equal(caller, agather.current_task())
      assert.equal("still waits", agather.sleep(1, "still waits"))
    end)
  end)

  it("nests to any depth", function()
    virtual(function()
      local count = 0
      local function nest(n)
        count = count + 1
        if n > 1 then agather.create_task(function() nest(n - 1) end, { eager_start = true }):await() end
      end
      nest(300)
      assert.equal(300, count)
    end)
  end)

  it("is false by default and may be false", function()
    virtual(function()
      local ran = false
      agather.create_task(function() ran = true end, { eager_start = false })
      assert.is_false(ran)
      agather.sleep(0)
      assert.is_true(ran)
    end)
  end)
end)

describe("a task with many arguments", function()
  it("gets them all, and returns as many", function()
    virtual(function()
      local values = {}
      for i = 1, 200 do values[i] = i end
      local results = table.pack(agather.spawn(function(...) return ... end, table.unpack(values)):await())
      values.n = 200
      assert.same(values, results)
    end)
  end)
end)

describe("the thread of a task that is resumed by hand", function()
  local by_hand = "the thread of a task was resumed by hand: only the loop may do that"

  -- Runs job(set) as a task; what it gives to set() is resumed by a callback. Returns the task's error, and what
  -- coroutine.resume said.
  local function resumed(job)
    return virtual(function()
      local loop, thread, answer = agather.get_running_loop(), nil, nil
      local task = agather.spawn(job, function() thread = coroutine.running() end)
      loop:call_soon(function() answer = table.pack(coroutine.resume(thread)) end)
      local ok, message = pcall(task.await, task)
      assert.is_false(ok)
      return tostring(message), answer
    end)
  end

  it("loses its task where a function that is awaited inline returns to it", function()
    local message, answer = resumed(function(set)
      agather.await(agather.async(function()
        set()
        coroutine.yield()
      end)())
    end)
    assert.truthy(message:find(by_hand, 1, true))
    assert.is_false(answer[1])
    assert.truthy(tostring(answer[2]):find(by_hand, 1, true))
  end)

  it("loses its task where a function is awaited on a thread above it", function()
    local function deep(n, last)
      if n == 0 then return last() end
      return agather.await(agather.async(deep)(n - 1, last))
    end
    local message, answer = resumed(function(set)
      set()
      deep(40, function() agather.sleep(1) end)
    end)
    assert.truthy(message:find(by_hand, 1, true))
    assert.is_false(answer[1])
  end)

  it("loses its task where a generator waits on it", function()
    local message, answer = resumed(function(set)
      set()
      agather.coroutine.wrap(function() agather.sleep(1) end)()
    end)
    assert.truthy(message:find(by_hand, 1, true))
    assert.is_false(answer[1])
  end)
end)

describe("a function awaited deeply", function()
  it("fails with a stack overflow where its results have no room below", function()
    virtual(function()
      local many = table.move({}, 1, 900000, 1, {})
      local function deep(n)
        if n == 0 then return table.unpack(many, 1, 900000) end
        return (select("#", agather.await(agather.async(deep)(n - 1))))
      end
      local function with_much_on_the_stack(...) return deep(17), ... end
      raises("stack overflow", with_much_on_the_stack, table.unpack(many, 1, 150000))
    end)
  end)
end)
