local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("sleep", function()
  it("waits as long as it is told", function()
    virtual(function()
      local loop = agather.get_running_loop()
      for _, seconds in ipairs{ 1, 0.25, 3600, 1e-3 } do
        local start = loop:time()
        agather.sleep(seconds)
        assert.equal(start + seconds, loop:time())
      end
    end)
  end)

  it("takes numbers as strings, as Lua does", function()
    virtual(function()
      agather.sleep("2")
      assert.equal(2, agather.get_running_loop():time())
    end)
  end)

  for _, seconds in ipairs{ 0, -1, -math.huge } do
    it("of " .. seconds .. " is one turn of the loop", function()
      local log, say = support.log()
      virtual(function()
        local loop = agather.get_running_loop()
        loop:call_soon(function()
          say("first turn")
          loop:call_soon(say, "second turn")
        end)
        agather.sleep(seconds)
        say("awake")
        agather.sleep(0)
        assert.equal(0, loop:time())
      end)
      assert.same({ "first turn", "awake", "second turn" }, log)
    end)
  end

  it("of zero returns its other arguments as well", function()
    virtual(function()
      assert.same({ 1, nil, 3, n = 3 }, table.pack(agather.sleep(0, 1, nil, 3)))
      assert.equal(0, select("#", agather.sleep(0)))
      assert.equal(0, select("#", agather.sleep(1)))
    end)
  end)

  it("ends in order of creation when deadlines are equal", function()
    local log, say = support.log()
    virtual(function()
      for i = 1, 20 do
        agather.spawn(function()
          agather.sleep(1)
          say(i)
        end)
      end
      agather.sleep(2)
    end)
    for i = 1, 20 do assert.equal(i, log[i]) end
  end)

  it("is cut short by a cancellation", function()
    virtual(function()
      local loop = agather.get_running_loop()
      local task = agather.spawn(agather.sleep, 100)
      agather.sleep(1)
      task:cancel()
      pcall(task.await, task)
      assert.equal(1, loop:time())
      agather.sleep(1)
      assert.equal(2, loop:time())
    end)
  end)

  describe("as a task of its own", function()
    it("gives its other arguments as results, nils and all, at its deadline", function()
      virtual(function()
        local loop = agather.get_running_loop()
        local task = agather.spawn(agather.sleep, 3, "a", nil, "c", nil)
        assert.same({ "a", nil, "c", nil, n = 4 }, table.pack(task:await()))
        assert.equal(3, loop:time())
        assert.equal(0, select("#", agather.spawn(agather.sleep, 1):await()))
        assert.equal("b", agather.await(agather.create_task(agather.async(agather.sleep)(2, "b"))))
        assert.equal(6, loop:time())
      end)
    end)

    it("takes its turn among other tasks", function()
      virtual(function()
        local log = {}
        local function note(name)
          return function() log[#log + 1] = name end
        end
        agather.spawn(function() agather.sleep(1) end):add_done_callback(note("function 1"))
        agather.spawn(agather.sleep, 1):add_done_callback(note("sleep 1"))
        agather.spawn(function() agather.sleep(1) end):add_done_callback(note("function 2"))
        agather.spawn(agather.sleep, 0):add_done_callback(note("sleep 0"))
        agather.sleep(2)
        assert.same({ "sleep 0", "function 1", "sleep 1", "function 2" }, log)
      end)
    end)

    it("is cancelled before its first step, while it sleeps and when it is due", function()
      virtual(function()
        local before = agather.spawn(agather.sleep, 5)
        before:cancel("early")
        local during, due = agather.spawn(agather.sleep, 5), agather.spawn(agather.sleep, 1)
        agather.get_running_loop():call_later(1, function() due:cancel("late") end)
        agather.sleep(1)
        during:cancel("in the middle")
        for task, message in pairs({ [before] = "early", [during] = "in the middle", [due] = "late" }) do
          local ok, err = pcall(task.await, task)
          assert.is_false(ok)
          assert.is_true(agather.is_error(err, agather.CancelledError))
          assert.equal(message, err.message)
          assert.is_true(task:cancelled())
        end
      end)
    end)

    it("raises what sleep raises", function()
      virtual(function()
        for _, value in ipairs({ "soon", {}, 0 / 0 }) do
          local ok, err = pcall(function() agather.spawn(agather.sleep, value):await() end)
          assert.is_false(ok)
          assert.truthy(tostring(err):find("bad argument #1 to 'agather.sleep'", 1, true), tostring(err))
        end
        assert.is_false((pcall(function() agather.spawn(agather.sleep):await() end)))
        assert.equal("x", agather.spawn(agather.sleep, "0.5", "x"):await())
      end)
    end)

    it("tells what it waits for, and where", function()
      virtual(function()
        local task = agather.spawn(agather.sleep, 5)
        agather.sleep(1)
        assert.truthy(tostring(task):find("wait_for=<sleep>", 1, true))
        assert.truthy(task:traceback():find("agather.sleep", 1, true))
        task:cancel()
      end)
    end)

    it("is ended when its loop closes, and starts at once where it is told to", function()
      local task
      local runner = agather.Runner { clock = "virtual" }
      runner:run(function()
        task = agather.create_task(agather.async(agather.sleep)(1e9), { eager_start = true })
        assert.truthy(tostring(task):find("wait_for=<sleep>", 1, true))
      end)
      runner:close()
      assert.is_true(task:cancelled())
    end)
  end)

  it("of zero is cut short by a cancellation too", function()
    virtual(function()
      local task = agather.spawn(function()
        agather.sleep(0)
        return "not reached"
      end)
      agather.sleep(0)
      task:cancel()
      pcall(task.await, task)
      assert.is_true(task:cancelled())
    end)
  end)

  it("takes a hundred thousand sleepers", function()
    virtual(function()
      local done = 0
      for i = 1, 100000 do
        agather.spawn(function()
          agather.sleep(i % 100)
          done = done + 1
        end)
      end
      agather.sleep(101)
      assert.equal(100000, done)
    end)
  end)

  it("says what it needs", function()
    virtual(function()
      raises("bad argument #1 to 'sleep' (number expected, got no value)", function() agather.sleep() end)
      raises("bad argument #1 to 'sleep' (number expected, got nil)", function() agather.sleep(nil) end)
      raises("bad argument #1 to 'sleep' (number expected, got string)", function() agather.sleep("soon") end)
      raises("bad argument #1 to 'sleep' (number expected, got table)", function() agather.sleep({}) end)
      raises("bad argument #1 to 'sleep' (number expected, got nan)", function() agather.sleep(0 / 0) end)
    end)
  end)
end)
