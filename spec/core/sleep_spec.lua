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
