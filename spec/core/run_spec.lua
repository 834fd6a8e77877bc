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

local support = require "spec.support"
local capture, raises, virtual = support.capture, support.raises, support.virtual

describe("run", function()
  it("runs functions with arguments, coros and threads", function()
    assert.equal(3, agather.run(select, "#", 1, nil, 3))
    assert.equal(5, agather.run(agather.async(function(v) return v end)(5)))
    assert.equal(6, agather.run(coroutine.create(function() return 6 end)))
  end)

  it("makes main a task", function()
    agather.run(function()
      local task = agather.current_task()
      assert.truthy(tostring(task):find("^<Task pending name='Task%-%d+' coro=function <spec/core/run_spec.lua:%d+>>$"))
      assert.same({ task }, agather.all_tasks())
    end)
  end)

  it("closes the loop and leaves none running, whether main ends well or not", function()
    for _, main in ipairs{ function() return agather.get_running_loop() end, function() error("x") end } do
      local ok, loop = pcall(agather.run, main)
      if ok then assert.is_true(loop:is_closed()) end
      raises("no running event loop", agather.get_running_loop)
    end
  end)

  it("keeps errors that are no strings as they are", function()
    for _, value in ipairs{ 42, false, true, {} } do
      assert.equal(value, select(2, pcall(agather.run, function() error(value) end)))
    end
  end)

  it("raises CancelledError when main is cancelled", function()
    local ok, err = pcall(agather.run, function()
      agather.current_task():cancel("why")
      agather.sleep(0)
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.CancelledError))
    assert.equal("why", err.message)
  end)

  it("says what it needs", function()
    raises("bad argument #1 to 'run' (function or coroutine expected, got no value)", function() agather.run() end)
    raises("bad argument #1 to 'run' (function or coroutine expected, got number)", function() agather.run(5) end)
    raises("bad argument #1 to 'run' (function or coroutine expected, got table)", function() agather.run({}) end)
  end)
end)

describe("the end of run", function()
  it("cancels what is left and waits for its cleanup", function()
    local log, say = support.log()
    virtual(function()
      agather.spawn(function()
        local _ <close> = support.closing(function()
          agather.sleep(2)
          say("cleaned up")
        end)
        agather.sleep(100)
      end)
      agather.sleep(0)
      say("main ends")
    end)
    assert.same({ "main ends", "cleaned up" }, log)
  end)

  it("comes before the error of main", function()
    local log, say = support.log()
    pcall(agather.run, function()
      agather.spawn(function()
        local _ <close> = support.closing(function() say("cleaned up") end)
        agather.sleep(100)
      end)
      agather.sleep(0)
      error("main failed")
    end)
    say("raised")
    assert.same({ "cleaned up", "raised" }, log)
  end)

  it("reports the errors of tasks that it cancelled", function()
    local reports = capture(function()
      agather.create_task(function()
        pcall(agather.sleep, 100)
        error("in cleanup", 0)
      end, { name = "bad cleaner" })
      agather.sleep(0)
    end)
    assert.equal(1, #reports)
    assert.equal("unhandled exception during agather.run() shutdown", reports[1].message)
    assert.equal("in cleanup", reports[1].exception.value)
    assert.equal("bad cleaner", reports[1].task:get_name())
  end)

  it("cancels again, a bounded number of times, who goes on, and names who never ends", function()
    local cancellations = 0
    local reports = capture(function()
      agather.create_task(function()
        while true do
          if not pcall(agather.sleep, 1000) then cancellations = cancellations + 1 end
        end
      end, { name = "stubborn" })
      agather.sleep(0)
    end)
    assert.is_true(cancellations > 1 and cancellations < 100)
    assert.equal(1, #reports)
    assert.equal("Task was destroyed but it is pending!", reports[1].message)
    assert.equal("stubborn", reports[1].task:get_name())
  end)

  it("names whose cleanup took so long that it was cancelled again", function()
    local reports = capture(function()
      agather.create_task(function()
        local _ <close> = setmetatable({}, { __close = function() agather.sleep(6) end })
        agather.sleep(1000)
      end, { name = "slow" })
      agather.sleep(0)
    end)
    assert.equal(1, #reports)
    assert.equal("Task had not ended after 5.0 s of shutdown, and was cancelled again", reports[1].message)
    assert.equal("slow", reports[1].task:get_name())
  end)

  it("cancels also what is spawned by cleanup", function()
    local log, say = support.log()
    local reports = capture(function()
      agather.spawn(function()
        pcall(agather.sleep, 100)
        agather.spawn(function()
          local _, err = pcall(agather.sleep, 100)
          say(tostring(err))
        end)
        agather.sleep(0)
      end)
      agather.sleep(0)
    end)
    assert.same({ "CancelledError" }, log)
    assert.equal(0, #reports)
  end)

  it("leaves no task pending", function()
    local tasks = {}
    virtual(function()
      for i = 1, 10 do tasks[i] = agather.spawn(agather.sleep, i) end
      agather.sleep(0)
    end)
    for i = 1, 10 do assert.is_true(tasks[i]:cancelled()) end
  end)
end)

describe("a deadlock", function()
  it("is raised with each task, what it waits for and where", function()
    local line
    local ok, err = pcall(virtual, function()
      local inner = agather.create_task(function()
        line = debug.getinfo(1, "l").currentline + 1
        agather.future():await()
      end, { name = "inner" })
      agather.create_task(function() inner:await() end, { name = "outer" }):await()
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.DeadlockError))
    local text = tostring(err)
    assert.truthy(text:find("^deadlock: every task waits and nothing can wake one\n"))
    assert.truthy(text:find("<Task pending name='inner' coro=function <spec/core/run_spec.lua:%d+> wait_for=<Future>>"))
    assert.truthy(text:find("<Task pending name='outer' coro=function <spec/core/run_spec.lua:%d+> wait_for=<Task>>"))
    assert.truthy(text:find("run_spec.lua:" .. line .. ": in function", 1, true))
  end)

  it("is raised after the last timer only", function()
    local runner <close> = agather.Runner{ clock = "virtual" }
    local ok, err = pcall(runner.run, runner, function()
      agather.get_running_loop():call_later(10, function() end)
      agather.future():await()
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.DeadlockError))
    assert.equal(10, runner:get_loop():time())
  end)

  it("of other tasks is none as long as main can go on", function()
    virtual(function()
      local task = agather.spawn(function() agather.future():await() end)
      agather.sleep(10)
      assert.is_false(task:done())
    end)
  end)

  it("of tasks that wait for each other is raised too", function()
    local ok, err = pcall(virtual, function()
      local first, second
      first = agather.spawn(function() second:await() end)
      second = agather.spawn(function() first:await() end)
      first:await()
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.DeadlockError))
  end)
end)

describe("a run inside a running task", function()
  it("waits for main as a task of the same loop, while others run", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      agather.spawn(function()
        agather.sleep(1)
        say("other")
      end)
      local results = table.pack(agather.run(function(...)
        assert.equal(loop, agather.get_running_loop())
        agather.sleep(2)
        say("inner")
        return ...
      end, 1, nil, 3))
      assert.same({ 1, nil, 3, n = 3 }, results)
    end)
    assert.same({ "other", "inner" }, log)
  end)

  it("raises the very error of main", function()
    virtual(function()
      local failure = {}
      assert.equal(failure, select(2, pcall(agather.run, function() error(failure) end)))
    end)
  end)

  it("takes coros and threads, and says what else it was given", function()
    virtual(function()
      assert.equal(1, agather.run(agather.async(function() return 1 end)()))
      assert.equal(2, agather.run(coroutine.create(function() return 2 end)))
      raises("function or coroutine expected, got number", agather.run, 5)
    end)
  end)

  it("does not cancel what main left running", function()
    virtual(function()
      local task = agather.run(function() return agather.spawn(agather.sleep, 1, "kept") end)
      assert.is_false(task:done())
      assert.equal("kept", task:await())
    end)
  end)

  it("works where the task cannot wait: table.sort, string.gsub, plain coroutines, callbacks", function()
    virtual(function()
      local function slow(value)
        return agather.run(function()
          agather.sleep(1)
          return value
        end)
      end
      local list = { 3, 1, 2 }
      table.sort(list, function(a, b) return slow(a) < slow(b) end)
      assert.same({ 1, 2, 3 }, list)
      assert.equal("bab", (("aba"):gsub("%l", function(c) return slow(c == "a" and "b" or "a") end)))
      assert.equal(5, coroutine.wrap(function() return slow(5) end)())
      local in_callback
      agather.get_running_loop():call_soon(function() in_callback = slow(6) end)
      agather.sleep(2)
      assert.equal(6, in_callback)
    end)
  end)

  it("reports a deadlock where it cannot wait", function()
    virtual(function()
      local ok, err = coroutine.wrap(function()
        return pcall(agather.run, function() agather.future():await() end)
      end)()
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.DeadlockError))
    end)
  end)

  it("may be in a run in a run", function()
    assert.equal(4, agather.run(function()
      return 1 + agather.run(function()
        return 1 + agather.run(function()
          agather.sleep(0)
          return 2
        end)
      end)
    end))
  end)
end)

describe("Runner", function()
  it("keeps one loop, its tasks and its clock over several runs", function()
    local runner <close> = agather.Runner{ clock = "virtual" }
    local task = runner:run(function()
      assert.equal(runner:get_loop(), agather.get_running_loop())
      return agather.spawn(agather.sleep, 5, "kept")
    end)
    assert.is_false(task:done())
    assert.equal("kept", runner:run(function() return task:await() end))
    assert.equal(5, runner:get_loop():time())
  end)

  it("goes on after a run that failed", function()
    local runner <close> = agather.Runner()
    raises("boom", runner.run, runner, function() error("boom") end)
    assert.equal(1, runner:run(function() return 1 end))
  end)

  it("goes on after a deadlock", function()
    local runner <close> = agather.Runner()
    local ok, err = pcall(runner.run, runner, function() agather.future():await() end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.DeadlockError))
    assert.equal(1, runner:run(function() return 1 end))
  end)

  it("cancels what is left when it closes", function()
    local task
    do
      local runner <close> = agather.Runner{ clock = "virtual" }
      task = runner:run(function()
        local spawned = agather.spawn(agather.sleep, 5)
        agather.sleep(0)
        return spawned
      end)
      assert.is_false(task:done())
    end
    assert.is_true(task:cancelled())
  end)

  it("passes arguments and results", function()
    local runner <close> = agather.Runner()
    assert.same({ 1, nil, 3, n = 3 }, table.pack(runner:run(function(...) return ... end, 1, nil, 3)))
  end)

  it("cannot run or close while a loop runs", function()
    local runner <close> = agather.Runner()
    runner:run(function()
      raises("Runner.run() cannot be called from a running event loop", runner.run, runner, print)
      raises("Runner cannot be closed while a loop runs", runner.close, runner)
    end)
  end)

  it("says that it is closed", function()
    local runner = agather.Runner()
    runner:close()
    runner:close()
    local err = raises("Runner is closed", runner.run, runner, print)
    assert.is_true(agather.is_error(err, agather.RuntimeError))
    raises("Runner is closed", runner.get_loop, runner)
  end)

  it("says what it needs", function()
    raises("bad argument #1 to 'Runner' (table expected, got number)", function() agather.Runner(5) end)
    raises("option 'clock' must be \"virtual\" or \"real\"", agather.Runner, { clock = "fast" })
    raises("option 'clock' must be \"virtual\" or \"real\"", agather.Runner, { clock = {} })
    local runner <close> = agather.Runner{ clock = "real" }
    raises("bad argument #1 to 'run' (function or coroutine expected, got no value)", function() runner:run() end)
    raises("(Runner expected, got no value)", runner.run)
  end)
end)

describe("SIGINT", function()
  -- The interpreter's own handler of SIGINT answers the first signal and leaves the default for those that follow.
  local prelude = [[
    local function interrupt() io.popen("kill -INT $PPID"):close() end
    pcall(function() interrupt() while true do end end)
    local function show(ok, value)
      print(ok, value, agather.is_error(value, agather.KeyboardInterrupt))
    end
  ]]

  local function script(text) return (support.script(prelude .. text)) end

  it("cancels main; run raises KeyboardInterrupt", function()
    assert.equal("false\tCancelledError\ttrue\nfalse\tinterrupted\ttrue\n", script[[
      show(pcall(agather.run, function()
        agather.get_running_loop():call_soon(interrupt)
        local ok, err = pcall(agather.sleep, 5)
        print(ok, err, agather.is_error(err, agather.CancelledError))
        error(err)
      end))
    ]])
  end)

  it("lets main and the other tasks clean up", function()
    assert.equal("main closed\nother\tCancelledError\nfalse\tinterrupted\ttrue\n", script[[
      show(pcall(agather.run, function()
        agather.spawn(function() print("other", select(2, pcall(agather.sleep, 5))) end)
        agather.get_running_loop():call_soon(interrupt)
        local _ <close> = setmetatable({}, { __close = function() agather.sleep(0.001) print("main closed") end })
        agather.sleep(5)
      end))
    ]])
  end)

  it("is over when main catches it: run returns normally", function()
    assert.equal("true\twent on\tfalse\n", script[[
      show(pcall(agather.run, function()
        agather.get_running_loop():call_soon(interrupt)
        pcall(agather.sleep, 5)
        return "went on"
      end))
    ]])
  end)

  it("that comes twice raises at once, also out of a loop that never waits", function()
    assert.equal("false\tinterrupted\ttrue\n", script[[
      show(pcall(agather.run, function()
        interrupt()
        interrupt()
        while true do end
      end))
    ]])
  end)

  it("that comes twice ends run wherever the code is busy: another task, a callback, a generator, a run within", function()
    for _, busy in ipairs {
      "agather.spawn(twice)",
      "agather.get_running_loop():call_soon(twice)",
      "for _ in agather.coroutine.wrap(twice) do end",
      "agather.get_running_loop():call_soon(function() agather.run(twice) end)",
    } do
      local output = script([[
        local function twice() interrupt() interrupt() while true do end end
        show(pcall(agather.run, function()
          ]] .. busy .. [[

          pcall(agather.sleep, 5) -- the first one would be over with this
          return "main went on"
        end))
      ]])
      assert.equal("false\tinterrupted\ttrue\n", output:match("^[^\n]*\n"), busy)
    end
  end)

  it("is raised for each one after the first where it is caught", function()
    assert.equal("interrupted\ninterrupted\nfalse\tinterrupted\ttrue\n", script[[
      show(pcall(agather.run, function()
        interrupt()
        for _ = 1, 2 do
          local _, err = pcall(function() interrupt() while true do end end)
          print(err)
        end
        agather.sleep(5)
      end))
    ]])
  end)

  it("ends run_forever", function()
    assert.equal("false\tinterrupted\ttrue\nfalse\tinterrupted\ttrue\n", script[[
      local loop = agather.new_event_loop()
      loop:call_soon(interrupt)
      show(pcall(loop.run_forever, loop))
      loop:call_soon(function() interrupt() interrupt() while true do end end)
      show(pcall(loop.run_forever, loop))
      loop:close()
    ]])
  end)

  it("ends in KeyboardInterrupt also when main took the request back and raised", function()
    assert.equal("false\tinterrupted\ttrue\n", script[[
      show(pcall(agather.run, function()
        agather.get_running_loop():call_soon(interrupt)
        local ok, err = pcall(agather.sleep, 5)
        agather.current_task():uncancel()
        error(err)
      end))
    ]])
  end)

  it("leaves a Runner that may run again", function()
    assert.equal("false\tinterrupted\ttrue\ntrue\tagain\tfalse\n", script[[
      local runner <close> = agather.Runner()
      show(pcall(runner.run, runner, function()
        agather.get_running_loop():call_soon(interrupt)
        agather.sleep(5)
      end))
      show(pcall(runner.run, runner, function() return "again" end))
    ]])
  end)

  it("is forgotten by the next run: its cancellation is no interrupt", function()
    assert.equal("false\tinterrupted\ttrue\nfalse\tCancelledError\tfalse\n", script[[
      local runner <close> = agather.Runner()
      for i = 1, 2 do
        show(pcall(runner.run, runner, function()
          if i == 1 then interrupt() else agather.current_task():cancel() end
          agather.sleep(1)
        end))
      end
    ]])
  end)

  it("cancels the main task when a run inside it waits", function()
    assert.equal("inner\tfalse\tCancelledError\ntrue\twent on\tfalse\n", script[[
      show(pcall(agather.run, function()
        print("inner", pcall(agather.run, function()
          agather.get_running_loop():call_soon(interrupt)
          agather.sleep(5)
        end))
        return "went on"
      end))
    ]])
  end)

  it("ends the process again once run is over", function()
    local output, status = support.script(prelude .. [[
      agather.run(function() end)
      interrupt()
      print("not reached")
    ]])
    assert.equal("", output)
    assert.not_equal(0, status)
  end)
end)

local interrupts = [[
  local function interrupt() io.popen("kill -INT $PPID"):close() end
  local function show(ok, value)
    print(ok, value, agather.is_error(value, agather.KeyboardInterrupt))
  end
]]
-- lua5.4 has a SIGINT handler of its own, which gives way to the default with the first signal
local default = interrupts .. "pcall(function() interrupt() while true do end end)\n"

describe("run, as asyncio has it,", function()
  it("SIGINT cancels main under the lua5.4 program, whose own handler is in place", function()
    assert.equal("false\tinterrupted\ttrue\n", (support.script(interrupts .. [[
      show(pcall(agather.run, function()
        agather.get_running_loop():call_soon(interrupt)
        agather.sleep(5)
      end))
    ]])))
  end)

  it("SIGINT during the last step of main does no harm", function()
    local output, status = support.script(default .. [[
      show(pcall(agather.run, function() interrupt() return "done" end))
      print("alive")
    ]])
    assert.equal(0, status)
    assert.truthy(output:find("alive", 1, true))
  end)

  it("that refuses its main leaves no loop running", function()
    local output = support.script([[
      local used = agather.async(function() end)()
      agather.run(function() agather.await(used) end)
      local started = coroutine.create(function() coroutine.yield() end)
      coroutine.resume(started)
      for _, main in ipairs{ io.stdout, used, started } do
        pcall(agather.run, main)
        print(pcall(agather.get_running_loop))
      end
    ]])
    local line = "false\tget_running_loop: no running event loop (call it inside agather.run)\n"
    assert.equal(line:rep(3), output)
  end)

  it("names a future that is no main", function()
    support.virtual(function()
      raises("bad argument #1 to 'agather.run' (function or coroutine expected, got Future)", agather.run, agather.future())
    end)
  end)

  it("names the kind of userdata that is no main", function()
    local output = support.script([[print(pcall(agather.run, io.stdout))]])
    assert.equal("false\tbad argument #1 to 'agather.run' (function or coroutine expected, got FILE*)\n", output)
  end)

  it("a coro runs once: running it again is an error", function()
    local coro = agather.async(function() return 1 end)()
    agather.run(coro)
    raises("cannot reuse already awaited coroutine", agather.run, coro)
  end)

  it("says that the loop was stopped before main was done", function()
    local err = raises("Event loop stopped before Future completed.", virtual, function()
      agather.get_running_loop():stop()
      agather.sleep(1)
    end)
    assert.is_true(agather.is_error(err, agather.RuntimeError))
  end)

  it("a run in a callback goes on when main ends meanwhile", function()
    local got
    virtual(function()
      agather.get_running_loop():call_soon(function() got = agather.run(agather.sleep, 1, "slept") end)
      agather.sleep(0)
      agather.sleep(0)
    end)
    assert.equal("slept", got)
  end)

  it("Runner keeps the context over its runs", function()
    local variable = agather.ContextVar("variable", "default")
    local runner <close> = agather.Runner()
    runner:run(function() variable:set("first run") end)
    assert.equal("first run", runner:run(function() return variable:get() end))
    assert.equal("default", variable:get())
  end)

  it("Runner says which option it does not know", function()
    raises("unknown option 'clocks' of Runner", agather.Runner, { clocks = "virtual" })
  end)

  it("Runner's methods refuse what is no Runner", function()
    local output, status = support.script([[
      local runner = agather.Runner()
      for _, name in ipairs{ "run", "get_loop", "close" } do
        for _, other in ipairs{ { loop = io.stdout }, {} } do
          local ok, err = pcall(runner[name], other, print)
          assert(not ok and tostring(err):find("Runner expected"), name .. ": " .. tostring(err))
        end
      end
    ]])
    assert.equal("", output)
    assert.equal(0, status)
  end)
end)
