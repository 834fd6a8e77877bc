local agather = require "agather"
local support = require "spec.support"

-- The text that leaves run when main fails, with the lines of this file without their numbers.
local function failure(main)
  local ok, text = pcall(support.virtual, main)
  assert.is_false(ok)
  return (tostring(text):gsub("chain_spec.lua:%d+", "chain_spec.lua"))
end

local function last_lines(text, count)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return table.concat(lines, "\n", #lines - count + 1)
end

describe("an error that leaves run", function()
  it("begins with what was raised, then the traceback of the task that failed", function()
    local text = failure(function()
      local function deepest() error("boom") end
      local inner = agather.spawn(function()
        deepest()
        return 1
      end)
      inner:await()
    end)
    assert.truthy(text:find("^spec/core/chain_spec.lua: boom\nstack traceback:\n"))
    assert.truthy(text:find("in upvalue 'deepest'", 1, true))
  end)

  it("ends with who awaited whom: tasks with name and function, gathers with their number", function()
    local fetch = agather.async(function(_)
      agather.sleep(1)
      error("boom", 0)
    end, "fetch")
    local text = failure(function()
      agather.current_task():set_name("main")
      local middle = agather.create_task(function()
        return agather.gather(fetch("one"), fetch("two")):await()
      end, { name = "middle" })
      middle:await()
    end)
    assert.truthy(text:find("^boom\nstack traceback:\n"))
    assert.truthy(last_lines(text, 4):find("^\traised in Task%-%d+ %(fetch <spec/core/chain_spec.lua>%)\n"
      .. "\tawaited by gather of 2\n"
      .. "\tawaited by middle %(function <spec/core/chain_spec.lua>%)\n"
      .. "\tawaited by main %(function <spec/core/chain_spec.lua>%)$"))
  end)

  it("names main alone when main itself failed", function()
    local text = failure(function()
      agather.current_task():set_name("main")
      error("boom", 0)
    end)
    assert.equal("\traised in main (function <spec/core/chain_spec.lua>)", last_lines(text, 1))
    assert.is_nil(text:find("awaited by", 1, true))
  end)

  it("does not name a task whose error another one caught, though it was an equal one", function()
    local text = failure(function()
      local function fail() error("equal", 0) end
      pcall(agather.await, agather.create_task(fail, { name = "first" }))
      agather.create_task(fail, { name = "second" }):await()
    end)
    assert.truthy(text:find("raised in second", 1, true))
    assert.is_nil(text:find("first", 1, true))
  end)

  it("names a future whose exception was set", function()
    local text = failure(function()
      agather.current_task():set_name("main")
      local future = agather.future()
      agather.get_running_loop():call_soon(future.set_exception, future, "boom")
      future:await()
    end)
    assert.equal("\traised in a future\n\tawaited by main (function <spec/core/chain_spec.lua>)", last_lines(text, 2))
  end)

  it("names nested gathers", function()
    local text = failure(function()
      agather.gather(agather.gather(function() error("boom", 0) end), function() end):await()
    end)
    assert.truthy(text:find("\n\tawaited by gather of 1\n\tawaited by gather of 2\n\tawaited by Task-", 1, true))
  end)

  it("does not name a task whose error was caught and replaced", function()
    local text = failure(function()
      local inner = agather.create_task(function() error("inner", 0) end, { name = "inner" })
      pcall(inner.await, inner)
      error("another", 0)
    end)
    assert.truthy(text:find("^another\n"))
    assert.is_nil(text:find("raised in inner", 1, true))
  end)

  it("names the task that failed also when its error was caught and raised again", function()
    local text = failure(function()
      local inner = agather.create_task(function() error("boom", 0) end, { name = "inner" })
      local _, err = pcall(inner.await, inner)
      agather.sleep(1)
      error(err, 0)
    end)
    assert.truthy(text:find("raised in inner (function <spec/core/chain_spec.lua>)\n\tawaited by Task-", 1, true))
  end)

  it("is the very object when it is no string, with traceback and chain in its traceback", function()
    local object = agather.Error("boom")
    local ok, err = pcall(support.virtual, function()
      agather.create_task(function() error(object) end, { name = "inner" }):await()
    end)
    assert.is_false(ok)
    assert.equal(object, err)
    assert.equal("boom", tostring(err))
    assert.truthy(err.traceback:find("stack traceback:\n", 1, true))
    assert.truthy(err.traceback:find("\traised in inner (function <", 1, true))
    assert.truthy(err.traceback:find("\tawaited by Task-", 1, true))
  end)

  it("is cut when the chain is very long", function()
    local text = failure(function()
      local last = agather.spawn(function() error("boom", 0) end)
      for _ = 1, 1000 do
        local inner = last
        last = agather.spawn(function() inner:await() end)
      end
      last:await()
    end)
    local _, count = text:gsub("\tawaited by ", "")
    assert.is_true(count >= 50 and count <= 100)
  end)

  it("shows the lines of coros that were awaited inline, however deeply", function()
    local text = failure(function()
      local down
      down = agather.async(function(n)
        if n == 0 then error("boom", 0) end
        local result = agather.await(down(n - 1))
        return result
      end)
      agather.await(down(40))
    end)
    local _, count = text:gsub("in function <spec/core/chain_spec.lua>", "")
    assert.is_true(count >= 20, text)
  end)
end)

describe("the traceback of an exception", function()
  it("is of the task that failed, without the chain", function()
    support.virtual(function()
      local inner = agather.create_task(function() error("boom") end, { name = "inner" })
      local outer = agather.spawn(function() inner:await() end)
      pcall(outer.await, outer)
      assert.truthy(inner:exception().traceback:find("chain_spec.lua", 1, true))
      assert.is_nil(inner:exception().traceback:find("awaited by", 1, true))
    end)
  end)
end)
