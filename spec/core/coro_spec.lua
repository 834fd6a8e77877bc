local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("async", function()
  it("returns a function whose calls run nothing", function()
    virtual(function()
      local ran = false
      local coro = agather.async(function() ran = true end)()
      agather.sleep(1)
      assert.is_false(ran)
      agather.await(coro)
      assert.is_true(ran)
    end)
  end)

  it("keeps the arguments of the call, nils included", function()
    virtual(function()
      local count = agather.async(function(...) return select("#", ...), ... end)
      assert.same({ 4, 1, nil, 3, nil }, { agather.await(count(1, nil, 3, nil)) })
      assert.same({ 4, 1, nil, 3, nil }, { agather.create_task(count(1, nil, 3, nil)):await() })
      assert.equal(0, (agather.await(count())))
    end)
  end)

  it("makes a coro of its own in each call", function()
    virtual(function()
      local double = agather.async(function(x) return 2 * x end)
      local one, two = double(1), double(2)
      assert.not_equal(one, two)
      assert.equal(4, agather.await(two))
      assert.equal(2, agather.await(one))
    end)
  end)

  it("needs no loop, nor does its coro until it starts", function()
    local coro = agather.async(function(x) return x end)(5)
    assert.equal(5, agather.run(coro))
  end)

  it("names the function", function()
    local coro = agather.async(function() end, "fetch")()
    assert.truthy(tostring(coro):find("^<Coroutine fetch <spec/core/coro_spec.lua:%d+>>$"))
    agather.run(coro)
  end)

  it("says what it needs", function()
    raises("bad argument #1 to 'async' (function expected, got no value)", function() agather.async() end)
    raises("bad argument #1 to 'async' (function expected, got table)", function() agather.async({}) end)
    raises("bad argument #2 to 'async' (string expected, got table)", function() agather.async(print, {}) end)
    raises("too many arguments for a coroutine", agather.async(function() end), table.unpack({}, 1, 300))
  end)
end)

describe("coro", function()
  it("is started once: awaiting it again is an error", function()
    virtual(function()
      local coro = agather.async(function() return 1 end)()
      assert.equal(1, agather.await(coro))
      for _, name in ipairs{ "await", "create_task", "gather", "run" } do
        local err = raises("cannot reuse already awaited coroutine", agather[name], coro)
        assert.is_true(agather.is_error(err, agather.RuntimeError))
      end
      raises("cannot reuse already awaited coroutine", agather.gather_list, { coro })
      raises("cannot reuse already awaited coroutine", coro.await, coro)
    end)
  end)

  it("is used up also when its function failed", function()
    virtual(function()
      local coro = agather.async(function() error("boom", 0) end)()
      raises("boom", agather.await, coro)
      raises("cannot reuse already awaited coroutine", agather.await, coro)
    end)
  end)

  it("cannot be awaited by two tasks", function()
    virtual(function()
      local coro = agather.async(function() agather.sleep(1) return 1 end)()
      local first = agather.spawn(agather.await, coro)
      local second = agather.spawn(agather.await, coro)
      assert.equal(1, first:await())
      raises("cannot reuse already awaited coroutine", second.await, second)
    end)
  end)

  it("that is a task cannot become another", function()
    virtual(function()
      local coro = agather.async(function() return 1 end)()
      local task = agather.create_task(coro)
      raises("coroutine expected, got a future or task that is scheduled already", agather.create_task, coro)
      assert.equal(1, task:await())
    end)
  end)

  it("may be awaited by its method", function()
    virtual(function()
      assert.same({ 1, nil, 3 }, { agather.async(function() agather.sleep(1) return 1, nil, 3 end)():await() })
    end)
  end)

  it("shows its function with file and line", function()
    virtual(function()
      local function work() end
      local coro = agather.async(work)()
      local line = debug.getinfo(work, "S").linedefined
      assert.equal("<Coroutine function <spec/core/coro_spec.lua:" .. line .. ">>", tostring(coro))
      agather.await(coro)
      assert.equal("<Coroutine function <spec/core/coro_spec.lua:" .. line .. ">>", tostring(coro))
    end)
  end)
end)

describe("is_awaitable", function()
  it("is true for futures, tasks, gathers and coros", function()
    virtual(function()
      local coro = agather.async(function() end)()
      assert.is_true(agather.is_awaitable(coro))
      assert.is_true(agather.is_awaitable(agather.future()))
      assert.is_true(agather.is_awaitable(agather.current_task()))
      assert.is_true(agather.is_awaitable(agather.gather()))
      agather.await(coro)
    end)
  end)

  it("is false for other values", function()
    for _, value in ipairs{ 1, "x", {}, true, io.stdout, agather } do
      assert.is_false(agather.is_awaitable(value))
    end
    assert.is_false(agather.is_awaitable(nil))
  end)

  it("says that it needs a value", function()
    raises("bad argument #1 to 'is_awaitable' (value expected)", function() agather.is_awaitable() end)
  end)
end)

describe("what stands for a coro", function()
  it("is a plain function, called without arguments", function()
    virtual(function()
      local function count(...) return select("#", ...), "done" end
      assert.same({ 0, "done" }, { agather.await(count) })
      assert.same({ 0, "done" }, { agather.create_task(count):await() })
      assert.same({ 0, n = 1 }, agather.gather(count):await())
      assert.same({ 0, "done" }, { agather.run(count) })
    end)
  end)

  it("is a Lua thread that has not started", function()
    virtual(function()
      local function thread()
        return coroutine.create(function(...)
          agather.sleep(1)
          return select("#", ...), "done"
        end)
      end
      assert.same({ 0, "done" }, { agather.await(thread()) })
      assert.same({ 0, "done" }, { agather.create_task(thread()):await() })
      assert.same({ 0, n = 1 }, agather.gather(thread()):await())
    end)
  end)

  it("is no thread that has started, runs, or is dead", function()
    virtual(function()
      local started = coroutine.create(function() coroutine.yield() end)
      coroutine.resume(started)
      local dead = coroutine.create(function() end)
      coroutine.resume(dead)
      for _, thread in ipairs{ started, dead, (coroutine.running()) } do
        raises("(coroutine was already started)", agather.await, thread)
        raises("(coroutine was already started)", agather.create_task, thread)
        raises("(coroutine was already started)", agather.gather, thread)
      end
    end)
  end)

  it("is nothing else, and the error names what was given", function()
    virtual(function()
      local given = { number = 42, string = "x", boolean = true, table = {}, ["FILE*"] = io.stdout }
      for kind, value in pairs(given) do
        raises("awaitable expected, got " .. kind, agather.await, value)
        raises("awaitable expected, got " .. kind, agather.create_task, value)
      end
      raises("awaitable expected, got nil", agather.await, nil)
      raises("awaitable expected, got nil", agather.create_task)
      raises("bad argument #1 to 'await'", function() agather.await(42) end)
      raises("bad argument #1 to 'create_task'", function() agather.create_task(42) end)
    end)
  end)
end)

describe("what stands for a coro", function()
  it("names the kind of userdata that cannot be awaited", function()
    virtual(function()
      raises("awaitable expected, got FILE*", agather.await, io.stdout)
      raises("awaitable expected, got ContextVar", agather.create_task, agather.ContextVar("x"))
    end)
  end)

  it("has a string of its own, and of nothing else", function()
    local coro = agather.async(function() end)()
    local to_string = getmetatable(coro).__tostring
    assert.truthy(to_string(coro):find("^<Coroutine "))
    for _, other in ipairs { "text", 1, {}, io.stdout } do
      assert.has_error(function() to_string(other) end)
    end
    coro:close()
  end)
end)

describe("what is no coro", function()
  it("cannot be closed as one", function()
    virtual(function()
      local coro = agather.async(function() end)()
      raises("Coroutine expected, got number", coro.close, 5)
      coro:close()
    end)
  end)

  it("is not made a task when it is pending in another loop", function()
    local runner <close> = agather.Runner { clock = "virtual" }
    local foreign = runner:get_loop():create_future()
    virtual(function()
      raises("the awaitable belongs to another loop", agather.ensure_future, foreign)
    end)
  end)
end)
