local agather = require "agather"
local support = require "spec.support"

local capture, raises, virtual = support.capture, support.raises, support.virtual

-- Enough turns for a failure that nobody can ask for to be noticed.
local function let_reports_come()
  for _ = 1, 5 do
    collectgarbage()
    agather.sleep(0)
  end
end

local function messages(reports)
  local list = {}
  for i, context in ipairs(reports) do list[i] = context.message end
  return list
end

describe("report", function()
  it("comes for a failed task that nobody can ask any more, with task, error and traceback", function()
    local reports = capture(function(reports)
      agather.create_task(function() error("lost", 0) end, { name = "loser" })
      let_reports_come()
      assert.equal(1, #reports)
    end)
    assert.same({ "Task exception was never retrieved" }, messages(reports))
    assert.equal("loser", reports[1].task:get_name())
    assert.is_nil(reports[1].future)
    assert.equal("lost", reports[1].exception.value)
    assert.truthy(reports[1].exception.traceback:find("report_spec.lua:", 1, true))
  end)

  it("comes when the loop closes for a failed task that is still held", function()
    local task
    local reports = capture(function(reports)
      task = agather.spawn(function() error("held", 0) end)
      let_reports_come()
      assert.equal(0, #reports)
    end)
    assert.same({ "Task exception was never retrieved" }, messages(reports))
    assert.equal(task, reports[1].task)
  end)

  it("comes for a future and for a gather", function()
    local reports = capture(function()
      agather.future():set_exception("future lost")
      agather.gather(function() error("gather lost", 0) end)
      agather.sleep(1)
    end)
    table.sort(reports, function(a, b) return a.message < b.message end)
    assert.same({ "Future exception was never retrieved", "Gather exception was never retrieved" }, messages(reports))
    assert.equal("future lost", reports[1].exception.value)
    assert.equal("gather lost", reports[2].exception.value)
    assert.is_nil(reports[1].task)
    assert.truthy(reports[1].future)
  end)

  it("comes in time while the loop waits for something else, though looking takes long", function()
    agather.run(function()
      local ballast, heard = {}, agather.Queue()
      for i = 1, 2e5 do ballast[i] = {} end
      local loop = agather.get_running_loop()
      loop:set_exception_handler(function(context) heard:put_nowait(context.message) end)
      for _ = 1, 2 do -- the second follows so soon that it is looked for later
        agather.spawn(error, "lost")
        assert.equal("Task exception was never retrieved", agather.wait_for(function() return heard:get() end, 20))
      end
      assert.equal(2e5, #ballast)
    end)
  end)

  it("comes once", function()
    local reports = capture(function()
      do
        local task = agather.spawn(function() error("lost", 0) end)
        task:add_done_callback(function() end)
        agather.sleep(1)
      end
      for _ = 1, 5 do let_reports_come() end
    end)
    assert.equal(1, #reports)
  end)

  local retrievals = {
    await = function(task) pcall(task.await, task) end,
    result = function(task) pcall(task.result, task) end,
    exception = function(task) task:exception() end,
    cancel = function(task) task:cancel() end,
    gather = function(task) pcall(agather.await, agather.gather(task)) end,
    ["gather with return_exceptions"] = function(task) agather.gather(task, { return_exceptions = true }):await() end,
    ["a callback that asks"] = function(task)
      task:add_done_callback(function() task:exception() end)
      agather.sleep(0)
    end,
  }
  for name, retrieve in pairs(retrievals) do
    it("does not come for a failure that was retrieved: " .. name, function()
      local reports = capture(function()
        local task = agather.spawn(function() error("known", 0) end)
        agather.sleep(0)
        retrieve(task)
        let_reports_come()
      end)
      assert.same({}, messages(reports))
    end)
  end

  it("does not come for a cancelled task", function()
    local reports = capture(function()
      agather.spawn(agather.sleep, 10)
      local task = agather.spawn(agather.sleep, 10)
      agather.sleep(0)
      task:cancel()
      let_reports_come()
    end)
    assert.same({}, messages(reports))
  end)

  it("does not come for the later errors of a gather that has failed", function()
    local reports = capture(function()
      pcall(agather.await, agather.gather(
        function() error("first", 0) end,
        function()
          agather.sleep(1)
          error("second", 0)
        end))
      agather.sleep(2)
      let_reports_come()
    end)
    assert.same({}, messages(reports))
  end)

  it("comes for a coro that was never awaited, with its function", function()
    local reports = capture(function(reports)
      agather.async(function() end, "forgotten")()
      collectgarbage()
      agather.sleep(0)
      agather.sleep(0)
      assert.equal(1, #reports)
    end)
    assert.equal(1, #reports)
    assert.truthy(reports[1].message:find(
      "^coroutine forgotten <spec/core/report_spec.lua:%d+> was never awaited$"))
  end)

  it("tells in debug mode where the coro was made", function()
    local line
    local reports = capture(function()
      line = debug.getinfo(1, "l").currentline + 1
      agather.async(function() end, "forgotten")()
    end, { debug = true })
    assert.equal(1, #reports)
    assert.truthy(reports[1].message:find("^spec/core/report_spec.lua:" .. line
      .. ": coroutine forgotten <spec/core/report_spec.lua:%d+>, made here, was never awaited$"))
  end)

  it("tells where the coro was made when AGATHER_DEBUG is set", function()
    local script = [[
      agather.run(function()
        agather.async(function() end, "forgotten")()
      end)
    ]]
    assert.truthy(support.script(script, "AGATHER_DEBUG=1"):find(
      ":3: coroutine forgotten <.-:3>, made here, was never awaited\n"))
    assert.truthy(support.script(script, "AGATHER_DEBUG=0"):find("^coroutine forgotten <.-:3> was never awaited\n"))
  end)

  it("does not come for a coro that failed, was cancelled before it started, or became a task", function()
    local reports = capture(function()
      pcall(agather.await, agather.async(function() error("x") end)())
      agather.create_task(agather.async(function() end)()):cancel()
      agather.gather(agather.async(function() end)()):await()
      let_reports_come()
    end)
    assert.same({}, messages(reports))
  end)

  it("comes to the loop of the task, though another looks for what is to be reported", function()
    local strays = {}
    local reports = capture(function(reports)
      agather.spawn(error, "lost")
      agather.sleep(0)
      local other <const> = agather.new_event_loop()
      other:set_exception_handler(function(context) strays[#strays + 1] = context end)
      collectgarbage()
      collectgarbage()
      other:close()
      assert.equal(1, #reports)
    end)
    assert.same({ "Task exception was never retrieved" }, messages(reports))
    assert.same({}, messages(strays))
  end)

  it("names a task that is still pending when its loop closes", function()
    local reports = {}
    local loop <const> = agather.new_event_loop()
    loop:set_exception_handler(function(context) reports[#reports + 1] = context end)
    local task = loop:create_task(function() agather.sleep(10) end, { name = "left" })
    loop:run_until_complete(function() agather.sleep(0) end)
    loop:close()
    assert.same({ "Task was destroyed but it is pending!" }, messages(reports))
    assert.equal(task, reports[1].task)
    assert.equal("left", reports[1].task:get_name())
  end)

  it("closes what such a task left open", function()
    local closed = false
    local loop <const> = agather.new_event_loop()
    loop:set_exception_handler(function() end)
    loop:create_task(function()
      local _ <close> = support.closing(function() closed = true end)
      agather.sleep(10)
    end)
    loop:run_until_complete(function() agather.sleep(0) end)
    loop:close()
    assert.is_true(closed)
  end)
end)

describe("the exception handler", function()
  it("is called in no task, and its loop still runs", function()
    local seen = {}
    virtual(function()
      local loop = agather.get_running_loop()
      loop:set_exception_handler(function()
        seen.task = tostring(agather.current_task())
        seen.loop = agather.get_running_loop()
      end)
      loop:call_soon(error, "x")
      agather.sleep(0)
      assert.equal("nil", seen.task)
      assert.equal(loop, seen.loop)
    end)
  end)

  it("gets the very context of call_exception_handler", function()
    virtual(function()
      local loop, got = agather.get_running_loop(), nil
      loop:set_exception_handler(function(context) got = context end)
      local context = { message = "mine", extra = 5 }
      loop:call_exception_handler(context)
      assert.equal(context, got)
    end)
  end)

  it("may be taken away with nil", function()
    local output = support.script([[
      agather.run(function()
        local loop = agather.get_running_loop()
        loop:set_exception_handler(function() print("handler") end)
        loop:call_exception_handler{ message = "first" }
        loop:set_exception_handler(nil)
        loop:call_exception_handler{ message = "second" }
      end)
    ]])
    assert.equal("handler\nsecond\n", output)
  end)

  it("that fails is itself reported to stderr, and so is what it was given", function()
    local output, status = support.script([[
      agather.run(function()
        local loop = agather.get_running_loop()
        loop:set_exception_handler(function() error("bad handler", 0) end)
        loop:call_exception_handler{ message = "the report" }
        agather.sleep(0)
      end)
      print("went on")
    ]])
    assert.equal("went on\nException in the exception handler: bad handler\nthe report\n", output)
    assert.equal(0, status)
  end)

  it("says what it needs", function()
    virtual(function()
      local loop = agather.get_running_loop()
      raises("bad argument #1 to 'call_exception_handler' (table expected, got number)", function()
        loop:call_exception_handler(5)
      end)
      raises("(Loop expected", loop.call_exception_handler, 5, {})
    end)
  end)
end)

describe("stderr", function()
  it("gets what nobody handles: message, task, error and traceback", function()
    local output, status = support.script([[
      agather.run(function()
        agather.create_task(function() error("lost") end, { name = "loser" })
        agather.sleep(0.001)
      end)
    ]])
    assert.equal(0, status)
    assert.truthy(output:find("^Task exception was never retrieved\n"
      .. "  <Task failed name='loser' coro=function <[^>]+:3>>\n"
      .. "[^\n]+:3: lost\nstack traceback:\n\t"), output)
  end)

  it("gets failures of callbacks", function()
    local output = support.script([[
      agather.run(function()
        agather.get_running_loop():call_soon(function() error("bad callback", 0) end)
        agather.sleep(0)
      end)
    ]])
    assert.truthy(output:find("^Exception in callback function <[^>]+:3>\nbad callback\n"), output)
  end)

  it("gets futures, coros that were never awaited and tasks left pending", function()
    local output = support.script([[
      local loop = agather.new_event_loop()
      loop:create_task(function() agather.sleep(10) end, { name = "left" })
      loop:run_until_complete(function()
        agather.sleep(0)
        agather.future():set_exception("future lost")
        agather.async(function() end, "forgotten")()
      end)
      loop:close()
    ]])
    assert.truthy(output:find("Future exception was never retrieved\n  <Future failed>\nfuture lost\n", 1, true))
    assert.truthy(output:find("coroutine forgotten <[^>]+> was never awaited\n"))
    assert.truthy(output:find("Task was destroyed but it is pending!\n  <Task pending name='left' ", 1, true))
  end)

  it("gets nothing from a run in which all is retrieved", function()
    local output, status = support.script([[
      print(agather.run(function()
        local task = agather.spawn(function() error("known", 0) end)
        local ok, err = pcall(task.await, task)
        return err
      end))
    ]])
    assert.equal("known\n", output)
    assert.equal(0, status)
  end)
end)

describe("a report", function()
  it("a context without message has the default one", function()
    local output = support.script([[agather.new_event_loop():call_exception_handler({})]])
    assert.equal("Unhandled exception in event loop\n", output)
  end)
end)
