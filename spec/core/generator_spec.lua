local agather = require "agather"
local support = require "spec.support"
local it = require("agather.testing").it

local closing, raises, turns = support.closing, support.raises, support.turns
local plain_it = _ENV.it
local generators = agather.coroutine
local create, wrap, resume, yield = generators.create, generators.wrap, generators.resume, generators.yield

local function now() return agather.get_running_loop():time() end

-- f(...) must raise an error of this class; returns it.
local function fails_with(class, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, class), "another error: " .. tostring(err))
  return err
end

-- Starts f(...) as a task and lets it come to its first wait.
local function start(f, ...)
  local task = agather.spawn(f, ...)
  agather.sleep(0)
  return task
end

local function assert_cancelled(task)
  fails_with(agather.CancelledError, task.await, task)
  assert.is_true(task:cancelled())
end

-- What both Lua's table and agather's must do, inside a task and outside of all.
local function behaves_as_coroutines(lib)
  -- A list of what is said, with its length where nils are.
  local function values(...) return table.pack(...) end

  return {
    { "starts a coroutine with the arguments of its first resume", function()
      local co = lib.create(function(...) return select("#", ...), ... end)
      assert.same(values(true, 3, 1, nil, nil), values(lib.resume(co, 1, nil, nil)))
    end },
    { "passes values both ways, nils included", function()
      local co = lib.create(function(a)
        local b, c = lib.yield(a, nil)
        local d = select("#", lib.yield(b, c, nil))
        return d, nil
      end)
      assert.same(values(true, 1, nil), values(lib.resume(co, 1)))
      assert.same(values(true, nil, 3, nil), values(lib.resume(co, nil, 3)))
      assert.same(values(true, 4, nil), values(lib.resume(co, nil, nil, nil, nil)))
    end },
    { "passes no values at all", function()
      local co = lib.create(function(...)
        assert.equal(0, select("#", ...))
        assert.equal(0, select("#", lib.yield()))
      end)
      assert.same(values(true), values(lib.resume(co)))
      assert.same(values(true), values(lib.resume(co)))
    end },
    { "passes thousands of values", function()
      local co = lib.create(function(...) return lib.yield(...) end)
      local many = { n = 5000 }
      assert.equal(5001, select("#", lib.resume(co, table.unpack(many, 1, many.n))))
      assert.equal(5001, select("#", lib.resume(co, table.unpack(many, 1, many.n))))
    end },
    { "tells the status of a coroutine", function()
      local co
      co = lib.create(function()
        assert.equal("running", lib.status(co))
        local inner = lib.create(function() return lib.status(co) end)
        assert.same({ true, "normal" }, { lib.resume(inner) })
        lib.yield()
      end)
      assert.equal("suspended", lib.status(co))
      assert.is_true(lib.resume(co))
      assert.equal("suspended", lib.status(co))
      assert.is_true(lib.resume(co))
      assert.equal("dead", lib.status(co))
      local failing = lib.create(error)
      lib.resume(failing)
      assert.equal("dead", lib.status(failing))
    end },
    { "tells which coroutine runs and that it may yield", function()
      local co
      co = lib.create(function()
        local running, main = lib.running()
        return running == co, main, lib.isyieldable()
      end)
      assert.same({ true, true, false, true }, { lib.resume(co) })
    end },
    { "does not resume a dead coroutine", function()
      local co = lib.create(function() end)
      lib.resume(co)
      assert.same({ false, "cannot resume dead coroutine" }, { lib.resume(co) })
      assert.same({ false, "cannot resume dead coroutine" }, { lib.resume(co, 1, 2) })
    end },
    { "does not resume itself nor who resumed it", function()
      local co
      co = lib.create(function() return lib.resume(co) end)
      assert.same({ true, false, "cannot resume non-suspended coroutine" }, { lib.resume(co) })
      co = lib.create(function() return lib.resume(lib.create(function() return lib.resume(co) end)) end)
      assert.same({ true, true, false, "cannot resume non-suspended coroutine" }, { lib.resume(co) })
      assert.same({ false, "cannot resume non-suspended coroutine" }, { lib.resume((lib.running())) })
    end },
    { "gives the very error that was raised", function()
      local failure = {}
      for _, value in ipairs { failure, "text", 5, false } do
        assert.same({ false, value }, { lib.resume(lib.create(function() error(value, 0) end)) })
      end
      assert.equal(failure, select(2, lib.resume(lib.create(function() error(failure) end))))
      assert.same(values(false, nil), values(lib.resume(lib.create(function() error(nil) end))))
    end },
    { "says where a string was raised", function()
      local _, err = lib.resume(lib.create(function() error("here") end))
      assert.truthy(err:match("^%S*generator_spec.lua:%d+: here$"))
    end },
    { "yields across pcall, metamethods and iterators", function()
      local object = setmetatable({}, {
        __index = function(_, key) return lib.yield(key) end,
        __add = function() return lib.yield("add") end,
      })
      local co = lib.wrap(function()
        local log = {}
        log[1] = select(2, pcall(lib.yield, "pcall"))
        log[2] = object.index
        log[3] = object + 1
        for value in lib.yield, "for" do
          log[4] = value
          break
        end
        return log
      end)
      assert.equal("pcall", co())
      assert.equal("index", co("a"))
      assert.equal("add", co("b"))
      assert.equal("for", co("c"))
      assert.same({ "a", "b", "c", "d" }, co("d"))
    end },
    { "catches errors after a yield inside pcall", function()
      local co = lib.wrap(function()
        local ok, err = pcall(function()
          lib.yield(1)
          error("later", 0)
        end)
        return ok, err
      end)
      co()
      assert.same({ false, "later" }, { co() })
    end },
    { "wraps: gives values and raises errors", function()
      local failure = {}
      local co = lib.wrap(function(a)
        local b = lib.yield(a, 2)
        error(b)
      end)
      assert.same({ 1, 2 }, { co(1) })
      assert.equal(failure, select(2, pcall(co, failure)))
      assert.truthy(select(2, pcall(function() co() end)):find("cannot resume dead coroutine", 1, true))
    end },
    { "wraps: puts in front of a string where it was called", function()
      local co = lib.wrap(function() error("text", 0) end)
      local _, err = pcall(function() co() end)
      assert.truthy(err:match("^%S*generator_spec.lua:%d+: text$"))
      co = lib.wrap(function() error("text", 0) end)
      assert.same({ false, "text" }, { pcall(co) })
    end },
    { "iterates", function()
      local function numbers(n)
        return lib.wrap(function() for i = 1, n do lib.yield(i, i * i) end end)
      end
      local sum = 0
      for i, square in numbers(4) do sum = sum + i * 100 + square end
      assert.equal(1030, sum)
    end },
    { "iterates recursively", function()
      local function permute(list, n)
        if n == 0 then return lib.yield(table.concat(list)) end
        for i = 1, n do
          list[n], list[i] = list[i], list[n]
          permute(list, n - 1)
          list[n], list[i] = list[i], list[n]
        end
      end
      local found = {}
      for word in lib.wrap(function() permute({ "a", "b", "c" }, 3) end) do found[#found + 1] = word end
      table.sort(found)
      assert.same({ "abc", "acb", "bac", "bca", "cab", "cba" }, found)
    end },
    { "nests", function()
      local function count(n)
        return lib.wrap(function()
          if n == 0 then return end
          for i in count(n - 1) do lib.yield(i) end
          lib.yield(n)
        end)
      end
      local got = {}
      for i in count(20) do got[#got + 1] = i end
      assert.equal(20, #got)
      for i = 1, 20 do assert.equal(i, got[i]) end
    end },
    { "closes a coroutine that has not started", function()
      local started = false
      local co = lib.create(function() started = true end)
      assert.same({ true }, { lib.close(co) })
      assert.equal("dead", lib.status(co))
      assert.is_false(lib.resume(co))
      assert.is_false(started)
    end },
    { "closes a coroutine that has ended", function()
      local co = lib.create(function() end)
      lib.resume(co)
      assert.same({ true }, { lib.close(co) })
      assert.same({ true }, { lib.close(co) })
    end },
    { "closes the variables of a suspended coroutine, the last first", function()
      local log = {}
      local co = lib.create(function()
        local _ <close> = closing(function() log[#log + 1] = 1 end)
        do
          local _ <close> = closing(function() log[#log + 1] = 2 end)
          lib.yield("value")
        end
        log[#log + 1] = "went on"
      end)
      lib.resume(co)
      assert.same({ true }, { lib.close(co) })
      assert.same({ 2, 1 }, log)
      assert.equal("dead", lib.status(co))
      assert.same({ true }, { lib.close(co) })
      assert.same({ 2, 1 }, log)
    end },
    { "closes a coroutine that catches all errors", function()
      local log = {}
      local co = lib.create(function()
        local _ <close> = closing(function() log[#log + 1] = "closed" end)
        while true do pcall(lib.yield) end
      end)
      lib.resume(co)
      assert.same({ true }, { lib.close(co) })
      assert.equal("dead", lib.status(co))
      assert.same({ "closed" }, log)
    end },
    { "gives the error of a variable that it closed", function()
      local log = {}
      local co = lib.create(function()
        local _ <close> = closing(function(_, err) log[#log + 1] = err end)
        local _ <close> = closing(function() error("in close", 0) end)
        lib.yield()
      end)
      lib.resume(co)
      assert.same({ false, "in close" }, { lib.close(co) })
      assert.same({ "in close" }, log)
      assert.equal("dead", lib.status(co))
    end },
    { "does not close what runs", function()
      local co
      co = lib.create(function() return pcall(lib.close, co) end)
      assert.same({ true, false, "cannot close a running coroutine" }, { lib.resume(co) })
      co = lib.create(function() return lib.resume(lib.create(function() lib.close(co) end)) end)
      local ok, inner, err = lib.resume(co)
      assert.is_true(ok)
      assert.is_false(inner)
      assert.truthy(err:find("cannot close a", 1, true))
    end },
    { "names what was given in place of a function", function()
      raises("function expected, got number", lib.create, 5)
      raises("function expected, got no value", lib.create)
      raises("function expected, got table", lib.wrap, setmetatable({}, { __call = print }))
    end },
    { "names what was given in place of a coroutine", function()
      raises("got function", lib.resume, print)
      raises("got no value", lib.status)
      raises("got string", lib.close, "x")
    end },
    { "cannot yield across table.sort", function()
      local co = lib.create(function()
        table.sort({ 3, 2, 1 }, function(a, b)
          assert(not lib.isyieldable())
          lib.yield()
          return a < b
        end)
      end)
      local ok, err = lib.resume(co)
      assert.is_false(ok)
      assert.truthy(err:find("attempt to yield across a C-call boundary", 1, true))
    end },
    { "has its stack shown", function()
      local function somewhere() lib.yield() end
      local co = lib.create(function()
        somewhere()
        return 1
      end)
      lib.resume(co)
      assert.truthy(debug.traceback(co):find("somewhere", 1, true))
    end },
    { "is collected when nobody knows it any more", function()
      local weak = setmetatable({}, { __mode = "k" })
      for _ = 1, 10 do
        local co = lib.create(function() lib.yield() end)
        lib.resume(co)
        weak[co] = true
      end
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(weak))
    end },
  }
end

describe("Lua's coroutines", function()
  for _, behaviour in ipairs(behaves_as_coroutines(coroutine)) do plain_it(behaviour[1], behaviour[2]) end
end)

describe("agather.coroutine", function()
  describe("outside of a loop", function()
    for _, behaviour in ipairs(behaves_as_coroutines(generators)) do plain_it(behaviour[1], behaviour[2]) end
  end)

  describe("in a task", function()
    for _, behaviour in ipairs(behaves_as_coroutines(generators)) do it(behaviour[1], behaviour[2]) end
  end)

  describe("in a generator of a task", function()
    for _, behaviour in ipairs(behaves_as_coroutines(generators)) do
      it(behaviour[1], function() wrap(behaviour[2])() end)
    end
  end)

  plain_it("has every function of Lua's table", function()
    for name in pairs(coroutine) do assert.equal("function", type(generators[name]), name) end
    for name in pairs(generators) do assert.equal("function", type(coroutine[name]), name) end
  end)

  plain_it("cannot yield where there is no generator", function()
    raises("attempt to yield from outside a coroutine", yield, 1)
  end)

  it("cannot yield from the task itself", function()
    raises("attempt to yield from outside a coroutine", yield, 1)
    raises("attempt to yield from outside a coroutine", agather.await, function() yield(1) end)
  end)

  it("cannot yield from a callback of the loop", function()
    local err
    agather.get_running_loop():call_soon(function() err = select(2, pcall(yield, 1)) end)
    agather.sleep(0)
    assert.equal("attempt to yield from outside a coroutine", err)
  end)

  it("yields through Lua's own coroutines and they through it", function()
    local co = coroutine.wrap(function() return yield(1, 2) end)
    assert.same({ 1, 2 }, { co() })
    assert.same({ 3 }, { co(3) })
    co = wrap(function() return coroutine.yield(1, 2) end)
    assert.same({ 1, 2 }, { co() })
    assert.same({ 3 }, { co(3) })
  end)

  it("resumes coroutines that Lua's table made", function()
    local co = coroutine.create(function(a)
      agather.sleep(1)
      local b = coroutine.yield(a)
      agather.sleep(1)
      return b
    end)
    assert.same({ true, 1 }, { resume(co, 1) })
    assert.same({ true, 2 }, { resume(co, 2) })
    assert.equal(2, now())
    assert.equal("dead", generators.status(co))
  end)

  it("cannot wait in a plain coroutine inside a generator", function()
    local generator = wrap(function()
      raises("sleep: cannot wait inside a plain coroutine", coroutine.wrap(function() agather.sleep(1) end))
      agather.sleep(1)
      return "waited"
    end)
    assert.equal("waited", generator())
  end)

  it("cannot wait in a generator that a comparison of table.sort resumes", function()
    local generator = wrap(function() agather.sleep(1) end)
    raises("sleep: cannot wait across", table.sort, { 2, 1 }, function() generator() end)
    agather.sleep(1)
  end)

  it("can yield in a generator that a comparison of table.sort resumes", function()
    local generator = wrap(function() while true do yield(false) end end)
    table.sort({ 2, 1 }, function() return generator() end)
    assert.is_false(generator())
  end)

  plain_it("tells that waiting takes a task", function()
    local ok, err = resume(create(function() agather.sleep(1) end))
    assert.is_false(ok)
    assert.truthy(tostring(err):find("sleep: no running task", 1, true))
  end)

  it("tells in a callback of the loop that waiting takes a task", function()
    local ok, err
    agather.get_running_loop():call_soon(function() ok, err = resume(create(function() agather.sleep(1) end)) end)
    agather.sleep(0)
    assert.is_false(ok)
    assert.truthy(tostring(err):find("sleep: no running task", 1, true))
  end)

  describe("with waits", function()
    it("waits inside a generator, and lets other tasks run", function()
      local log = {}
      local ticker = agather.spawn(function()
        for _ = 1, 3 do
          agather.sleep(1)
          log[#log + 1] = "tick"
        end
      end)
      local generator = wrap(function()
        agather.sleep(1.5)
        yield("first")
        agather.sleep(1)
        return "last"
      end)
      table.insert(log, (generator()))
      assert.equal(1.5, now())
      table.insert(log, (generator()))
      assert.equal(2.5, now())
      ticker:await()
      assert.same({ "tick", "first", "tick", "last", "tick" }, log)
    end)

    it("passes values both ways between waits", function()
      local generator = wrap(function(a)
        for i = 1, 3 do
          agather.sleep(1)
          a = yield(i, a, nil)
        end
        agather.sleep(1)
        return "end", a
      end)
      assert.same({ 1, "x", n = 3 }, table.pack(generator("x")))
      assert.same({ 2, "y", n = 3 }, table.pack(generator("y")))
      assert.same({ 3, "z", n = 3 }, table.pack(generator("z")))
      assert.same({ "end", "w" }, { generator("w") })
      assert.equal(4, now())
    end)

    it("gives all results of what it waited for", function()
      local generator = wrap(function() return agather.sleep(1, "a", nil, "c", nil) end)
      assert.equal(4, select("#", generator()))
    end)

    it("iterates over what it waits for", function()
      local function ticks(n)
        return wrap(function()
          for i = 1, n do
            agather.sleep(1)
            yield(i, now())
          end
        end)
      end
      local sum = 0
      for i, time in ticks(4) do
        assert.equal(i, time)
        sum = sum + i
        agather.sleep(0)
      end
      assert.equal(10, sum)
    end)

    it("nests, and each level may wait and yield", function()
      local function count(n)
        return wrap(function()
          if n == 0 then return end
          for i in count(n - 1) do
            agather.sleep(1)
            yield(i)
          end
          agather.sleep(1)
          yield(n)
        end)
      end
      local got = {}
      for i in count(10) do got[#got + 1] = i end
      assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, got)
      assert.equal(55, now())
    end)

    it("waits fifty generators deep", function()
      local function deep(n)
        if n == 0 then return agather.sleep(1, "deep") end
        return wrap(deep)(n - 1)
      end
      assert.equal("deep", wrap(deep)(50))
      assert.equal(1, now())
    end)

    it("ends generators that are too deep with an error, not a crash", function()
      local function deep(n)
        if n == 0 then return agather.sleep(1, "deep") end
        return wrap(deep)(n - 1)
      end
      raises("C stack overflow", wrap(deep), 500)
      assert.equal("deep", wrap(deep)(20))
    end)

    it("awaits futures, tasks, coros and functions", function()
      local future = agather.future()
      agather.get_running_loop():call_later(1, future.set_result, future, "future")
      local generator = wrap(function()
        yield(agather.await(future))
        yield(agather.spawn(agather.sleep, 1, "task"):await())
        yield(agather.await(agather.async(function(...) return agather.sleep(1, ...) end)("coro")))
        yield(agather.await(function() return agather.sleep(1, "function") end))
        yield(agather.gather(agather.async(agather.sleep)(1, "a"), agather.async(agather.sleep)(2, "b")):await()[2])
        yield((agather.run(function() return agather.sleep(1, "run") end)))
      end)
      local got = {}
      for value in generator do got[#got + 1] = value end
      assert.same({ "future", "task", "coro", "function", "b", "run" }, got)
      assert.equal(7, now())
    end)

    it("awaits coros in coros", function()
      local function deep(n)
        if n == 0 then return agather.sleep(1, "deep") end
        return agather.await(agather.async(deep)(n - 1))
      end
      assert.equal("deep", wrap(deep)(50))
    end)

    it("yields from a coro that it awaits", function()
      local inner = agather.async(function()
        agather.sleep(1)
        yield("inner")
        agather.sleep(1)
        return "result"
      end)
      local generator = wrap(function() yield(agather.await(inner())) end)
      assert.equal("inner", generator())
      assert.equal("result", generator())
      assert.equal(2, now())
    end)

    it("waits for locks, queues, events, conditions and semaphores", function()
      local lock, queue, event = agather.Lock(), agather.Queue(), agather.Event()
      local condition, semaphore = agather.Condition(), agather.Semaphore(0)
      lock:acquire()
      local generator = wrap(function()
        local _ <close> = lock:acquire()
        yield("lock")
        yield(queue:get())
        event:wait()
        yield("event")
        local _ <close> = condition:acquire()
        condition:wait()
        yield("condition")
        semaphore:acquire()
        yield("semaphore")
      end)
      local loop = agather.get_running_loop()
      loop:call_later(1, lock.release, lock)
      loop:call_later(2, queue.put_nowait, queue, "queue")
      loop:call_later(3, event.set, event)
      loop:call_later(4, function()
        condition:acquire()
        condition:notify()
        condition:release()
      end)
      loop:call_later(5, semaphore.release, semaphore)
      local got = {}
      for value in generator do got[#got + 1] = value .. now() end
      assert.same({ "lock1.0", "queue2.0", "event3.0", "condition4.0", "semaphore5.0" }, got)
      assert.is_false(lock:locked())
      assert.is_false(condition:locked())
    end)

    it("waits through pcall, metamethods and iterators", function()
      local object = setmetatable({}, {
        __index = function(_, key) return agather.sleep(1, key) end,
        __add = function() return agather.sleep(1, "sum") end,
      })
      local generator = wrap(function()
        local ok, value = pcall(agather.sleep, 1, "called")
        yield(ok and value)
        yield(object.index)
        yield(object + 1)
        for item in function(_, last) if not last then return agather.sleep(1, "item") end end do yield(item) end
      end)
      local got = {}
      for value in generator do got[#got + 1] = value end
      assert.same({ "called", "index", "sum", "item" }, got)
      assert.equal(4, now())
    end)

    it("counts as the task that resumes it", function()
      local generator = wrap(function() while true do yield(agather.current_task()) end end)
      assert.equal(agather.current_task(), generator())
      local task = agather.spawn(generator)
      assert.equal(task, task:await())
    end)

    it("sees the context of the task that resumes it", function()
      local variable = agather.ContextVar("variable", "default")
      variable:set("outer")
      local generator = wrap(function() while true do yield(variable:get()) end end)
      assert.equal("outer", generator())
      local task = agather.spawn(function()
        variable:set("inner")
        return generator()
      end)
      assert.equal("inner", task:await())
      assert.equal("outer", generator())
    end)

    it("may be resumed by one task after another", function()
      local generator = wrap(function()
        for i = 1, 3 do
          agather.sleep(1)
          yield(i)
        end
      end)
      assert.equal(1, agather.spawn(generator):await())
      assert.equal(2, generator())
      assert.equal(3, agather.spawn(generator):await())
    end)

    it("is refused to a second task while it waits", function()
      local co = create(function()
        agather.sleep(1)
        yield("first")
        return "second"
      end)
      local task = start(resume, co)
      assert.same({ false, "cannot resume non-suspended coroutine" }, { resume(co) })
      raises("cannot close a normal coroutine", generators.close, co)
      assert.same({ true, "first" }, { task:await() })
      assert.same({ true, "second" }, { resume(co) })
    end)

    it("raises in a second task that calls a wrapped generator while it waits", function()
      local generator = wrap(function() return agather.sleep(1, "result") end)
      local task = start(generator)
      raises("cannot resume non-suspended coroutine", generator)
      assert.equal("result", task:await())
    end)

    it("is refused to a second task while a generator that it resumed waits", function()
      local inner = create(function() agather.sleep(1) end)
      local outer = create(function()
        resume(inner)
        return "done"
      end)
      local task = start(resume, outer)
      assert.same({ false, "cannot resume non-suspended coroutine" }, { resume(outer) })
      assert.same({ false, "cannot resume non-suspended coroutine" }, { resume(inner) })
      assert.same({ true, "done" }, { task:await() })
    end)

    it("is not resumed by a callback of the loop while it waits", function()
      local co = create(function() return agather.sleep(1, "result") end)
      local ok, err
      agather.get_running_loop():call_soon(function() ok, err = resume(co) end)
      assert.same({ true, "result" }, { resume(co) })
      assert.is_false(ok)
      assert.equal("cannot resume non-suspended coroutine", err)
    end)

    it("serves many tasks, each with a generator of its own", function()
      local calls, total = {}, 0
      for i = 1, 50 do
        calls[i] = function()
          local sum = 0
          local numbers = wrap(function()
            for k = 1, i % 7 do
              agather.sleep(k % 3)
              yield(k)
            end
          end)
          for k in numbers do sum = sum + k end
          return sum
        end
      end
      for _, sum in ipairs(agather.gather_list(calls):await()) do total = total + sum end
      assert.equal(7 * (1 + 3 + 6 + 10 + 15 + 21) + 1, total)
    end)
  end)

  describe("with errors", function()
    it("gives an error that is raised after a wait", function()
      local failure = {}
      local co = create(function()
        agather.sleep(1)
        error(failure)
      end)
      local ok, err = resume(co)
      assert.is_false(ok)
      assert.equal(failure, err)
      assert.equal("dead", generators.status(co))
      assert.same({ false, "cannot resume dead coroutine" }, { resume(co) })
    end)

    it("raises the very error of a wrapped generator", function()
      local failure = {}
      local generator = wrap(function()
        agather.sleep(1)
        error(failure)
      end)
      assert.equal(failure, select(2, pcall(generator)))
      raises("cannot resume dead coroutine", generator)
    end)

    it("raises an error of what it waits for inside it", function()
      local future, failure = agather.future(), {}
      agather.get_running_loop():call_later(1, future.set_exception, future, failure)
      local generator = wrap(function()
        local ok, err = pcall(future.await, future)
        yield(ok)
        return err
      end)
      assert.is_false(generator())
      assert.equal(failure, generator())
    end)

    it("passes an error through every level, closing each", function()
      local log = {}
      local function deep(n)
        local _ <close> = closing(function(_, err)
          agather.sleep(1)
          log[#log + 1] = n .. tostring(err)
        end)
        if n == 0 then
          agather.sleep(1)
          error("oops", 0)
        end
        local ok, err = resume(create(deep), n - 1)
        assert.is_false(ok)
        error(err, 0)
      end
      local ok, err = resume(create(deep), 3)
      assert.is_false(ok)
      assert.equal("oops", err)
      assert.same({ "0oops", "1oops", "2oops", "3oops" }, log)
      assert.equal(5, now())
    end)

    it("gives the error of a handler that waited in place of the first", function()
      local co = create(function()
        local _ <close> = closing(function()
          agather.sleep(1)
          error("in close", 0)
        end)
        error("first", 0)
      end)
      assert.same({ false, "in close" }, { resume(co) })
      assert.equal("dead", generators.status(co))
    end)

    it("is no error of the task that catches it", function()
      local task = agather.spawn(function()
        resume(create(function()
          agather.sleep(1)
          error("caught")
        end))
        return agather.sleep(1, "went on")
      end)
      assert.equal("went on", task:await())
    end)

    it("lets a task end while its generator is suspended", function()
      local co
      agather.spawn(function()
        co = create(function()
          agather.sleep(1)
          yield("one")
          return agather.sleep(1, "two")
        end)
        resume(co)
      end):await()
      collectgarbage()
      assert.same({ true, "two" }, { resume(co) })
    end)
  end)

  describe("with cancellation", function()
    it("raises it where the generator waits, and through to the task", function()
      local log = {}
      local task = start(function()
        local _ <close> = closing(function(_, err) log[#log + 1] = "task " .. tostring(err) end)
        wrap(function()
          local _ <close> = closing(function(_, err) log[#log + 1] = "generator " .. tostring(err) end)
          agather.sleep(10)
        end)()
      end)
      task:cancel()
      assert_cancelled(task)
      assert.same({ "generator CancelledError", "task CancelledError" }, log)
    end)

    it("passes through nested generators, whose handlers may wait", function()
      local log = {}
      local function deep(n)
        local _ <close> = closing(function()
          agather.sleep(1)
          log[#log + 1] = n
        end)
        if n == 0 then agather.sleep(100) else wrap(deep)(n - 1) end
      end
      local task = start(wrap(deep), 3)
      task:cancel()
      assert_cancelled(task)
      assert.same({ 0, 1, 2, 3 }, log)
      assert.equal(4, now())
    end)

    it("may be caught inside the generator", function()
      local task = start(function()
        local generator = wrap(function()
          local ok, err = pcall(agather.sleep, 10)
          yield(ok)
          agather.sleep(1)
          return err
        end)
        assert.is_false(generator())
        return generator()
      end)
      task:cancel()
      assert.is_true(agather.is_error(task:await(), agather.CancelledError))
      assert.equal(1, now())
    end)

    it("is a result of resume as of pcall", function()
      local task = start(function()
        local co = create(function() agather.sleep(10) end)
        local ok, err = resume(co)
        assert.is_false(ok)
        assert.equal("dead", generators.status(co))
        return err
      end)
      task:cancel("why")
      assert.truthy(tostring(task:await()):find("why", 1, true))
    end)

    it("does not reach a generator that is suspended", function()
      local log = {}
      local generator = wrap(function()
        for i = 1, 3 do log[#log + 1] = select(2, pcall(yield, i)) or "resumed" end
        return "end"
      end)
      local task = start(function()
        generator()
        agather.sleep(10)
      end)
      task:cancel()
      assert_cancelled(task)
      assert.equal(2, generator())
      assert.equal(3, generator())
      assert.equal("end", generator())
      assert.same({ "resumed", "resumed", "resumed" }, log)
    end)

    it("reaches a handler that waits", function()
      local log = {}
      local task = start(wrap(function()
        local _ <close> = closing(function()
          local ok, err = pcall(agather.sleep, 10)
          log[#log + 1] = ok
          log[#log + 1] = tostring(err)
        end)
        error("first", 0)
      end))
      task:cancel()
      raises("first", task.await, task)
      assert.same({ false, "CancelledError" }, log)
      assert.equal(0, now())
    end)

    it("leaves the lock that the generator waited for to others", function()
      local lock = agather.Lock()
      lock:acquire()
      local first = agather.spawn(wrap(function() lock:acquire() end))
      local second = start(wrap(function() lock:acquire() end))
      lock:release()
      first:cancel()
      assert_cancelled(first)
      second:await()
      assert.is_true(lock:locked())
    end)

    it("stops a generator that cancels its own task, at the next wait", function()
      local reached = false
      local task = start(wrap(function()
        agather.current_task():cancel()
        reached = true
        agather.sleep(1)
        error("went on")
      end))
      assert_cancelled(task)
      assert.is_true(reached)
    end)

    it("comes from a timeout around the generator", function()
      local generator = wrap(function()
        yield("one")
        agather.sleep(10)
      end)
      generator()
      fails_with(agather.TimeoutError, function()
        local _ <close> = agather.timeout(2)
        generator()
      end)
      assert.equal(2, now())
      agather.sleep(1)
    end)

    it("comes from a timeout inside the generator", function()
      local generator = wrap(function()
        local ok, err = pcall(function()
          local _ <close> = agather.timeout(2)
          agather.sleep(10)
        end)
        yield(ok)
        return err
      end)
      assert.is_false(generator())
      assert.is_true(agather.is_error(generator(), agather.TimeoutError))
      assert.equal(2, now())
    end)

    it("leaves a task group inside a generator with no child behind", function()
      local generator = wrap(function()
        local group <close> = agather.TaskGroup()
        group:spawn(agather.sleep, 100)
        group:spawn(agather.sleep, 200)
        agather.sleep(1)
      end)
      local task = start(generator)
      task:cancel()
      assert_cancelled(task)
    end)

    plain_it("ends generators that wait when the loop shuts down", function()
      local log = {}
      support.virtual(function()
        start(wrap(function()
          local _ <close> = closing(function()
            agather.sleep(1)
            log[#log + 1] = "closed"
          end)
          agather.sleep(100)
        end))
      end)
      assert.same({ "closed" }, log)
    end)
  end)

  describe("close", function()
    it("lets the handlers wait", function()
      local log = {}
      local co = create(function()
        local _ <close> = closing(function()
          agather.sleep(1)
          log[#log + 1] = "outer"
        end)
        local _ <close> = closing(function()
          agather.sleep(1)
          log[#log + 1] = "inner"
        end)
        yield(1)
        log[#log + 1] = "went on"
      end)
      resume(co)
      assert.same({ true }, { generators.close(co) })
      assert.same({ "inner", "outer" }, log)
      assert.equal(2, now())
      assert.equal("dead", generators.status(co))
    end)

    it("lets the handlers wait in several nested calls", function()
      local log = {}
      local co = create(function()
        local function deep(n)
          local _ <close> = closing(function()
            agather.sleep(1)
            log[#log + 1] = n
          end)
          if n > 0 then return (deep(n - 1)) end
          yield()
        end
        deep(3)
      end)
      resume(co)
      assert.is_true(generators.close(co))
      assert.same({ 0, 1, 2, 3 }, log)
    end)

    it("gives the error of a handler that waited", function()
      local co = create(function()
        local _ <close> = closing(function()
          agather.sleep(1)
          error("in close", 0)
        end)
        yield()
      end)
      resume(co)
      assert.same({ false, "in close" }, { generators.close(co) })
    end)

    it("is refused while handlers wait, and so is resume", function()
      local co = create(function()
        local _ <close> = closing(function() agather.sleep(5) end)
        yield()
      end)
      resume(co)
      local task = start(generators.close, co)
      raises("cannot close a normal coroutine", generators.close, co)
      assert.same({ false, "cannot resume non-suspended coroutine" }, { resume(co) })
      assert.is_true(task:await())
      assert.is_true(generators.close(co))
    end)

    it("closes generators that a handler closes", function()
      local log = {}
      local function make(name, inner)
        local co = create(function()
          local _ <close> = closing(function()
            if inner then assert(generators.close(inner)) end
            agather.sleep(1)
            log[#log + 1] = name
          end)
          yield()
        end)
        resume(co)
        return co
      end
      assert.is_true(generators.close(make("outer", make("middle", make("inner")))))
      assert.same({ "inner", "middle", "outer" }, log)
      assert.equal(3, now())
    end)

    it("gives the cancellation that came while a handler waited", function()
      local co = create(function()
        local _ <close> = closing(function() agather.sleep(5) end)
        yield()
      end)
      resume(co)
      local task = start(function()
        local ok, err = generators.close(co)
        assert.is_false(ok)
        error(err, 0)
      end)
      task:cancel()
      assert_cancelled(task)
      assert.equal("dead", generators.status(co))
    end)

    it("lets a generator that catches everything wait and end", function()
      local log = {}
      local co = create(function()
        local ok = pcall(yield)
        agather.sleep(1)
        log[#log + 1] = ok
        return "result"
      end)
      resume(co)
      assert.is_true(generators.close(co))
      assert.same({ false }, log)
      assert.equal("dead", generators.status(co))
    end)

    it("ends a generator that yields in a handler", function()
      local log = {}
      local co = create(function()
        local _ <close> = closing(function() log[#log + 1] = "outer" end)
        local _ <close> = closing(function()
          yield("again")
          log[#log + 1] = "went on"
        end)
        yield()
      end)
      resume(co)
      generators.close(co)
      assert.equal("dead", generators.status(co))
      assert.same({ "outer" }, log)
    end)

    it("closes a generator that waits no more", function()
      local log = {}
      local co = create(function()
        local _ <close> = closing(function() log[#log + 1] = "closed" end)
        agather.sleep(1)
        yield()
      end)
      resume(co)
      assert.is_true(generators.close(co))
      assert.same({ "closed" }, log)
    end)

    it("raises in handlers that wait where nothing can wait", function()
      local co = create(function()
        local _ <close> = closing(function() agather.sleep(1) end)
        yield()
      end)
      resume(co)
      table.sort({ 2, 1 }, function()
        if generators.status(co) ~= "dead" then
          local ok, err = generators.close(co)
          assert.is_false(ok)
          assert.truthy(tostring(err):find("sleep: cannot wait across", 1, true))
        end
        return false
      end)
      assert.equal("dead", generators.status(co))
    end)

    it("releases the lock that the generator held", function()
      local lock = agather.Lock()
      local co = create(function()
        local _ <close> = lock:acquire()
        yield()
      end)
      resume(co)
      assert.is_true(lock:locked())
      generators.close(co)
      assert.is_false(lock:locked())
    end)

    plain_it("closes outside of a loop a generator that was left suspended in one", function()
      local log, co = {}, nil
      support.virtual(function()
        co = create(function()
          local _ <close> = closing(function() log[#log + 1] = "closed" end)
          agather.sleep(1)
          yield()
        end)
        resume(co)
      end)
      assert.is_true(generators.close(co))
      assert.same({ "closed" }, log)
    end)
  end)

  describe("under collection of garbage", function()
    it("keeps generators that wait, at every step", function()
      local function tree(n)
        return wrap(function()
          collectgarbage("step")
          if n == 0 then
            agather.sleep(1)
            collectgarbage()
            return yield({ n })
          end
          for value in tree(n - 1) do
            collectgarbage("step")
            yield(value)
            agather.sleep(0)
          end
          for value in tree(n - 1) do
            yield(value)
            collectgarbage("step")
          end
        end)
      end
      local leaves = 0
      for value in tree(5) do
        assert.same({ 0 }, value)
        leaves = leaves + 1
        collectgarbage()
      end
      assert.equal(32, leaves)
    end)

    it("keeps what only a waiting generator holds", function()
      local weak = setmetatable({}, { __mode = "v" })
      local task = start(wrap(function()
        local object = { "object" }
        weak.object = object
        agather.sleep(5)
        return object
      end))
      for _ = 1, 4 do
        agather.sleep(1)
        collectgarbage()
        assert.same({ "object" }, weak.object)
      end
      assert.same({ "object" }, task:await())
    end)

    it("frees generators that were cancelled, failed, ended or were left", function()
      local weak = setmetatable({}, { __mode = "k" })
      local function known(f)
        local co = create(f)
        weak[co] = true
        return co
      end
      do
        local cancelled = start(function() error(select(2, resume(known(function() agather.sleep(10) end))), 0) end)
        cancelled:cancel()
        assert_cancelled(cancelled)
      end
      resume(known(function()
        agather.sleep(1)
        error("failed")
      end))
      resume(known(function() agather.sleep(1) end))
      resume(known(function()
        agather.sleep(1)
        yield()
      end))
      do
        local closed = known(yield)
        resume(closed)
        generators.close(closed)
      end
      turns(3)
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(weak))
    end)

    plain_it("uses one generator in two loops, one after the other", function()
      local generator = wrap(function()
        for i = 1, 4 do
          agather.sleep(1)
          yield(i)
        end
      end)
      local got = {}
      for _ = 1, 2 do
        support.virtual(function() for _ = 1, 2 do got[#got + 1] = generator() end end)
        collectgarbage()
      end
      assert.same({ 1, 2, 3, 4 }, got)
    end)
  end)
end)

describe("A generator in odd hands", function()
  it("takes a task off the lock that it waited for when its generator is closed by hand", function()
    local lock = agather.Lock()
    lock:acquire()
    local generator = create(function() lock:acquire() end)
    local task = agather.spawn(resume, generator)
    agather.sleep(0)
    coroutine.close(generator)
    lock:release()
    task:await()
    assert.equal("<Lock unlocked waiters=0>", tostring(lock))
  end)
  plain_it("fails when Lua's own resume runs it", function()
    assert.same({ false, "oops" }, { coroutine.resume(create(function() error("oops", 0) end)) })
  end)
  plain_it("close gives the error of a coroutine that failed, the first time", function()
    local generator = create(function() error("oops", 0) end)
    resume(generator)
    assert.same({ false, "oops" }, { generators.close(generator) })
  end)
end)

describe("a generator that nobody has started", function()
  plain_it("is awaited as its function", function()
    support.virtual(function()
      local results = agather.gather(create(function() return agather.sleep(1, "slept") end)):await()
      assert.same({ "slept", n = 1 }, results)
    end)
  end)
end)

-- On stacks of their own, which go with their coroutines.
describe("values that have no room", function()
  local many = table.move({}, 1, 900000, 1, {})

  plain_it("are no results of resume", function()
    local function called(...)
      local ok, message = resume(create(function() return table.unpack(many, 1, 900000) end))
      return ok, message, ...
    end
    local ok, message = coroutine.wrap(function() return called(table.unpack(many, 1, 150000)) end)()
    assert.is_false(ok)
    assert.equal("too many results to resume", message)
  end)

  plain_it("are no arguments of resume, and the generator goes on", function()
    local generator = create(function(...)
      local got = select("#", yield())
      return got, select("#", ...)
    end)
    local function resumed(count) return resume(generator, table.unpack(many, 1, count)) end
    assert.is_true((coroutine.wrap(resumed)(450000)))
    local ok, message = coroutine.wrap(resumed)(600000)
    assert.is_false(ok)
    assert.equal("too many arguments to resume", message)
    assert.same({ true, 1, 450000 }, { resume(generator, "one") })
  end)
end)

describe("a generator that catches its end, and yields", function()
  plain_it("is closed by force, with the error of its scopes", function()
    local generator = create(function()
      local _ <close> = closing(function() error("of a scope", 0) end)
      while true do pcall(yield) end
    end)
    resume(generator)
    local ok, message = generators.close(generator)
    assert.is_false(ok)
    assert.equal("of a scope", tostring(message))
  end)
end)
