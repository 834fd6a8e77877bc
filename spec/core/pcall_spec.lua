local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("agather.pcall", function()
  it("returns true and all results", function()
    assert.same({ true, 1, nil, 3, n = 4 }, table.pack(agather.pcall(function(...) return ... end, 1, nil, 3)))
    assert.same({ true, n = 1 }, table.pack(agather.pcall(function() end)))
  end)

  it("returns false and the very error", function()
    local failure = {}
    assert.same({ false, "boom" }, { agather.pcall(error, "boom") })
    assert.equal(failure, select(2, agather.pcall(error, failure)))
    assert.is_false((agather.pcall(nil)))
  end)

  it("waits inside", function()
    virtual(function()
      assert.same({ true, 1, 2 }, { agather.pcall(agather.sleep, 1, 1, 2) })
      local ok, err = agather.pcall(function()
        agather.sleep(1)
        error("late", 0)
      end)
      assert.same({ false, "late" }, { ok, err })
    end)
  end)

  it("lets a cancellation through, with its message", function()
    virtual(function()
      local reached = false
      local task = agather.spawn(function()
        agather.pcall(agather.sleep, 10)
        reached = true
      end)
      agather.sleep(0)
      task:cancel("why")
      raises("why", task.await, task)
      assert.is_true(task:cancelled())
      assert.is_false(reached)
    end)
  end)

  it("lets a cancellation through that was raised without waiting", function()
    local ok, err = pcall(agather.pcall, error, agather.CancelledError("x"))
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.CancelledError))
  end)

  it("catches the other error objects", function()
    for _, name in ipairs{ "TimeoutError", "KeyboardInterrupt", "DeadlockError", "Error" } do
      local ok, err = agather.pcall(error, agather[name]("x"))
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather[name]))
    end
  end)

  it("lets through what is derived from CancelledError", function()
    local Stop = agather.CancelledError:subclass("Stop")
    local ok, err = pcall(agather.pcall, error, Stop())
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, Stop))
  end)

  it("says that it needs a function", function()
    raises("bad argument #1 to 'pcall' (value expected)", function() agather.pcall() end)
  end)
end)

describe("agather.xpcall", function()
  it("returns true and all results", function()
    assert.same({ true, 1, nil, 3, n = 4 },
      table.pack(agather.xpcall(function(...) return ... end, error, 1, nil, 3)))
  end)

  it("returns false and what the handler makes of the error", function()
    local ok, message = agather.xpcall(error, function(err) return "handled " .. err end, "boom", 0)
    assert.same({ false, "handled boom" }, { ok, message })
  end)

  it("calls the handler where the error was raised", function()
    local function deepest() error("boom") end
    local _, traceback = agather.xpcall(function()
      deepest()
      return 1
    end, debug.traceback)
    assert.truthy(traceback:find("in upvalue 'deepest'", 1, true))
  end)

  it("waits inside", function()
    virtual(function()
      assert.same({ true, "slept" }, { agather.xpcall(agather.sleep, print, 1, "slept") })
    end)
  end)

  it("lets a cancellation through without calling the handler", function()
    virtual(function()
      local handled = false
      local task = agather.spawn(function()
        agather.xpcall(agather.sleep, function() handled = true end, 10)
      end)
      agather.sleep(0)
      task:cancel()
      pcall(task.await, task)
      assert.is_true(task:cancelled())
      assert.is_false(handled)
    end)
  end)

  it("says that it needs a handler", function()
    raises("bad argument #2 to 'xpcall' (function expected, got no value)", function() agather.xpcall(print) end)
    raises("bad argument #2 to 'xpcall' (function expected, got number)", function() agather.xpcall(print, 5) end)
  end)
end)

describe("plain pcall", function()
  it("catches a cancellation, as except BaseException does", function()
    virtual(function()
      local task = agather.spawn(function()
        local ok, err = pcall(agather.sleep, 10)
        return ok, agather.is_error(err, agather.CancelledError), tostring(err)
      end)
      agather.sleep(0)
      task:cancel("why")
      assert.same({ false, true, "why" }, { task:await() })
    end)
  end)
end)
