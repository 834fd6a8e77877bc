local agather = require "agather"
local support = require "spec.support"

local virtual = support.virtual

describe("timer", function()
  it("fires in order of deadline, whatever the order of creation", function()
    local fired = {}
    virtual(function()
      local loop, seed = agather.get_running_loop(), 12345
      for _ = 1, 1000 do
        seed = (seed * 1103515245 + 12345) % 2147483648
        local delay = seed % 997 / 10
        loop:call_later(delay, function() fired[#fired + 1] = delay end)
      end
      agather.sleep(100)
    end)
    assert.equal(1000, #fired)
    for i = 2, 1000 do assert.is_true(fired[i - 1] <= fired[i]) end
  end)

  it("fires in order of creation when deadlines are equal", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      local when = loop:time() + 1
      for i = 1, 100 do loop:call_at(when, say, i) end
      agather.sleep(2)
    end)
    assert.equal(100, #log)
    for i = 1, 100 do assert.equal(i, log[i]) end
  end)

  it("keeps the order of the others when hundreds are cancelled", function()
    local log, say = support.log()
    virtual(function()
      local loop, handles = agather.get_running_loop(), {}
      for i = 1, 600 do handles[i] = loop:call_later((i * 7919) % 601, say, (i * 7919) % 601) end
      for i = 1, 600 do
        if i % 3 ~= 0 then handles[i]:cancel() end
      end
      agather.sleep(700)
    end)
    assert.equal(200, #log)
    for i = 2, 200 do assert.is_true(log[i - 1] < log[i]) end
  end)

  it("never fires early", function()
    local runner <close> = agather.Runner()
    runner:run(function()
      local loop = agather.get_running_loop()
      local due = loop:time() + 0.01
      agather.sleep(0.01)
      assert.is_true(loop:time() >= due - 1e-6)
    end)
  end)

  it("that is due runs before the task whose sleep ends at the same time, which takes one more iteration", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      local task = agather.spawn(function()
        agather.sleep(1)
        say("task")
      end)
      agather.sleep(0)
      loop:call_at(loop:time() + 1, say, "callback")
      task:await()
    end)
    assert.same({ "callback", "task" }, log)
  end)
end)

describe("the virtual clock", function()
  it("jumps to the next deadline when nothing can run", function()
    local seconds = os.clock()
    virtual(function()
      local loop = agather.get_running_loop()
      local start = loop:time()
      agather.sleep(3600)
      assert.equal(start + 3600, loop:time())
      agather.gather(function() agather.sleep(1000) end, function() agather.sleep(2000) end):await()
      assert.equal(start + 5600, loop:time())
    end)
    assert.is_true(os.clock() - seconds < 1)
  end)

  it("stands still while anything can run", function()
    virtual(function()
      local loop = agather.get_running_loop()
      local start = loop:time()
      agather.spawn(function() agather.sleep(1) end)
      support.turns(1000)
      assert.equal(start, loop:time())
    end)
  end)

  it("shows each callback the very time that it asked for", function()
    local times = {}
    virtual(function()
      local loop = agather.get_running_loop()
      for _, when in ipairs{ 0.1, 0.3, 86400, 100000.125 } do
        loop:call_at(when, function() times[#times + 1] = loop:time() end)
      end
      agather.sleep(200000)
    end)
    assert.same({ 0.1, 0.3, 86400, 100000.125 }, times)
  end)

  it("makes every run the same", function()
    local function run()
      local log, say = support.log()
      virtual(function()
        local loop = agather.get_running_loop()
        local tasks = {}
        for i = 1, 50 do
          tasks[i] = agather.spawn(function()
            for _ = 1, 3 do agather.sleep((i * 37 % 11) / 10) end
            say(i .. " at " .. loop:time())
          end)
        end
        agather.gather_list(tasks):await()
      end)
      return log
    end
    assert.same(run(), run())
  end)
end)

describe("time", function()
  it("the virtual clock goes on beyond a year", function()
    local output, status = support.script([[
      local runner <close> = agather.Runner{ clock = "virtual" }
      print(runner:run(agather.sleep, 3e7 + 0.1, "awake"))
    ]])
    assert.equal(0, status)
    assert.equal("awake\n", output)
  end)

  it("a deadline before all time is due at once, and no deadlock", function()
    for _, clock in ipairs { "real", "virtual" } do
      local runner <close> = agather.Runner { clock = clock }
      local fired = 0
      runner:run(function()
        local loop = agather.get_running_loop()
        loop:call_at(-math.huge, function() fired = fired + 1 end)
        loop:call_later(-math.huge, function() fired = fired + 1 end)
        agather.sleep(0.001)
      end)
      assert.equal(2, fired)
    end
  end)

  it("a sleep without end does not keep the processor busy", function()
    local output, status = support.script([[
      local runner <close> = agather.Runner{ clock = "virtual" }
      print(agather.is_error(select(2, pcall(runner.run, runner, agather.sleep, math.huge)), agather.DeadlockError))
    ]])
    assert.equal(0, status)
    assert.equal("true\n", output)
  end)
end)
