local agather = require "agather"
local support = require "spec.support"
local system = require "spec.support.system"

local function send(name) assert(os.execute(("kill -%s %d"):format(name:gsub("^SIG", ""), system.pid))) end

local caught = system.caught

describe("signal.wait", function()
  it("returns the name of the signal that came", function()
    agather.run(function()
      local waiting = agather.spawn(agather.signal.wait, "SIGUSR1")
      agather.sleep(0)
      send("SIGUSR1")
      assert.equal("SIGUSR1", waiting:await())
    end)
  end)

  it("waits for the first of several signals", function()
    agather.run(function()
      local waiting = agather.spawn(agather.signal.wait, "SIGUSR1", "SIGUSR2", "SIGUSR1")
      agather.sleep(0)
      send("SIGUSR2")
      assert.equal("SIGUSR2", waiting:await())
    end)
  end)

  it("wakes every task that waits for the signal", function()
    agather.run(function()
      local group = agather.gather(function() return agather.signal.wait("SIGUSR1") end,
        function() return agather.signal.wait("SIGUSR1", "SIGHUP") end)
      support.turns(2)
      send("SIGUSR1")
      assert.same({ "SIGUSR1", "SIGUSR1", n = 2 }, group:await())
    end)
  end)

  it("is no deadlock while nothing else is left", function()
    os.execute(("(sleep 0.05; kill -USR1 %d) &"):format(system.pid))
    assert.equal("SIGUSR1", agather.run(agather.signal.wait, "SIGUSR1"))
  end)

  it("gives the signal back what it did before, whether it came or the wait was cancelled", function()
    local before = caught()
    agather.run(function()
      local during = caught()
      local one = agather.spawn(agather.signal.wait, "SIGUSR1")
      local other = agather.spawn(agather.signal.wait, "SIGUSR1")
      support.turns(2)
      assert.not_equal(during, caught())
      one:cancel()
      support.turns(2)
      send("SIGUSR1")
      assert.equal("SIGUSR1", other:await())
      assert.is_true(one:cancelled())
      assert.equal(during, caught())
    end)
    assert.equal(before, caught())
  end)

  it("leaves a signal ignored that was ignored before", function()
    local output = support.script([[
      agather.run(function()
        local waiting = agather.spawn(agather.signal.wait, "SIGUSR1")
        agather.sleep(0)
        io.popen("kill -USR1 $PPID"):close()
        print(waiting:await())
        io.popen("kill -USR1 $PPID"):close()
        print("still here")
      end)
    ]], "trap '' USR1;")
    assert.equal("SIGUSR1\nstill here\n", output)
  end)

  it("gives an ignored signal back with no moment in between in which it would end the process", function()
    for _, pool in ipairs { "false", "true" } do
      local output = support.script(([[
        agather.run(function()
          if %s then agather.fs.exists("/") end -- with the threads of libuv's pool
          local pid = io.open("/proc/self/stat"):read("n")
          local child <close> = agather.process.spawn {
            "perl", "-e", "1 while kill('USR1', $ARGV[0])", tostring(pid),
          }
          for round = 1, 5000 do
            agather.signal.on("SIGUSR1", print):close()
            if round %% 100 == 0 then agather.sleep(0.0005) end
          end
        end)
        print("still here")
      ]]):format(pool), "trap '' USR1;")
      assert.equal("still here\n", output)
    end
  end)

  it("ends with a timeout", function()
    agather.run(function()
      local raised = support.raises("", agather.wait_for, function() agather.signal.wait("SIGUSR1") end, 0.01)
      assert.is_true(agather.is_error(raised, agather.TimeoutError))
    end)
  end)

  it("names the argument that is no signal", function()
    agather.run(function()
      support.raises("bad argument #1 to 'wait' (name of a signal expected, got no value)", agather.signal.wait)
      support.raises("bad argument #2 to 'wait' (unknown signal 'SIGNONE')", agather.signal.wait, "SIGHUP", "SIGNONE")
      support.raises("bad argument #1 to 'wait' (name of a signal expected, got table)", agather.signal.wait, {})
      support.raises("bad argument #1 to 'wait' ('SIGKILL' cannot be waited for)", agather.signal.wait, "SIGKILL")
      support.raises("bad argument #1 to 'wait' ('SIGSEGV' cannot be waited for)", agather.signal.wait, "SIGSEGV")
    end)
  end)

  it("needs a running loop", function() support.raises("no running event loop", agather.signal.wait, "SIGHUP") end)

  it("takes SIGINT from run, and gives it back", function()
    local output, status = support.script([[
      local pid = io.open("/proc/self/stat"):read("n")
      local function interrupt() io.popen("kill -INT " .. pid):close() end -- os.execute ignores SIGINT meanwhile
      local ok, raised = pcall(agather.run, function()
        local waiting = agather.spawn(agather.signal.wait, "SIGINT")
        agather.sleep(0)
        interrupt()
        print(waiting:await())
        interrupt()
        agather.sleep(5)
      end)
      print(ok, agather.is_error(raised, agather.KeyboardInterrupt))
      agather.run(function() agather.spawn(agather.signal.wait, "SIGINT") agather.sleep(0) end)
      interrupt()
      io.popen("sleep 0.1"):close()
      print "not reached: without a run SIGINT is what it was, the end of the script"
    ]])
    assert.equal("SIGINT\nfalse\ttrue\n", output:match("^[^\n]*\n[^\n]*\n"))
    assert.is_nil(output:find("not reached", 1, true))
    assert.not_equal(0, status)
  end)
end)

describe("signal.on", function()
  it("calls the function each time the signal comes, until it is closed", function()
    local before = caught()
    agather.run(function()
      local log, say = support.log()
      local handler <close> = agather.signal.on("SIGUSR1", function(name)
        say(name)
        agather.sleep(0)
        say("after")
      end)
      for turn = 1, 3 do
        send("SIGUSR1")
        while #log < 2 * turn do agather.sleep(0) end
      end
      assert.same({ "SIGUSR1", "after", "SIGUSR1", "after", "SIGUSR1", "after" }, log)
      handler:close()
      handler:close()
      agather.sleep(0)
      assert.equal(1, #agather.all_tasks())
    end)
    assert.equal(before, caught())
  end)

  it("goes on after the function raised, and reports what it raised", function()
    local reports = {}
    agather.run(function()
      agather.get_running_loop():set_exception_handler(function(context) reports[#reports + 1] = context end)
      local calls = 0
      local handler <close> = agather.signal.on("SIGUSR1", function()
        calls = calls + 1
        error("failure " .. calls, 0)
      end)
      for turn = 1, 2 do
        send("SIGUSR1")
        while calls < turn do agather.sleep(0) end
      end
      assert.is_not_nil(handler)
    end)
    assert.equal(2, #reports)
    assert.equal("failure 1", tostring(reports[1].exception))
  end)

  it("lives without a reference to its handler, and ends with the run", function()
    local before = caught()
    agather.run(function()
      local came = agather.future()
      agather.signal.on("SIGUSR1", function(name) came:set_result(name) end)
      collectgarbage()
      agather.sleep(0)
      collectgarbage()
      send("SIGUSR1")
      assert.equal("SIGUSR1", came:await())
    end)
    assert.equal(before, caught())
  end)

  it("refuses what is no function", function()
    agather.run(function()
      support.raises("bad argument #2 to 'on' (function expected, got nil)", agather.signal.on, "SIGHUP")
      support.raises("bad argument #1 to 'on' (unknown signal 'HUP')", agather.signal.on, "HUP", print)
    end)
  end)

  it("closed before its first turn hears nothing and leaves nothing", function()
    local before = caught()
    agather.run(function()
      local during = caught()
      agather.signal.on("SIGUSR1", print):close()
      assert.equal(during, caught())
    end)
    assert.equal(before, caught())
  end)
end)
