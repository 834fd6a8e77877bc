local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("await", function()
  it("runs a coro inline: no task, no turn of the loop", function()
    virtual(function()
      local loop, turned = agather.get_running_loop(), false
      loop:call_soon(function() turned = true end)
      local inside, tasks = agather.await(agather.async(function()
        return agather.current_task(), #agather.all_tasks()
      end)())
      assert.equal(agather.current_task(), inside)
      assert.equal(1, tasks)
      assert.is_false(turned)
    end)
  end)

  it("returns all results of a task that ends later", function()
    virtual(function()
      local task = agather.spawn(function()
        agather.sleep(1)
        return 1, nil, 3, nil
      end)
      assert.equal(4, select("#", task:await()))
      assert.same({ 1, nil, 3, nil, n = 4 }, table.pack(agather.await(task)))
    end)
  end)

  it("raises the error of a coro with its own traceback", function()
    virtual(function()
      local failure = {}
      local coro = agather.async(function()
        agather.sleep(1)
        error(failure)
      end)()
      assert.equal(failure, select(2, pcall(agather.await, coro)))
    end)
  end)

  it("of a task does not yield when the task is done", function()
    virtual(function()
      local task = agather.spawn(function() return 1 end)
      agather.sleep(0)
      local turned = false
      agather.get_running_loop():call_soon(function() turned = true end)
      assert.equal(1, task:await())
      assert.is_false(turned)
    end)
  end)

  it("works through pcall, xpcall, metamethods, iterators and close handlers", function()
    virtual(function()
      local waits = 0
      local function wait()
        agather.sleep(1)
        waits = waits + 1
        return waits
      end
      pcall(wait)
      xpcall(wait, print)
      local object = setmetatable({}, {
        __index = wait, __newindex = wait, __add = wait, __call = wait, __len = wait, __eq = wait, __lt = wait,
        __unm = wait, __concat = wait, __close = wait,
      })
      local _ = object.field
      object.field = 1
      _ = object + 1
      _ = object()
      _ = #object
      _ = object == setmetatable({}, getmetatable(object))
      _ = object < object
      _ = -object
      do local _ <close> = object end
      for _ in function(_, last) return wait() and not last or nil end do end
      assert.equal(13, waits)
      pcall(function()
        local _ <close> = object
        error("x")
      end)
      assert.equal(14, waits)
    end)
  end)

  it("works in nested pcalls while an error unwinds", function()
    virtual(function()
      local order = {}
      local ok, err = pcall(function()
        local _ <close> = support.closing(function()
          agather.sleep(1)
          order[#order + 1] = "closed"
        end)
        pcall(function()
          agather.sleep(1)
          error("inner", 0)
        end)
        order[#order + 1] = "caught"
        error("outer", 0)
      end)
      assert.same({ false, "outer" }, { ok, err })
      assert.same({ "caught", "closed" }, order)
    end)
  end)

  it("of coros nests hundreds deep, through pcalls at each level", function()
    virtual(function()
      local down
      down = agather.async(function(n)
        if n == 0 then
          agather.sleep(1)
          error("bottom", 0)
        end
        local ok, err = pcall(agather.await, down(n - 1))
        assert.is_false(ok)
        error(err, 0)
      end)
      raises("bottom", agather.await, down(500))
    end)
  end)

  it("runs a coro inline as ever after many that failed and were caught", function()
    virtual(function()
      for _ = 1, 40 do pcall(agather.await, function() error("x", 0) end) end
      local here = coroutine.running()
      agather.await(function() assert.equal(here, coroutine.running()) end)
    end)
  end)

  it("keeps nothing of deep errors that were caught", function()
    virtual(function()
      local function deep(level)
        if level == 0 then error("x", 0) end
        local result = agather.await(function() return deep(level - 1) end)
        return result
      end
      local function memory_after(count)
        for _ = 1, count do pcall(deep, 40) end
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
      end
      local before = memory_after(10)
      assert.is_true(memory_after(200) - before < 8)
    end)
  end)

  it("that failed deep and was caught leaves the traceback of a later error alone", function()
    virtual(function()
      local function deep(level)
        if level == 0 then error("first", 0) end
        local result = agather.await(function() return deep(level - 1) end)
        return result
      end
      local task = agather.spawn(function()
        pcall(deep, 40)
        error(agather.Error("second"))
      end)
      raises("second", task.await, task)
      local traceback = task:exception().traceback
      assert.truthy(traceback:find("await_spec.lua:", 1, true))
      assert.is_nil(traceback:find("deep", 1, true))
    end)
  end)

  it("of itself is an error", function()
    virtual(function()
      local err = raises("Task cannot await on itself", agather.await, agather.current_task())
      assert.is_true(agather.is_error(err, agather.RuntimeError))
    end)
  end)

  it("says that no task runs", function()
    local calls = {
      await = function() agather.await(function() end) end,
      sleep = function() agather.sleep(0) end,
    }
    for name, call in pairs(calls) do
      local err = raises(name .. ": no running task (call it inside agather.run, in a task)", call)
      assert.is_true(agather.is_error(err, agather.RuntimeError))
    end
  end)

  it("leaves a coro unused when no task runs", function()
    local coro = agather.async(function() return 7 end)()
    raises("await: no running task", agather.await, coro)
    assert.equal(7, agather.run(coro))
  end)
end)

describe("waiting where Lua cannot wait", function()
  local function across(name)
    return ("cannot wait across %s: a C function cannot be suspended, wait before or after it"):format(name)
  end

  it("is an error inside table.sort", function()
    virtual(function()
      local err = raises("sleep: " .. across("table.sort"), table.sort, { 2, 1, 3 }, function() agather.sleep(1) end)
      assert.is_true(agather.is_error(err, agather.RuntimeError))
    end)
  end)

  it("is an error inside string.gsub", function()
    virtual(function()
      raises("await: " .. across("string.gsub"), string.gsub, "x", "x", function() agather.future():await() end)
    end)
  end)

  it("is an error inside __tostring", function()
    virtual(function()
      local object = setmetatable({}, { __tostring = function() return agather.await(agather.future()) end })
      raises("await: " .. across("tostring"), tostring, object)
    end)
  end)

  it("is an error inside the reader of load", function()
    virtual(function()
      local chunk, err = load(function() agather.sleep(1) end)
      assert.is_nil(chunk)
      assert.truthy(tostring(err):find(across("load"), 1, true))
    end)
  end)

  it("is an error inside a message handler", function()
    virtual(function()
      local message
      xpcall(error, function()
        local _
        _, message = pcall(agather.sleep, 1)
      end)
      assert.truthy(tostring(message):find("sleep: cannot wait", 1, true))
    end)
  end)

  it("is an error inside plain coroutine.wrap and coroutine.create, which says what to use", function()
    virtual(function()
      local text = "cannot wait inside a plain coroutine (use agather.coroutine instead of coroutine)"
      raises("sleep: " .. text, coroutine.wrap(function() agather.sleep(1) end))
      raises("await: " .. text, coroutine.wrap(function() agather.await(agather.future()) end))
      local ok, err = coroutine.resume(coroutine.create(function() agather.sleep(1) end))
      assert.is_false(ok)
      assert.equal("sleep: " .. text, tostring(err))
    end)
  end)

  it("does no harm: the task goes on and may wait afterwards", function()
    virtual(function()
      for _ = 1, 100 do
        pcall(table.sort, { 2, 1 }, function() agather.sleep(1) end)
        pcall(coroutine.wrap(function() agather.sleep(1) end))
      end
      local start = agather.get_running_loop():time()
      assert.equal("fine", agather.sleep(1, "fine"))
      assert.equal(start + 1, agather.get_running_loop():time())
    end)
  end)

  it("is no error when nothing has to be waited for", function()
    virtual(function()
      local future = agather.future()
      future:set_result(5)
      assert.equal(5, coroutine.wrap(function() return future:await() end)())
      local list = { 2, 1 }
      table.sort(list, function(a, b)
        future:await()
        return a < b
      end)
      assert.same({ 1, 2 }, list)
    end)
  end)
end)

describe("plain coroutines inside a task", function()
  it("yield to the task, as ever", function()
    virtual(function()
      local values = {}
      for value in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) do
        agather.sleep(1)
        values[#values + 1] = value
      end
      assert.same({ 1, 2, 3 }, values)
    end)
  end)

  it("may start tasks", function()
    virtual(function()
      local task = coroutine.wrap(function() return agather.spawn(function() return 5 end) end)()
      assert.equal(5, task:await())
    end)
  end)
end)

describe("a wait across a C call", function()
  it("the error of a wait across a C call names the call and the line", function()
    virtual(function()
      local line = debug.getinfo(1, "l").currentline + 1
      local _, err = pcall(table.sort, { 2, 1 }, function() agather.sleep(1) end)
      assert.truthy(tostring(err):find("await_spec.lua:" .. line, 1, true))
      assert.truthy(tostring(err):find("across table.sort", 1, true))
    end)
  end)
end)
