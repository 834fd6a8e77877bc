local agather = require "agather"
local support = require "spec.support"

describe("the loop's wait", function()
  it("lasts as long as the next timer asks for, and uses no processor time", function()
    agather.run(function()
      local loop = agather.get_running_loop()
      local start, used = loop:time(), os.clock()
      agather.sleep(0.04)
      local elapsed = loop:time() - start
      assert.is_true(elapsed >= 0.04 - 1e-6 and elapsed < 1, "slept " .. elapsed)
      assert.is_true(os.clock() - used < 0.03)
    end)
  end)

  it("is no wait while something is ready", function()
    agather.run(function()
      local loop = agather.get_running_loop()
      loop:call_later(5, function() end)
      local start = loop:time()
      support.turns(100)
      assert.is_true(loop:time() - start < 1)
    end)
  end)

  it("is idle again after it was woken", function()
    local output = support.script [[
      agather.run(function()
        pcall(function()
          io.popen("kill -INT $PPID"):close()
          agather.sleep(5)
        end)
        local before = os.clock()
        agather.sleep(0.5)
        print(os.clock() - before < 0.02)
      end)
    ]]
    assert.equal("true\n", output)
  end)

  it("runs sleeps of different tasks side by side", function()
    agather.run(function()
      local loop = agather.get_running_loop()
      local start, list = loop:time(), {}
      for i = 1, 100 do list[i] = agather.spawn(agather.sleep, 0.02) end
      agather.gather_list(list):await()
      local elapsed = loop:time() - start
      assert.is_true(elapsed >= 0.02 - 1e-6 and elapsed < 1)
    end)
  end)

  it("ends when a signal comes", function()
    local output = support.script([[
      -- The interpreter's own handler of SIGINT answers the first signal and leaves the default.
      pcall(function() io.popen("kill -INT $PPID"):close() while true do end end)
      io.popen("(sleep 0.02; kill -INT $PPID) &"):close()
      local start = os.time()
      print(pcall(agather.run, agather.sleep, 8))
      print(os.time() - start < 5)
    ]])
    assert.equal("false\tinterrupted\ntrue\n", output)
  end)

  it("is an OSError to begin where the process has no descriptors left, and works when it has some again", function()
    local output, status = support.script([[
      local held = {}
      for i = 1, 100 do held[i] = io.open("/dev/null") end
      local ok, err = pcall(agather.run, function() end)
      for _, file in ipairs(held) do file:close() end
      print(ok, agather.is_error(err, agather.OSError) and err.code or err)
      print(agather.run(agather.sleep, 0, "runs"))
    ]], "ulimit -n 30;")
    assert.equal("false\tEMFILE\nruns\n", output)
    assert.equal(0, status)
  end)
end)
