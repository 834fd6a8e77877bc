local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"

local virtual = support.virtual

local function kilobytes()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count")
end

describe("the state", function()
  it("holds pending tasks that nobody else holds", function()
    virtual(function()
      local finished = 0
      for _ = 1, 10 do
        agather.spawn(function()
          local future = agather.future()
          agather.get_running_loop():call_later(1, function() future:set_result() end)
          collectgarbage()
          future:await()
          finished = finished + 1
        end)
      end
      agather.sleep(0)
      collectgarbage()
      agather.sleep(2)
      assert.equal(10, finished)
    end)
  end)

  it("lets go of tasks, futures and results when they are done and nobody holds them", function()
    virtual(function()
      local held = setmetatable({}, { __mode = "v" })
      do
        local result = {}
        local task = agather.spawn(function() return result end)
        local future = agather.future()
        future:set_result(result)
        task:await()
        held.task, held.future, held.result = task, future, result
      end
      agather.sleep(0)
      collectgarbage()
      assert.is_nil(held.task)
      assert.is_nil(held.future)
      assert.is_nil(held.result)
    end)
  end)

  it("lets go of arguments and locals when the task ends", function()
    virtual(function()
      local held = setmetatable({}, { __mode = "v" })
      local task
      do
        local argument = {}
        held.argument = argument
        task = agather.spawn(function(value)
          held.locals = { value }
          local keep <const> = held.locals
          agather.sleep(1)
          return #keep
        end, argument)
      end
      assert.equal(1, task:await())
      for i = 1, 3 do agather.spawn(agather.sleep, i):await() end
      collectgarbage()
      assert.is_nil(held.argument)
      assert.is_nil(held.locals)
    end)
  end)

  it("closes the descriptors of its loops", function()
    agather.run(support.turns, 1)
    local before = net.descriptors()
    for _ = 1, 10 do agather.run(support.turns, 1) end
    assert.equal(before, net.descriptors())
  end)

  it("uses no more memory after a hundred thousand tasks one after another than after ten thousand", function()
    virtual(function()
      local function work(count)
        for i = 1, count do agather.spawn(function() return i end):await() end
      end
      work(10000) -- what other specs have left is settled then, too
      local before = kilobytes()
      work(100000)
      assert.is_true(kilobytes() - before < 64)
    end)
  end)

  it("uses no more memory after thousands of failures, cancellations, futures, gathers and callbacks", function()
    virtual(function()
      local loop = agather.get_running_loop()
      local function work(count)
        for _ = 1, count do
          local future = agather.future()
          loop:call_soon(future.set_result, future)
          future:await()
          pcall(agather.await, agather.spawn(error, "wanted"))
          local sleeper = agather.spawn(agather.sleep, 1)
          sleeper:cancel()
          pcall(agather.await, sleeper)
          agather.gather(function() return 1, 2, 3, 4 end, function() end):await()
          loop:call_later(5, error):cancel()
        end
      end
      work(3000) -- what other specs have left is settled then, too
      local before = kilobytes()
      work(3000)
      assert.is_true(kilobytes() - before < 64)
    end)
  end)

  it("gives most of the memory of many tasks at once back", function()
    virtual(function()
      local function job() agather.sleep(1) end
      local function work(count)
        local list = {}
        for i = 1, count do list[i] = agather.spawn(job) end
        agather.gather_list(list):await()
      end
      work(10)
      local before = kilobytes()
      work(20000)
      local peak = kilobytes() - before
      for _ = 1, 300 do work(100) end
      local kept = kilobytes() - before
      assert.is_true(kept < peak / 4, ("kept %.0f of %.0f KB"):format(kept, peak))
    end)
  end)

  it("goes on with hooks set by debug.sethook", function()
    virtual(function()
      local lines = 0
      local task = agather.spawn(function()
        debug.sethook(function() lines = lines + 1 end, "l")
        agather.sleep(1)
        local x = 1
        x = x + 1
        debug.sethook()
        return x
      end)
      assert.equal(2, task:await())
      assert.is_true(lines >= 3)
      local before = lines
      agather.spawn(function() agather.sleep(1) end):await()
      assert.equal(before, lines)
    end)
  end)

  it("ends in any order when the program ends in the middle", function()
    local output, status = support.script([[
      agather.run(function()
        local runner = agather.Runner
        for i = 1, 10 do
          agather.spawn(function()
            local held <close> = setmetatable({}, { __close = function() end })
            agather.future():await()
          end)
        end
        agather.async(function() end)()
        agather.future():set_exception("x")
        agather.sleep(0)
        io.stdout:write("leaving\n")
        os.exit(3, true)
      end)
    ]])
    assert.equal("leaving\n", output:sub(1, 8))
    assert.equal(3, status)
  end)

  it("ends with loops that were never closed", function()
    local output, status = support.script([[
      runner = agather.Runner()
      loop = agather.new_event_loop()
      loop:call_later(5, print)
      future = loop:create_future()
      task = loop:create_task(function() end)
      loop:run_until_complete(function() agather.sleep(0) end)
      context = agather.copy_context()
      print("end")
    ]])
    assert.equal("end\n", output)
    assert.equal(0, status)
  end)

  it("is one: requiring the module again gives the same loop", function()
    virtual(function()
      local core = require "agather.core"
      package.loaded["agather.core"] = nil
      local again = require "agather.core"
      package.loaded["agather.core"] = core
      assert.equal(core, again)
      assert.equal(agather.get_running_loop(), again.get_running_loop())
    end)
  end)

  it("has a version", function()
    assert.truthy(tostring(agather._VERSION):find("%d"))
  end)
end)

describe("a loop that has ended", function()
  it("leaves another's callback where it is, after many tasks", function()
    local other <close> = agather.Runner()
    local loop, called = other:get_loop(), false
    virtual(function()
      for _ = 1, 3000 do agather.spawn(function() agather.sleep(1) end) end
      agather.sleep(0)
      loop:call_soon(function() called = true end) -- kept behind all of them
      agather.sleep(2)
    end)
    other:run(function() agather.sleep(0) end)
    assert.is_true(called)
  end)
end)
