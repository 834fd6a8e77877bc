local agather = require "agather"

local function virtual(main)
  local runner <close> = agather.Runner{ clock = "virtual" }
  return runner:run(main)
end

describe("task", function()
  it("returns all results of its function", function()
    assert.same({ 1, nil, 3 }, { virtual(function()
      return agather.await(agather.spawn(function() return 1, nil, 3 end))
    end) })
  end)

  it("is never run when it is cancelled before its first step", function()
    virtual(function()
      local ran = false
      local task = agather.spawn(function() ran = true end)
      task:cancel()
      pcall(agather.await, task)
      assert.is_true(task:cancelled())
      assert.is_false(ran)
    end)
  end)

  it("may catch a cancellation and go on", function()
    virtual(function()
      local task = agather.spawn(function()
        pcall(agather.sleep, 10)
        return "went on"
      end)
      agather.sleep(0)
      assert.is_true(task:cancel())
      assert.equal("went on", task:await())
      assert.is_false(task:cancelled())
      assert.equal(1, task:cancelling())
    end)
  end)

  it("lets a cancellation through agather.pcall", function()
    virtual(function()
      local task = agather.spawn(function() agather.pcall(agather.sleep, 10) end)
      agather.sleep(0)
      task:cancel()
      pcall(agather.await, task)
      assert.is_true(task:cancelled())
    end)
  end)

  it("waits in a close handler while a cancellation unwinds", function()
    virtual(function()
      local closed = false
      local task = agather.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() agather.sleep(1) closed = true end })
        agather.sleep(10)
      end)
      agather.sleep(0)
      task:cancel()
      pcall(agather.await, task)
      assert.is_true(closed)
      assert.is_true(task:cancelled())
    end)
  end)

  it("is cancelled down a chain of a hundred thousand awaiters", function()
    virtual(function()
      local last = agather.spawn(function() agather.sleep(100) end)
      for _ = 1, 100000 do
        local inner = last
        last = agather.spawn(function() agather.await(inner) end)
      end
      agather.sleep(0)
      last:cancel()
      assert.is_false((pcall(agather.await, last)))
      assert.is_true(last:cancelled())
    end)
  end)

  it("awaits coros nested ten thousand deep, and errors come back through them", function()
    virtual(function()
      local down
      down = agather.async(function(n)
        if n == 0 then
          agather.sleep(1)
          return 0
        end
        return agather.await(down(n - 1)) + 1
      end)
      assert.equal(10000, agather.await(down(10000)))
      local fall
      fall = agather.async(function(n)
        if n == 0 then error("bottom", 0) end
        agather.await(fall(n - 1))
      end)
      local ok, err = pcall(agather.await, fall(1000))
      assert.is_false(ok)
      assert.equal("bottom", err)
      local task = agather.spawn(function() return agather.await(fall(40)) end)
      assert.is_false((pcall(agather.await, task)))
      assert.truthy(task:exception().traceback:find("task_spec", 1, true))
    end)
  end)

  it("is cancelled in coros nested deeply", function()
    virtual(function()
      local closed = 0
      local down
      down = agather.async(function(n)
        local _ <close> = setmetatable({}, { __close = function() agather.sleep(0) closed = closed + 1 end })
        if n == 0 then return agather.sleep(10) end
        return agather.await(down(n - 1))
      end)
      local task = agather.create_task(down(100))
      agather.sleep(1)
      task:cancel()
      pcall(agather.await, task)
      assert.is_true(task:cancelled())
      assert.equal(101, closed)
    end)
  end)

  it("cannot be started twice", function()
    virtual(function()
      local coro = agather.async(function() return 1 end)()
      assert.equal(1, agather.await(coro))
      assert.error_matches(function() agather.await(coro) end, "already awaited")
    end)
  end)

  it("says what is wrong with what is awaited", function()
    virtual(function()
      assert.error_matches(function() agather.await(42) end, "awaitable expected, got number")
      local self
      self = agather.spawn(function() agather.await(self) end)
      assert.is_false((pcall(agather.await, self)))
      assert.truthy(tostring(self:exception()):find("cannot await on itself", 1, true))
    end)
  end)

  it("says that it cannot wait across table.sort or in a plain coroutine", function()
    virtual(function()
      assert.error_matches(function()
        table.sort({ 2, 1 }, function(a, b) agather.sleep(0) return a < b end)
      end, "table.sort")
      assert.error_matches(function() coroutine.wrap(function() agather.sleep(0) end)() end, "agather.coroutine")
    end)
  end)

  it("has a name, a state and a function in its string", function()
    virtual(function()
      local task = agather.create_task(agather.async(function() agather.sleep(1) end)(), { name = "mine" })
      assert.equal("mine", task:get_name())
      assert.truthy(tostring(task):find("<Task pending name='mine'", 1, true))
      assert.truthy(tostring(task):find("task_spec.lua:", 1, true))
    end)
  end)
end)

describe("sleep", function()
  it("returns its other arguments", function()
    assert.same({ 1, nil, 3 }, { virtual(function() return agather.sleep(1, 1, nil, 3) end) })
  end)

  it("wakes in order of deadline", function()
    local log = {}
    virtual(function()
      local list = {}
      for i = 1, 5 do
        list[i] = agather.spawn(function() agather.sleep(6 - i) log[#log + 1] = i end)
      end
      agather.gather_list(list):await()
      assert.is_true(math.abs(agather.get_running_loop():time() - 5) < 1e-9)
    end)
    assert.same({ 5, 4, 3, 2, 1 }, log)
  end)

  it("refuses nan and what is no number", function()
    virtual(function()
      assert.error_matches(function() agather.sleep(0 / 0) end, "nan")
      assert.error_matches(function() agather.sleep("soon") end, "number expected")
      agather.sleep(-1)
    end)
  end)

  it("says that no task runs", function()
    assert.error_matches(function() agather.sleep(1) end, "no running task")
  end)
end)
