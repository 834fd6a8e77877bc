-- from_callback turns what calls back into a future.
local agather = require "agather"
local support = require "spec.support"

local virtual, raises = support.virtual, support.raises

-- An API that calls back on a later turn of the loop.
local function later(f, ...) return agather.get_running_loop():call_soon(f, ...) end

describe("from_callback", function()
  it("gives all that done was called with", function()
    virtual(function()
      assert.same({ 1, nil, 3, n = 3 }, table.pack(agather.await(agather.from_callback(function(done)
        later(done, 1, nil, 3)
      end))))
    end)
  end)

  it("is done at once when done is called before the function returns", function()
    virtual(function()
      local future = agather.from_callback(function(done) done("now") end)
      assert.is_true(future:done())
      assert.equal("now", future:result())
    end)
  end)

  it("raises in the awaiter the very value that fail was called with", function()
    virtual(function()
      local reason = {}
      local ok, raised = pcall(agather.await, agather.from_callback(function(_, fail) later(fail, reason) end))
      assert.is_false(ok)
      assert.equal(reason, raised)
    end)
  end)

  it("says so when fail is called without an error", function()
    virtual(function()
      raises("from_callback: fail was called without an error", function()
        agather.from_callback(function(_, fail) fail() end):await()
      end)
    end)
  end)

  it("takes the first call and lets later ones do nothing", function()
    virtual(function()
      local first = agather.from_callback(function(done, fail)
        done(1)
        done(2)
        fail("late")
      end)
      assert.equal(1, first:result())
      local second = agather.from_callback(function(done, fail)
        fail("first")
        fail("second")
        done(3)
      end)
      assert.equal("first", second:exception().value)
    end)
  end)

  it("lets calls after a cancellation do nothing", function()
    virtual(function()
      local resolve, reject
      local future = agather.from_callback(function(done, fail) resolve, reject = done, fail end)
      local task = agather.spawn(future.await, future)
      agather.sleep(0)
      task:cancel()
      raises("CancelledError", task.await, task)
      assert.is_true(future:cancelled())
      resolve(1)
      reject("late")
      assert.is_true(future:cancelled())
    end)
  end)

  it("calls the function that it was given back once, when the future is cancelled", function()
    virtual(function()
      local stopped = 0
      local function stop() stopped = stopped + 1 end
      local cancelled = agather.from_callback(function() return stop end)
      cancelled:cancel()
      cancelled:cancel()
      support.turns(2)
      assert.equal(1, stopped)
      agather.from_callback(function(done) done() return stop end)
      local failed = agather.from_callback(function(_, fail) fail("x") return stop end)
      support.turns(2)
      assert.equal("x", failed:exception().value)
      assert.equal(1, stopped)
    end)
  end)

  it("ends with a timeout, which takes back what was started", function()
    virtual(function()
      local handle
      raises("TimeoutError", agather.wait_for, agather.from_callback(function(done)
        handle = agather.get_running_loop():call_later(3600, done)
        return function() handle:cancel() end
      end), 1)
      assert.is_true(handle:cancelled())
    end)
  end)

  it("raises what the function raises", function()
    virtual(function()
      local reason = {}
      local ok, raised = pcall(agather.from_callback, function() error(reason) end)
      assert.is_false(ok)
      assert.equal(reason, raised)
    end)
  end)

  it("stands in a gather", function()
    virtual(function()
      local function after(seconds)
        return agather.from_callback(function(done)
          agather.get_running_loop():call_later(seconds, done, seconds)
        end)
      end
      local results = agather.await(agather.gather(after(0.2), after(0.1)))
      assert.same({ 0.2, 0.1, n = 2 }, results)
    end)
  end)

  it("lets a call after the end of the loop do nothing", function()
    local resolve, reject
    local reports = support.capture(function()
      agather.from_callback(function(done, fail) resolve, reject = done, fail end)
    end)
    collectgarbage()
    resolve(1)
    reject("late")
    assert.same({}, reports)
  end)

  it("reports an error that nobody asked for", function()
    local reports = support.capture(function()
      agather.from_callback(function(_, fail) fail("lost") end)
      collectgarbage()
      agather.sleep(1)
    end)
    assert.equal(1, #reports)
    assert.truthy(tostring(reports[1].exception):find("lost", 1, true))
  end)

  it("is an error outside a loop, and with what is no function", function()
    raises("no running event loop", agather.from_callback, function() end)
    virtual(function()
      local raised = raises("bad argument #1 to 'from_callback' (function expected, got nil)", agather.from_callback)
      assert.is_string(raised)
      raises("from_callback: the function returned a number", agather.from_callback, function() return 1 end)
    end)
  end)
end)
