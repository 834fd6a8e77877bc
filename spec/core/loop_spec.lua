local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("iteration", function()
  it("runs what was ready when it began; what that schedules runs in the next", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      local function chain(name, n)
        say(name .. n)
        if n < 3 then loop:call_soon(chain, name, n + 1) end
      end
      loop:call_soon(chain, "a", 1)
      loop:call_soon(chain, "b", 1)
      support.turns(3)
    end)
    assert.same({ "a1", "b1", "a2", "b2", "a3", "b3" }, log)
  end)

  it("puts due timers after what is ready already", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      loop:call_later(0, say, "due")
      loop:call_soon(say, "soon")
      agather.sleep(0)
      say("main")
      agather.sleep(0)
    end)
    assert.same({ "soon", "main", "due" }, log)
  end)

  it("runs tasks and callbacks in one order of arrival", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      agather.spawn(say, "task 1")
      loop:call_soon(say, "callback 1")
      agather.spawn(say, "task 2")
      agather.create_task(agather.async(say)("task 3"))
      loop:call_soon(say, "callback 2")
      agather.sleep(0)
    end)
    assert.same({ "task 1", "callback 1", "task 2", "task 3", "callback 2" }, log)
  end)
end)

describe("loop", function()
  it("is the running one inside tasks and callbacks only", function()
    local runner <close> = agather.Runner{ clock = "virtual" }
    local loop, seen = runner:get_loop(), nil
    assert.is_false(loop:is_running())
    runner:run(function()
      assert.equal(loop, agather.get_running_loop())
      assert.is_true(loop:is_running())
      loop:call_soon(function() seen = agather.get_running_loop() end)
      agather.sleep(0)
    end)
    assert.equal(loop, seen)
    assert.is_false(loop:is_running())
    local err = raises("get_running_loop: no running event loop (call it inside agather.run)", agather.get_running_loop)
    assert.is_true(agather.is_error(err, agather.RuntimeError))
  end)

  it("has a clock that goes on", function()
    local loop <const> = agather.new_event_loop()
    local first = loop:time()
    assert.equal("float", math.type(first))
    assert.is_true(loop:time() >= first)
    loop:close()
  end)

  it("makes tasks before it runs", function()
    local runner <close> = agather.Runner{ clock = "virtual" }
    local task = runner:get_loop():create_task(function() return "made before" end, { name = "early" })
    assert.equal("early", task:get_name())
    assert.is_false(task:done())
    assert.equal("made before", runner:run(function() return task:await() end))
  end)

  it("runs until a future, task, coro, function or thread is done", function()
    local loop <const> = agather.new_event_loop()
    local future = loop:create_future()
    loop:call_soon(future.set_result, future, 1, nil, 3)
    assert.same({ 1, nil, 3 }, { loop:run_until_complete(future) })
    assert.equal(2, loop:run_until_complete(loop:create_task(function() return 2 end)))
    assert.equal(3, loop:run_until_complete(agather.async(function(v) return v end)(3)))
    assert.equal(4, loop:run_until_complete(function() return 4 end))
    assert.equal(5, loop:run_until_complete(coroutine.create(function() return 5 end)))
    local failure = {}
    assert.equal(failure, select(2, pcall(loop.run_until_complete, loop, function() error(failure) end)))
    loop:close()
  end)

  it("runs forever until it is stopped, to the end of the iteration", function()
    local log, say = support.log()
    local loop <const> = agather.new_event_loop()
    loop:call_soon(loop.stop, loop)
    loop:call_soon(function()
      say("same iteration")
      loop:call_soon(say, "next iteration")
    end)
    loop:run_forever()
    assert.same({ "same iteration" }, log)
    loop:call_soon(loop.stop, loop)
    loop:run_forever()
    assert.same({ "same iteration", "next iteration" }, log)
    loop:close()
  end)

  it("that is stopped before it runs does one iteration", function()
    local log, say = support.log()
    local loop <const> = agather.new_event_loop()
    loop:call_soon(function()
      say("first")
      loop:call_soon(say, "second")
    end)
    loop:stop()
    loop:run_forever()
    assert.same({ "first" }, log)
    loop:stop()
    local function main() agather.sleep(0) end
    raises("Event loop stopped before Future completed.", loop.run_until_complete, loop, main)
    assert.same({ "first", "second" }, log)
    assert.equal(5, loop:run_until_complete(function() return 5 end))
    loop:close()
  end)

  it("keeps its timers while it is stopped", function()
    local runner <close> = agather.Runner{ clock = "virtual" }
    local log, say = support.log()
    local loop = runner:get_loop()
    loop:call_later(1, say, "one")
    loop:call_later(2, loop.stop, loop)
    loop:call_later(3, say, "three")
    loop:run_forever()
    assert.same({ "one" }, log)
    assert.equal(2, loop:time())
    runner:run(agather.sleep, 2)
    assert.same({ "one", "three" }, log)
  end)

  it("may be closed twice, and closes what is scheduled without running it", function()
    local loop <const> = agather.new_event_loop()
    local ran = false
    loop:call_soon(function() ran = true end)
    loop:call_later(0, function() ran = true end)
    assert.is_false(loop:is_closed())
    loop:close()
    loop:close()
    assert.is_true(loop:is_closed())
    assert.is_false(ran)
  end)

  it("may be closed with callbacks that are not due, whatever is collected meanwhile", function()
    local loop <const> = agather.new_event_loop()
    loop:set_exception_handler(function() end)
    local collected = false
    for _ = 1, 50 do loop:call_later(100, print, "never") end
    loop:create_task(function()
      local _ <close> = support.closing(function()
        collectgarbage()
        collected = true
      end)
      agather.sleep(100)
    end)
    loop:call_soon(loop.stop, loop)
    loop:run_forever()
    loop:close()
    assert.is_true(collected)
  end)

  it("cannot be closed or run while it runs", function()
    virtual(function()
      local loop = agather.get_running_loop()
      local future = loop:create_future()
      raises("Cannot close a running event loop", loop.close, loop)
      raises("This event loop is already running", loop.run_forever, loop)
      raises("This event loop is already running", loop.run_until_complete, loop, future)
      local other <const> = agather.new_event_loop()
      raises("This event loop is already running", other.run_until_complete, other, function() end)
      other:close()
    end)
  end)

  it("says that it is closed whatever is asked of it", function()
    local loop <const> = agather.new_event_loop()
    loop:close()
    local calls = {
      function() loop:call_soon(print) end,
      function() loop:call_later(1, print) end,
      function() loop:call_at(1, print) end,
      function() loop:create_future() end,
      function() loop:create_task(print) end,
      function() loop:run_forever() end,
      function() loop:run_until_complete(print) end,
      function() loop:set_exception_handler(print) end,
    }
    for _, call in ipairs(calls) do
      local err = raises("Event loop is closed", call)
      assert.is_true(agather.is_error(err, agather.RuntimeError))
    end
  end)

  it("shows its state in its string", function()
    local loop <const> = agather.new_event_loop()
    assert.equal("<Loop idle>", tostring(loop))
    assert.equal("<Loop running>", loop:run_until_complete(function() return tostring(loop) end))
    loop:close()
    assert.equal("<Loop closed>", tostring(loop))
  end)

  it("knows whether it debugs", function()
    local loop <const> = agather.new_event_loop()
    assert.is_false(loop:get_debug())
    loop:set_debug(true)
    assert.is_true(loop:get_debug())
    loop:set_debug(false)
    assert.is_false(loop:get_debug())
    loop:close()
    local runner <close> = agather.Runner{ debug = true }
    assert.is_true(runner:get_loop():get_debug())
  end)

  it("says that a method was called on something else", function()
    local loop <const> = agather.new_event_loop()
    local names = {
      "call_soon", "call_later", "call_at", "time", "create_future", "create_task", "stop", "is_running", "is_closed",
      "close", "set_exception_handler", "set_debug", "get_debug",
    }
    for _, name in ipairs(names) do
      raises("(Loop expected, got no value)", loop[name])
      raises("(Loop expected, got number)", loop[name], 5)
      raises("(Loop expected, got FILE*)", loop[name], io.stdout)
    end
    raises("Loop expected", loop.run_forever, 5)
    raises("Loop expected", loop.run_until_complete, 5)
    loop:close()
  end)

  it("says what its methods need", function()
    local loop <const> = agather.new_event_loop()
    raises("(function or coroutine expected, got number)", function() loop:run_until_complete(5) end)
    raises("bad argument #1 to 'set_exception_handler' (function expected, got number)", function()
      loop:set_exception_handler(5)
    end)
    raises("(awaitable expected, got number)", function() loop:create_task(5) end)
    raises("(unknown option 'nam' of create_task)", function() loop:create_task(print, { nam = 1 }) end)
    loop:close()
  end)
end)

describe("a loop", function()
  it("run_forever, run_until_complete and call_exception_handler refuse what is no loop", function()
    local output, status = support.script([[
      local loop = agather.new_event_loop()
      for _, name in ipairs{ "run_forever", "run_until_complete", "call_exception_handler" } do
        local ok, err = pcall(loop[name], io.stdout, {})
        assert(not ok and tostring(err):find("Loop expected, got FILE*", 1, true), name .. ": " .. tostring(err))
      end
    ]])
    assert.equal("", output)
    assert.equal(0, status)
  end)
end)
