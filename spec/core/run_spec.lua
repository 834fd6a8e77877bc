local agather = require "agather"

describe("run", function()
  it("returns the results of main", function()
    assert.same({ 5, nil, "x" }, { agather.run(function(v) return v, nil, "x" end, 5) })
  end)

  it("raises the very error object of main", function()
    local failure = { code = 42 }
    local ok, err = pcall(agather.run, function() error(failure) end)
    assert.is_false(ok)
    assert.equal(failure, err)
  end)

  it("raises a string with the traceback of the task that failed", function()
    local ok, err = pcall(agather.run, function() error("boom") end)
    assert.is_false(ok)
    assert.truthy(err:find("boom", 1, true))
    assert.truthy(err:find("stack traceback", 1, true))
  end)

  it("gives what is ready its turn, then cancels what is left", function()
    local log = {}
    agather.run(function()
      agather.spawn(function()
        log[#log + 1] = "first line"
        local ok, err = pcall(agather.sleep, 10)
        log[#log + 1] = tostring(ok) .. " " .. tostring(err)
      end)
      log[#log + 1] = "main done"
    end)
    assert.same({ "main done", "first line", "false CancelledError" }, log)
  end)

  it("reports a deadlock and who waits", function()
    local ok, err = pcall(agather.run, function() agather.await(agather.future()) end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.DeadlockError))
    assert.truthy(tostring(err):find("run_spec.lua", 1, true))
  end)

  it("runs inside a running task, also where it cannot yield", function()
    agather.run(function()
      assert.equal(3, agather.run(function() agather.sleep(0) return 3 end))
      local list = { 2, 1, 3 }
      table.sort(list, function(a, b)
        agather.run(function() agather.sleep(0) end)
        return a < b
      end)
      assert.same({ 1, 2, 3 }, list)
    end)
  end)

  it("reports a failed task that nobody can ask, soon after it failed", function()
    local reports = {}
    agather.run(function()
      agather.get_running_loop():set_exception_handler(function(context) reports[#reports + 1] = context end)
      agather.spawn(function() error("lost", 0) end)
      agather.sleep(0)
      agather.sleep(0)
      agather.sleep(0)
      assert.equal(1, #reports)
    end)
    assert.equal("Task exception was never retrieved", reports[1].message)
    assert.equal("lost", tostring(reports[1].exception))
  end)

  it("reports a coro that nobody awaited", function()
    local reports = {}
    agather.run(function()
      agather.get_running_loop():set_exception_handler(function(context) reports[#reports + 1] = context.message end)
      agather.async(function() end)()
    end)
    assert.equal(1, #reports)
    assert.truthy(reports[1]:find("never awaited", 1, true))
  end)
end)

describe("loop", function()
  it("calls back in order", function()
    local log = {}
    local function say(word) log[#log + 1] = word end
    local runner <close> = agather.Runner{ clock = "virtual" }
    runner:run(function()
      local loop = agather.get_running_loop()
      loop:call_later(2, say, "later")
      loop:call_later(1, say, "sooner")
      loop:call_later(1, say, "cancelled"):cancel()
      loop:call_soon(say, "soon")
      local future = loop:create_future()
      future:add_done_callback(function(f) say("callback " .. f:result()) end)
      future:set_result("7")
      agather.sleep(3)
    end)
    assert.same({ "soon", "callback 7", "sooner", "later" }, log)
  end)

  it("refuses calls when it is closed", function()
    local runner = agather.Runner()
    local loop = runner:get_loop()
    runner:close()
    runner:close()
    assert.is_true(loop:is_closed())
    assert.error_matches(function() loop:call_soon(print) end, "closed")
    assert.error_matches(function() runner:run(print) end, "closed")
  end)

  it("settles a future once", function()
    agather.run(function()
      local future = agather.future()
      assert.error_matches(function() future:result() end, "not set")
      future:set_result(1, 2)
      assert.same({ 1, 2 }, { future:result() })
      assert.error_matches(function() future:set_result(1) end, "done already")
    end)
  end)
end)
