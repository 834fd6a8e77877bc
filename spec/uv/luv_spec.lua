-- Lua's luv in the same state: the two loops are driven together. Each script has a process of its own, so that luv is
-- in no other spec's state.
local agather = require "agather"
local support = require "spec.support"

local has_luv = package.searchpath("luv", package.cpath) ~= nil

local prelude = [[
  require "spec.support.collector"
  local uv = require "luv"
  local function after(ms, ...)
    local results = table.pack(...)
    return agather.from_callback(function(done)
      local timer = uv.new_timer()
      timer:start(ms, 0, function()
        timer:close()
        done(table.unpack(results, 1, results.n))
      end)
      return function() timer:close() end
    end)
  end
]]

local function script(text) return support.script(prelude .. text) end

-- The same as a task of a host that waits for nothing but what the loop says.
local function stepped(text)
  local core = assert(package.searchpath("agather.core", package.cpath))
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write("local agather = require 'agather'\n", prelude, text)
  file:close()
  local pipe = assert(io.popen("timeout 10 " .. core:gsub("agather/core%.so$", "stepping") .. " " .. path .. " 2>&1"))
  local output = pipe:read("a")
  local ok = pipe:close()
  os.remove(path)
  return output, ok
end

local function prints(expected, text)
  local output, status = script(text)
  assert.equal(expected, output)
  assert.equal(0, status or 0)
end

describe("luv", function()
  if not has_luv then
    it("is driven together with the loop", function() pending("lua-luv is missing: nothing was run beside it") end)
    return
  end

  it("runs its timers while tasks sleep, and they go on sleeping", function()
    prints("3 ticks\n", [[
      agather.run(function()
        local ticks, naps = 0, 0
        local timer = uv.new_timer()
        timer:start(1, 1, function()
          ticks = ticks + 1
          if ticks == 3 then timer:close() end
        end)
        while ticks < 3 or naps < 3 do
          agather.sleep(0.001)
          naps = naps + 1
        end
        print(ticks .. " ticks")
      end)
    ]])
  end)

  it("has its turns in a run within a finalizer, which may come while luv is asked what it wants", function()
    prints("ran\ttrue\n20\n", [[
      collectgarbage("incremental", 1, 1000, 100) -- a cycle at each allocation, so also in there
      local result
      local function set()
        setmetatable({}, { __gc = function()
          if result ~= nil then return end
          if not debug.traceback():find("luv.lua", 1, true) then return set() end
          result = { pcall(agather.run, function() after(1):await() return true end) }
        end })
      end
      agather.run(function()
        local ticks = 0
        local timer = uv.new_timer()
        timer:start(1, 1, function()
          ticks = ticks + 1
          if ticks == 20 then timer:close() end
        end)
        collectgarbage()
        set()
        while ticks < 20 or not result do agather.sleep(0.001) end
        print("ran", result[2])
        print(ticks)
      end)
    ]])
  end)

  it("settles futures from its callbacks", function()
    prints("a\tnil\tb\n", [[
      agather.run(function() print(after(1, "a", nil, "b"):await()) end)
    ]])
  end)

  it("wakes a task while another one waits for longer", function()
    prints("luv, then agather\n", [[
      agather.run(function()
        local order = {}
        local long = agather.spawn(function() agather.sleep(3600) end)
        after(5):await()
        order[1] = "luv"
        agather.sleep(0.001)
        order[2] = "agather"
        long:cancel()
        print(table.concat(order, ", then "))
      end)
    ]])
  end)

  it("serves a connection that agather.net opened", function()
    prints("HELLO\n", [[
      agather.run(function()
        local server = uv.new_tcp()
        server:bind("127.0.0.1", 0)
        server:listen(8, function()
          local peer = uv.new_tcp()
          server:accept(peer)
          peer:read_start(function(_, data)
            collectgarbage()
            if data then peer:write(data:upper()) else peer:close() server:close() end
          end)
        end)
        local stream <close> = agather.net.connect("127.0.0.1", server:getsockname().port)
        stream:write("hello\n")
        print(stream:read("l"))
      end)
    ]])
  end)

  it("finishes requests on its thread pool", function()
    prints("directory\n", [[
      agather.run(function()
        local stat = agather.from_callback(function(done, fail)
          uv.fs_stat("/", function(err, stat)
            if err then fail(err) else done(stat) end
          end)
        end):await()
        print(stat.type)
      end)
    ]])
  end)

  it("raises in the awaiter the error that a callback was given", function()
    prints("false\tENOENT\n", [[
      agather.run(function()
        print(pcall(agather.await, agather.from_callback(function(done, fail)
          uv.fs_stat("/nowhere", function(err, stat)
            if err then fail(err:match("^%w+")) else done(stat) end
          end)
        end)))
      end)
    ]])
  end)

  it("is found when a task loads it while others run", function()
    local output = support.script([[
      agather.run(function()
        agather.spawn(function() agather.sleep(0.01) end)
        agather.sleep(0.001)
        local uv = require "luv"
        local ended = agather.future()
        local timer = uv.new_timer()
        timer:start(1, 0, function() timer:close() ended:set_result("late") end)
        print(ended:await())
      end)
    ]])
    assert.equal("late\n", output)
  end)

  it("has its turns in each of several runs", function()
    prints("1\n2\n3\n", [[
      for i = 1, 3 do
        agather.run(function() print(after(1, i):await()) end)
        collectgarbage()
      end
    ]])
  end)

  it("has its turns though a task is always ready", function()
    prints("true\n", [[
      agather.run(function()
        local future = after(1, true)
        while not future:done() do agather.sleep(0) end
        print(future:result())
      end)
    ]])
  end)

  it("lets tasks go on though one of its handles is always ready", function()
    prints("woken\n", [[
      agather.run(function()
        local idle = uv.new_idle()
        idle:start(function() end)
        agather.sleep(0.005)
        print("woken")
        -- luv by itself ends badly where the state closes before this callback was called
        agather.from_callback(function(done) idle:close(done) end):await()
      end)
    ]])
  end)

  it("keeps a loop from being dead while a handle is alive, and not for longer", function()
    prints("alive\nDeadlockError\n", [[
      local ok, raised = pcall(agather.run, function()
        local timer = uv.new_timer()
        timer:start(5, 0, function() print("alive") timer:close() end)
        agather.future():await()
      end)
      print(not ok and agather.is_error(raised, agather.DeadlockError) and "DeadlockError" or raised)
    ]])
  end)

  it("does not keep a loop alive by handles that are unreferenced", function()
    prints("DeadlockError\n", [[
      local ok, raised = pcall(agather.run, function()
        local timer = uv.new_timer()
        timer:start(3600e3, 0, print)
        timer:unref()
        agather.future():await()
      end)
      print(not ok and agather.is_error(raised, agather.DeadlockError) and "DeadlockError" or raised)
    ]])
  end)

  it("is told when a timeout cancels what waits for it", function()
    prints("TimeoutError\n0\n", [[
      agather.run(function()
        local ok, raised = pcall(agather.wait_for, after(3600e3), 0.005)
        print(not ok and agather.is_error(raised, agather.TimeoutError) and "TimeoutError" or raised)
      end)
      local open = 0
      uv.walk(function(handle) if not handle:is_closing() then open = open + 1 end end)
      print(open)
      uv.run("nowait") -- luv by itself ends badly where the state closes before a handle has closed
    ]])
  end)

  it("is not entered again by a run inside one of its callbacks", function()
    prints("slept\nDeadlockError\ntimer\n", [[
      local timer = uv.new_timer()
      timer:start(1, 0, function()
        timer:close()
        local other = uv.new_timer()
        other:start(1, 0, function() other:close() print("timer") end)
        agather.run(function() agather.sleep(0.005) print("slept") end)
        local ok, raised = pcall(agather.run, function() agather.future():await() end)
        print(not ok and agather.is_error(raised, agather.DeadlockError) and "DeadlockError" or raised)
      end)
      uv.run()
    ]])
  end)

  it("may be run by a task itself", function()
    prints("timer\ntrue\n", [[
      agather.run(function()
        agather.sleep(0)
        local timer = uv.new_timer()
        timer:start(1, 0, function() timer:close() print("timer") end)
        uv.run()
        print(after(1, true):await())
      end)
    ]])
  end)

  it("may start tasks from its callbacks", function()
    prints("Task-2\ttrue\n", [[
      agather.run(function()
        local task = agather.from_callback(function(done)
          local timer = uv.new_timer()
          timer:start(1, 0, function()
            timer:close()
            done(agather.spawn(function()
              agather.sleep(0.001)
              return agather.current_task():get_name(), true
            end))
          end)
        end):await()
        print(task:await())
      end)
    ]])
  end)

  it("may have handles left when a run and the process end", function()
    prints("end\n", [[
      agather.run(function()
        uv.new_timer():start(3600e3, 0, print)
        uv.new_tcp():bind("127.0.0.1", 0)
        agather.sleep(0.001)
      end)
      print("end")
    ]])
  end)

  it("ends the process itself where an error leaves one of its callbacks", function()
    local output, status = script [[
      agather.run(function()
        uv.new_timer():start(1, 0, function() error("in a callback") end)
        agather.sleep(1)
        print("not reached")
      end)
    ]]
    assert.truthy(output:find("in a callback", 1, true), output)
    assert.is_nil(output:find("not reached", 1, true))
    assert.not_equal(0, status)
  end)

  it("has its turns in the steps of a host, where a task joins it", function()
    local output, ok = stepped([[
      print(require("agather.luv").join())
      for i = 1, 3 do print(after(5, i):await()) end
      local stat = agather.from_callback(function(done) uv.fs_stat("/", function(_, stat) done(stat) end) end):await()
      print(stat.type)
    ]])
    assert.equal("true\n1\n2\n3\ndirectory\n", output)
    assert.is_true(ok)
  end)

  it("is left alone when its loop was closed", function()
    prints("false\nslept\n", [[
      agather.run(function()
        agather.sleep(0.001)
        uv.loop_close()
        agather.sleep(0.001)
      end)
      agather.run(function()
        print(require("agather.luv").join())
        agather.sleep(0.001)
        print("slept")
      end)
    ]])
  end)

  it("that cannot be joined is reported once", function()
    local output = support.script [[
      agather.run(function()
        agather.get_running_loop():set_exception_handler(function(context) print(context.message) end)
        package.loaded.luv = {}
        for _ = 1, 3 do agather.sleep(0.001) end
      end)
    ]]
    assert.equal("Exception while luv was joined to the loop\n", output)
  end)
end)

describe("join", function()
  it("refuses what is no descriptor and no function", function()
    local uv = require "agather.uv"
    support.raises("join' (number expected, got string)", uv.join, "x")
    support.raises("join' (function expected, got no value)", uv.join, 0)
    support.raises("join: no running event loop", uv.join, 0, print)
  end)

  it("raises an OSError where the descriptor cannot be watched", function()
    local uv = require "agather.uv"
    agather.run(function()
      local raised = support.raises("join", uv.join, 9999, function() end)
      assert.is_true(agather.is_error(raised, agather.OSError))
    end)
  end)
end)
