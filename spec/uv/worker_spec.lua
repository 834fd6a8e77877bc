-- src/uv/worker*.c, src/uv/message.c and lua/agather/worker.lua: functions on other threads.
local agather = require "agather"
local worker = require "agather.worker"
local support = require "spec.support"

-- Runs main with a pool of [size] threads, which is closed at the end.
local function with_pool(size, main)
  return agather.run(function()
    local pool <close> = worker.Pool { size = size }
    return main(pool)
  end)
end

local function same(...) return ... end

-- Runs f in a task that is cancelled once the file [path] is there, and gives the task after it has ended.
local function cancel_when_started(path, f)
  local task = agather.spawn(f)
  while not io.open(path) do agather.sleep(0.001) end
  os.remove(path)
  task:cancel()
  pcall(task.await, task)
  return task
end

-- Waits until the pool has no thread that is busy: as many jobs as it has threads meet in files.
local function all_threads_answer(pool)
  local path = os.tmpname()
  os.remove(path)
  local jobs = {}
  for i = 1, pool.size do
    jobs[i] = function()
      return pool:run(function(base, place, size)
        assert(io.open(base .. place, "w")):close()
        for other = 1, size do
          while not io.open(base .. other) do end
        end
        return place
      end, path, i, pool.size)
    end
  end
  local answers = agather.gather_list(jobs):await()
  for i = 1, pool.size do os.remove(path .. i) end
  return answers
end

describe("worker.run", function()
  it("returns all results of a function, nils included", function()
    agather.run(function()
      local list = table.pack(worker.run(function(a, b) return a + b, nil, "x", nil end, 1, 2))
      assert.same({ 3, nil, "x", nil, n = 4 }, list)
      assert.equal(0, select("#", worker.run(function() end)))
    end)
  end)

  it("runs in another state, on another thread, while the loop goes on", function()
    agather.run(function()
      local path = os.tmpname()
      os.remove(path)
      local task = agather.spawn(worker.run, function(name)
        while not io.open(name) do end
        return tostring(_G)
      end, path)
      agather.sleep(0.01)
      assert.is_false(task:done())
      assert(io.open(path, "w")):close()
      assert.not_equal(tostring(_G), task:await())
      os.remove(path)
    end)
  end)

  it("copies nil, booleans, integers, floats and strings as they are", function()
    agather.run(function()
      local values = table.pack(nil, true, false, 0, 255, 256, -1, math.maxinteger, math.mininteger, 1.0, -0.0,
        math.huge, 0.1, "", "a\0b", ("x"):rep(255), ("y"):rep(256), nil)
      local list = table.pack(worker.run(same, table.unpack(values, 1, values.n)))
      assert.same(values, list)
      for i = 1, values.n do assert.equal(math.type(values[i]), math.type(list[i])) end
      local nan = worker.run(same, 0 / 0)
      assert.is_true(nan ~= nan)
    end)
  end)

  it("copies a string of many megabytes", function()
    agather.run(function()
      local text = ("0123456789abcdef"):rep(1 << 20)
      local length, back = worker.run(function(s) return #s, s .. "!" end, text)
      assert.equal(#text, length)
      assert.is_true(back == text .. "!")
    end)
  end)

  it("copies nested tables with every kind of key", function()
    agather.run(function()
      local value = { 1, 2, { 3, x = { y = { "z" } } }, [1.5] = true, [-3] = "minus", [true] = {}, [false] = 0,
        ["a b"] = { n = 1 }, [1 << 40] = "far" }
      assert.same(value, worker.run(same, value))
      local wide = {}
      for i = 1, 100000 do wide[i] = i * 2 end
      assert.same(wide, worker.run(same, wide))
    end)
  end)

  it("keeps tables that stand at several places and within themselves", function()
    agather.run(function()
      local shared = { "shared" }
      local ring = { shared, shared }
      ring.self, ring.of = ring, { back = ring }
      local a, b = worker.run(same, ring, shared)
      assert.is_true(a.self == a and a.of.back == a)
      assert.is_true(a[1] == a[2] and a[1] == b)
      assert.equal("shared", b[1])
      assert.is_false(b == shared)
    end)
  end)

  it("leaves metatables behind", function()
    agather.run(function()
      local value = setmetatable({ 1 }, { __index = function() error("not asked") end, __pairs = error })
      local back, bare = worker.run(function(v) return v, getmetatable(v) == nil end, value)
      assert.same({ 1 }, back)
      assert.is_true(bare)
    end)
  end)

  it("copies tables nested thousands deep, and refuses more than the limit", function()
    agather.run(function()
      local function nested(depth)
        local value = {}
        for _ = 2, depth do value = { next = value } end
        return value
      end
      local value, depth = worker.run(same, nested(50000)), 0
      while value do value, depth = value.next, depth + 1 end
      assert.equal(50000, depth)
      local err = support.raises("is nested too deep", worker.run, same, nested(100001))
      assert.is_true(#err < 400)
      assert.matches("%.next%.next.* %.%.%. ", err)
    end)
  end)

  it("names the place of what cannot be copied", function()
    agather.run(function()
      local function refused(text, ...) support.raises(text, worker.run, same, ...) end
      refused("bad argument #3 to 'run' (.callbacks[3] is a function", 1, { callbacks = { 1, 2, print } })
      refused("bad argument #2 to 'run' (a function cannot be copied", print)
      refused("bad argument #2 to 'run' (a thread cannot be copied", coroutine.create(print))
      refused("[\"a b\"][1.5][true].x is a userdata", { ["a b"] = { [1.5] = { [true] = { x = io.stdout } } } })
      refused("(.list has a table for a key", { list = { [{}] = 1 } })
      refused("(a function for a key", { [print] = 1 })
      local raised = select(2, pcall(worker.run, same, print))
      assert.matches("^.*worker_spec%.lua:%d+: bad argument", raised)
    end)
  end)

  it("names the result that cannot be copied", function()
    agather.run(function()
      local err = support.raises("result #2: .f[1] is a function", worker.run,
        function() return 1, { f = { print } } end)
      assert.is_true(agather.is_error(err, agather.RuntimeError))
      support.raises("result #1: a thread cannot be copied", worker.run, function() return coroutine.create(print) end)
    end)
  end)

  it("copies upvalues that are plain data, anew for each run", function()
    agather.run(function()
      local count, options = 10, { step = 2 }
      local function next_count()
        count = count + options.step
        return count
      end
      assert.equal(12, worker.run(next_count))
      assert.equal(12, worker.run(next_count))
      assert.equal(10, count)
      options.step = 5
      assert.equal(15, worker.run(next_count))
    end)
  end)

  it("runs a function that calls itself", function()
    local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
    agather.run(function() assert.equal(610, worker.run(fib, 15)) end)
  end)

  it("names an upvalue that cannot be copied", function()
    agather.run(function()
      local helper, settings = function() end, { log = { print } }
      support.raises("bad argument #1 to 'run' (upvalue 'helper': a function cannot be copied", worker.run,
        function() return helper() end)
      support.raises("upvalue 'settings'.log[1] is a function", worker.run, function() return settings end)
    end)
  end)

  it("runs functions of libraries and named functions of modules", function()
    agather.run(function()
      assert.equal("ABC", worker.run(string.upper, "abc"))
      assert.equal("ababab", worker.run("string:rep", "ab", 3))
      assert.equal(3, worker.run(function() return require("math").floor(3.5) end))
      local folder = os.tmpname()
      os.remove(folder)
      local before = package.path
      package.path = folder .. "_?.lua;" .. before
      local _ <close> = support.closing(function() package.path = before end)
      local file = assert(io.open(folder .. "_jobs.lua", "w"))
      file:write("return setmetatable({ twice = function(x) return 2 * x end, five = 5 },\n",
        "{ __call = function(_, x) return 'called ' .. x end })")
      file:close()
      assert.equal(8, worker.run("jobs:twice", 4))
      assert.equal("called 4", worker.run("jobs", 4))
      support.raises("'jobs:five' is no function but a number", worker.run, "jobs:five")
      support.raises("'jobs:six' is no function but a nil", worker.run, "jobs:six")
      os.remove(folder .. "_jobs.lua")
      support.raises("module 'no.such' not found", worker.run, "no.such:f")
    end)
  end)

  it("refuses what is no function", function()
    agather.run(function()
      support.raises("bad argument #1 to 'run' (function or name of one expected, got nil)", worker.run)
      support.raises("bad argument #1 to 'run' (function or name of one expected, got table)", worker.run, {})
      support.raises("\"module\" or \"module:function\" expected, got 'a:b:c'", worker.run, "a:b:c")
      support.raises("expected, got ''", worker.run, "")
      support.raises("a C function that no module holds", worker.run, ("x"):gmatch("."))
    end)
  end)

  it("gives each run globals of its own, and keeps modules", function()
    with_pool(1, function(pool)
      assert.equal(1, pool:run(function() x = 1; return _G.x end)) -- luacheck: ignore
      assert.is_nil(pool:run(function() return x end)) -- luacheck: ignore
      pool:run(function() package.loaded.counter = { n = 7 } end)
      assert.equal(7, pool:run(function() return require("counter").n end))
    end)
  end)

  it("has the standard libraries, and a state that is agather's too", function()
    agather.run(function()
      assert.same({ "table", "table", "function" }, { worker.run(function()
        return type(string), type(utf8), type(debug.traceback)
      end) })
      assert.equal("slept", worker.run(function()
        local inner = require "agather"
        return inner.run(function() return inner.sleep(0.001, "slept") end)
      end))
      support.raises("a worker cannot end the program", worker.run, function() os.exit(3) end)
    end)
  end)

  it("runs workers from workers", function()
    agather.run(function()
      assert.equal(42, worker.run(function()
        local inner = require "agather"
        return inner.run(function() return inner.worker.run(function(n) return n * 2 end, 21) end)
      end))
    end)
  end)

  it("needs a task", function()
    support.raises("run: use it inside a task", worker.run, same)
    support.raises("no running event loop", worker.Pool)
    agather.run(function()
      local done = agather.future()
      agather.get_running_loop():call_soon(function() done:set_result(pcall(worker.run, same)) end)
      local ok, err = done:await()
      assert.is_false(ok)
      assert.matches("use it inside a task", tostring(err))
    end)
  end)

  it("says where waiting is not possible, and drops the job", function()
    agather.run(function()
      local ok, err = pcall(table.sort, { 2, 1 }, function() return worker.run(same, true) end)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("yield", 1, true) or tostring(err):find("wait", 1, true))
      collectgarbage()
      assert.equal(1, worker.run(same, 1))
    end)
  end)

  it("keeps the loop alive: a run is no deadlock", function()
    assert.equal("late", agather.run(worker.run, function()
      local start = os.clock()
      while os.clock() - start < 0.02 do end
      return "late"
    end))
  end)
end)

describe("an error in a worker", function()
  it("is raised as an error object with value and traceback", function()
    agather.run(function()
      local err = support.raises("boom", worker.run, function()
        local function inner() error("boom") end
        inner()
        return 1
      end)
      assert.is_true(agather.is_error(err))
      assert.matches("worker_spec%.lua:%d+: boom$", err.value)
      assert.equal(err.value, tostring(err))
      assert.matches("^stack traceback:.*worker_spec%.lua:%d+: in local 'inner'", err.traceback)
    end)
  end)

  it("reaches who awaits a task as the bare value, with the worker's traceback beside it", function()
    agather.run(function()
      local task = agather.spawn(worker.run, function()
        local function inner() error({ code = 7 }) end
        inner()
        return 1
      end)
      local ok, err = pcall(task.await, task)
      assert.is_false(ok)
      assert.same({ code = 7 }, err)
      assert.matches("in local 'inner'", task:exception().traceback)
    end)
  end)

  it("carries any value", function()
    agather.run(function()
      local function raised(f, ...)
        local ok, err = pcall(worker.run, f, ...)
        assert.is_false(ok)
        assert.is_true(agather.is_error(err))
        return err.value
      end
      local function raise(v) error(v, 0) end
      for _, value in ipairs { 1, 1.5, true, false, "text", { code = 7, list = { 1, 2 } } } do
        assert.same(value, raised(raise, value))
      end
      assert.is_nil(raised(raise, nil))
      assert.matches("^function: ", raised(function() error(print, 0) end))
      assert.equal("described", raised(function()
        error(setmetatable({ f = print }, { __tostring = function() return "described" end }))
      end))
    end)
  end)

  it("of one of the library's classes is of that class", function()
    agather.run(function()
      local err = support.raises("too late", worker.run, function()
        error(require("agather").TimeoutError("too late"))
      end)
      assert.is_true(agather.is_error(err, agather.TimeoutError))
      assert.matches("stack traceback:", err.traceback)
      err = support.raises("ENOENT", worker.run, function()
        error(require("agather").OSError("open x: no such file (ENOENT)", { code = "ENOENT", errno = 2 }))
      end)
      assert.is_true(agather.is_error(err, agather.OSError))
      assert.equal("ENOENT", err.code)
    end)
  end)

  it("leaves the state usable", function()
    with_pool(1, function(pool)
      for _ = 1, 50 do pcall(pool.run, pool, function() error("again") end) end
      support.raises("stack overflow", pool.run, pool, function()
        local function f() return 1 + f() end
        return f()
      end)
      assert.equal(5, pool:run(same, 5))
    end)
  end)

  it("of a stopped or failing coroutine reads as in Lua", function()
    with_pool(1, function(pool)
      local list = table.pack(pool:run(function()
        local failing = coroutine.create(function(a) coroutine.yield(a); error("inside", 0) end)
        local ok1, value = coroutine.resume(failing, 1)
        local ok2, err = coroutine.resume(failing)
        local ok3, dead = coroutine.resume(failing)
        local next_value = coroutine.wrap(function(...) coroutine.yield(...); error("wrapped") end)
        local a, b = next_value(1, 2)
        local ok4, werr = pcall(function() return (next_value()) end)
        local closing = coroutine.create(function()
          local _ <close> = setmetatable({}, { __close = function() error("at close", 0) end })
          coroutine.yield()
        end)
        coroutine.resume(closing)
        local ok5, cerr = coroutine.close(closing)
        local ok6, rerr = pcall(coroutine.close, (coroutine.running()))
        return ok1, value, ok2, err, ok3, dead, a, b, ok4, werr, ok5, cerr, ok6, rerr
      end))
      assert.same({ true, 1, false, "inside", false, "cannot resume dead coroutine", 1, 2, false },
        { table.unpack(list, 1, 9) })
      assert.matches("worker_spec%.lua:%d+: .*worker_spec%.lua:%d+: wrapped$", list[10]) -- who called, and where it was
      assert.same({ false, "at close", false }, { list[11], list[12], list[13] })
      assert.matches("cannot close a running coroutine", list[14])
    end)
  end)

  it("passes through xpcall's handler", function()
    agather.run(function()
      assert.same({ false, "handled: oops" }, { worker.run(function()
        return xpcall(error, function(m) return "handled: " .. m end, "oops", 0)
      end) })
      assert.same({ true, 1, 2 }, { worker.run(function() return xpcall(function(...) return ... end, print, 1, 2) end) })
    end)
  end)
end)

describe("cancelling a run", function()
  -- What is hard to stop. Each makes the file first.
  local stubborn = {
    ["a loop"] = function(path)
      io.open(path, "w"):close()
      while true do end
    end,
    ["a loop that catches errors"] = function(path)
      io.open(path, "w"):close()
      while true do pcall(function() while true do end end) end
    end,
    ["a loop in a message handler"] = function(path)
      io.open(path, "w"):close()
      local function loop() while true do end end
      while true do xpcall(loop, loop) end
    end,
    ["a coroutine that never yields"] = function(path)
      local co = coroutine.wrap(function()
        io.open(path, "w"):close()
        while true do end
      end)
      co()
    end,
    ["nested coroutines that catch errors"] = function(path)
      local function nest(depth)
        if depth == 0 then
          io.open(path, "w"):close()
          while true do pcall(function() while true do end end) end
        end
        while true do coroutine.resume(coroutine.create(nest), depth - 1) end
      end
      nest(5)
    end,
    ["coroutines that yield for ever"] = function(path)
      local co = coroutine.wrap(function() while true do pcall(coroutine.yield) end end)
      io.open(path, "w"):close()
      while true do pcall(co) end
    end,
    ["a scope that closes for ever"] = function(path)
      io.open(path, "w"):close()
      while true do
        pcall(function()
          local _ <close> = setmetatable({}, { __close = function() while true do end end })
        end)
      end
    end,
    ["a sort that never ends"] = function(path)
      io.open(path, "w"):close()
      while true do pcall(table.sort, { 3, 2, 1 }, function() while true do end end) end
    end,
    ["a loop of agather that sleeps"] = function(path)
      local inner = require "agather"
      inner.run(function()
        io.open(path, "w"):close()
        inner.sleep(1000)
      end)
    end,
    ["a task that never waits"] = function(path)
      local inner = require "agather"
      pcall(inner.run, function()
        inner.spawn(function() while true do inner.sleep(0) end end)
        inner.spawn(function()
          io.open(path, "w"):close()
          while true do pcall(function() while true do end end) end
        end):await()
      end)
    end,
    ["a generator of agather that never yields"] = function(path)
      local inner = require "agather"
      inner.run(function()
        inner.coroutine.wrap(function()
          inner.sleep(0)
          io.open(path, "w"):close()
          while true do end
        end)()
      end)
    end,
    ["a loop that allocates"] = function(path)
      io.open(path, "w"):close()
      while true do
        local t = {}
        for i = 1, 100 do t[i] = { tostring(i), t[i - 1] } end
      end
    end,
  }
  for name, f in pairs(stubborn) do
    it("stops " .. name, function()
      with_pool(1, function(pool)
        local path = os.tmpname()
        os.remove(path)
        local task = cancel_when_started(path, function() return pool:run(f, path) end)
        assert.is_true(task:cancelled())
        assert.equal("free again", pool:run(same, "free again"))
      end)
    end)
  end

  it("frees the task at once, even where the thread cannot leave yet", function()
    with_pool(1, function(pool)
      local path = os.tmpname()
      os.remove(path)
      local loop = agather.get_running_loop()
      local task = agather.spawn(pool.run, pool, function(name)
        os.execute("touch " .. name .. "; sleep 0.3")
      end, path)
      while not io.open(path) do agather.sleep(0.001) end
      os.remove(path)
      local start = loop:time()
      task:cancel()
      pcall(task.await, task)
      assert.is_true(task:cancelled())
      assert.is_true(loop:time() - start < 0.2)
      assert.equal(1, pool:run(same, 1))
    end)
  end)

  it("takes a job that waits off the queue", function()
    with_pool(1, function(pool)
      local gate, ran = os.tmpname(), os.tmpname()
      os.remove(gate)
      os.remove(ran)
      local first = agather.spawn(pool.run, pool, function(path) while not io.open(path) do end end, gate)
      local waiting = {}
      for i = 1, 3 do
        waiting[i] = agather.spawn(pool.run, pool, function(path) io.open(path, "w"):close() end, ran)
      end
      local last = agather.spawn(pool.run, pool, same, "last")
      agather.sleep(0)
      for i = 3, 1, -1 do waiting[i]:cancel() end
      agather.sleep(0)
      for i = 1, 3 do assert.is_true(waiting[i]:cancelled()) end
      assert(io.open(gate, "w")):close()
      first:await()
      assert.equal("last", last:await())
      assert.is_nil(io.open(ran))
      os.remove(gate)
    end)
  end)

  it("is what a timeout does", function()
    with_pool(1, function(pool)
      local err = support.raises("", function()
        local _ <close> = agather.timeout(0.01)
        pool:run(function() while true do end end)
      end)
      assert.is_true(agather.is_error(err, agather.TimeoutError))
      assert.equal(2, pool:run(same, 2))
    end)
  end)

  it("before the wait begins runs nothing", function()
    with_pool(1, function(pool)
      local path = os.tmpname()
      os.remove(path)
      local task = agather.spawn(function()
        agather.current_task():cancel()
        pool:run(function(name) io.open(name, "w"):close() end, path)
      end)
      pcall(task.await, task)
      assert.is_true(task:cancelled())
      assert.equal(1, pool:run(same, 1))
    end)
  end)

  it("a hundred times over loses no thread", function()
    with_pool(2, function(pool)
      for round = 1, 100 do
        local tasks = {}
        for i = 1, 4 do tasks[i] = agather.spawn(pool.run, pool, function() while true do end end) end
        agather.sleep(round % 3 == 0 and 0.0005 or 0)
        for i = 1, 4 do tasks[i]:cancel() end
        for i = 1, 4 do pcall(tasks[i].await, tasks[i]) end
      end
      assert.same({ 1, 2, n = 2 }, all_threads_answer(pool))
    end)
  end)
end)

describe("worker.map", function()
  it("keeps the order and passes places, in chunks of any size", function()
    with_pool(2, function(pool)
      local items = {}
      for i = 1, 103 do items[i] = i end
      for _, chunk in ipairs { false, 1, 7, 103, 1000 } do
        local found = pool:map(function(x, place) return x * 1000 + place end, items, { chunk = chunk or nil })
        assert.equal(103, found.n)
        for i = 1, 103 do assert.equal(i * 1001, found[i]) end
      end
      assert.same({ n = 0 }, pool:map(same, {}))
      assert.same({ 1, nil, 3, nil, n = 4 }, pool:map(same, { 1, nil, 3, nil, n = 4 }))
      assert.same({ "A", "B", n = 2 }, worker.map(string.upper, { "a", "b" }))
    end)
  end)

  it("uses every thread", function()
    with_pool(2, function(pool)
      local path = os.tmpname()
      os.remove(path)
      local found = pool:map(function(base, place) -- each waits for the other: on one thread they never end
        io.open(base .. place, "w"):close()
        while not io.open(base .. 3 - place) do end
        return place
      end, { path, path }, { chunk = 1 })
      os.remove(path .. 1)
      os.remove(path .. 2)
      assert.same({ 1, 2, n = 2 }, found)
    end)
  end)

  it("raises the first error and stops the rest", function()
    with_pool(2, function(pool)
      local items = {}
      for i = 1, 50 do items[i] = i end
      local err = support.raises("bad item", pool.map, pool, function(x)
        if x == 1 then error("bad item", 0) end
        while true do end
      end, items)
      assert.equal("bad item", err.value)
      assert.same({ 1, 2, n = 2 }, all_threads_answer(pool))
    end)
  end)

  it("is cancelled as a whole", function()
    with_pool(2, function(pool)
      local path = os.tmpname()
      os.remove(path)
      local task = cancel_when_started(path, function()
        return pool:map(function(name)
          io.open(name, "w"):close()
          while true do end
        end, { path, path, path, path })
      end)
      assert.is_true(task:cancelled())
      assert.same({ 1, 2, n = 2 }, all_threads_answer(pool))
      os.remove(path)
    end)
  end)

  it("names what is wrong with its arguments", function()
    agather.run(function()
      support.raises("bad argument #2 to 'map' ([3].f is a function", worker.map, same, { 1, 2, { f = print } })
      support.raises("bad argument #2 to 'map' ([2]: a function cannot be copied", worker.map, same, { 1, print })
      support.raises("bad argument #1 to 'map' (upvalue 'support'", worker.map, function() return support end, { 1 })
      support.raises("bad argument #2 to 'map' (list expected, got nil)", worker.map, same)
      support.raises("bad argument #3 to 'map' (unknown option 'chunks')", worker.map, same, {}, { chunks = 1 })
      support.raises("option 'chunk' must be a positive integer, got 0", worker.map, same, {}, { chunk = 0 })
      support.raises("result #2: a function cannot be copied", worker.map,
        function(x) return x == 2 and print or x end, { 1, 2 }, { chunk = 2 })
    end)
  end)
end)

describe("worker.Pool", function()
  it("checks its options", function()
    agather.run(function()
      support.raises("unknown option 'sise'", worker.Pool, { sise = 2 })
      support.raises("option 'size' must be a positive integer, got 0", worker.Pool, { size = 0 })
      support.raises("option 'size' must be at most 1024, got 5000", worker.Pool, { size = 5000 })
    end)
  end)

  it("forgets thousands of cancelled jobs, from the end or the beginning", function()
    with_pool(1, function(pool)
      local gate = os.tmpname()
      os.remove(gate)
      local first = agather.spawn(pool.run, pool, function(path) while not io.open(path) do end end, gate)
      local tasks = {}
      for i = 1, 4000 do tasks[i] = agather.spawn(pool.run, pool, same, i) end
      agather.sleep(0)
      for i = 4000, 2001, -1 do tasks[i]:cancel() end
      for i = 1, 1999 do tasks[i]:cancel() end
      assert(io.open(gate, "w")):close()
      first:await()
      assert.equal(2000, tasks[2000]:await())
      os.remove(gate)
      assert.equal("next", pool:run(same, "next"))
    end)
  end)

  it("does thousands of jobs", function()
    with_pool(2, function(pool)
      local jobs = {}
      for i = 1, 3000 do jobs[i] = function() return pool:run(function(x) return { x + 1 } end, i) end end
      local found = agather.gather_list(jobs):await()
      for i = 1, 3000 do assert.equal(i + 1, found[i][1]) end
    end)
  end)

  it("keeps a compiled function for its next run, but not without bound", function()
    with_pool(1, function(pool)
      for i = 1, 200 do
        local f = assert(load("return " .. i))
        assert.equal(i, pool:run(f))
        assert.equal(i, pool:run(f))
      end
    end)
  end)

  it("closes twice, and refuses use after that", function()
    agather.run(function()
      local pool = worker.Pool { size = 2 }
      assert.equal(1, pool:run(same, 1))
      pool:close()
      pool:close()
      local err = support.raises("the worker pool is closed", pool.run, pool, same)
      assert.is_true(agather.is_error(err, agather.RuntimeError))
      support.raises("the worker pool is closed", pool.map, pool, same, { 1 })
      worker.Pool():close()
    end)
  end)

  it("that closes stops what runs and tells who waits", function()
    agather.run(function()
      local path = os.tmpname()
      os.remove(path)
      local pool = worker.Pool { size = 1 }
      local running = agather.spawn(pool.run, pool, function(name)
        io.open(name, "w"):close()
        while true do pcall(function() while true do end end) end
      end, path)
      local queued = agather.spawn(pool.run, pool, same, 1)
      while not io.open(path) do agather.sleep(0.001) end
      os.remove(path)
      pool:close()
      for _, task in ipairs { running, queued } do
        local err = support.raises("the worker pool was closed", task.await, task)
        assert.is_true(agather.is_error(err, agather.RuntimeError))
      end
    end)
  end)

  it("that closes lets the loop go on while a thread cannot leave", function()
    agather.run(function()
      local path = os.tmpname()
      os.remove(path)
      local pool = worker.Pool { size = 1 }
      local running = agather.spawn(pool.run, pool, function(name) os.execute("touch " .. name .. "; sleep 1") end, path)
      while not io.open(path) do agather.sleep(0.001) end
      os.remove(path)
      local closing = agather.spawn(pool.close, pool)
      local turns = 0
      while not closing:done() do
        turns = turns + 1
        agather.sleep(0.005)
      end
      assert.is_true(turns > 5)
      support.raises("the worker pool was closed", running.await, running)
      pool:close()
    end)
  end)

  it("whose close is cancelled closes all the same", function()
    agather.run(function()
      local path = os.tmpname()
      os.remove(path)
      local pool = worker.Pool { size = 1 }
      local running = agather.spawn(pool.run, pool, function(name) os.execute("touch " .. name .. "; sleep 0.1") end, path)
      while not io.open(path) do agather.sleep(0.001) end
      os.remove(path)
      local closing = agather.spawn(pool.close, pool)
      agather.sleep(0)
      closing:cancel()
      pcall(closing.await, closing)
      assert.is_true(closing:cancelled())
      support.raises("was closed", running.await, running)
      support.raises("is closed", pool.run, pool, same)
      pool:close()
    end)
  end)

  it("goes with the loop, whatever its jobs do", function()
    agather.run(function()
      for _ = 1, 3 do
        agather.spawn(worker.run, function() while true do end end)
        agather.spawn(worker.run, function()
          local inner = require "agather"
          inner.run(inner.sleep, 1000)
        end)
        agather.spawn(worker.Pool { size = 1 }.run, worker.Pool { size = 2 }, function() while true do pcall(error) end end)
      end
      agather.sleep(0.005)
    end)
    collectgarbage()
    assert.equal(1, agather.run(worker.run, same, 1))
  end)

  it("of another loop is refused", function()
    local pool
    local runner <close> = agather.Runner()
    runner:run(function()
      pool = worker.Pool { size = 1 }
      assert.equal(1, pool:run(same, 1))
    end)
    agather.run(function() support.raises("the worker pool belongs to another loop", pool.run, pool, same) end)
    assert.equal(2, runner:run(function() return pool:run(same, 2) end))
    runner:close()
    agather.run(function() support.raises("the worker pool is closed", pool.run, pool, same) end)
  end)

  it("is collected with its threads", function()
    agather.run(function()
      for _ = 1, 20 do
        local pool = worker.Pool { size = 2 }
        assert.equal(1, pool:run(same, 1))
      end
      local function threads()
        for line in io.lines("/proc/self/status") do
          local count = line:match("^Threads:%s*(%d+)")
          if count then return tonumber(count) end
        end
      end
      assert.is_true(threads() >= 20)
      local _ <close> = agather.timeout(5)
      repeat
        collectgarbage()
        agather.sleep(0.001)
      until threads() < 10
    end)
  end)

  it("is collected while a thread cannot leave, and nobody waits for it", function()
    agather.run(function()
      local path = os.tmpname()
      os.remove(path)
      local task = agather.spawn(function()
        worker.Pool { size = 1 }:run(function(name) os.execute("touch " .. name .. "; sleep 1") end, path)
      end)
      while not io.open(path) do agather.sleep(0.001) end
      os.remove(path)
      local loop = agather.get_running_loop()
      local start = loop:time()
      task:cancel()
      agather.sleep(0)
      task = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.is_true(loop:time() - start < 0.9)
    end)
  end)

  it("survives collections at any moment", function()
    with_pool(2, function(pool)
      local tasks = {}
      for i = 1, 60 do
        tasks[i] = agather.spawn(pool.run, pool, function(x) collectgarbage() return x end, i)
        collectgarbage()
        agather.sleep(0)
        if i % 3 == 0 then tasks[i]:cancel() end
      end
      collectgarbage()
      for i = 1, 60 do
        local ok, value = pcall(tasks[i].await, tasks[i])
        if i % 3 ~= 0 then
          assert.is_true(ok)
          assert.equal(i, value)
        end
      end
    end)
  end)

  it("is left to lua_close by a script that ends in the middle of everything", function()
    local output, status = support.script([[
      local worker = agather.worker
      local loop = agather.new_event_loop()
      local pool
      loop:create_task(function()
        pool = worker.Pool{ size = 2 }
        agather.spawn(pool.run, pool, function() while true do end end)
        agather.spawn(worker.run, function() while true do pcall(error) end end)
        agather.sleep(0.02)
        print("leaving")
        os.exit(0, true)
      end)
      loop:run_forever()
    ]])
    assert.matches("^leaving\n", output)
    assert.equal(0, status)
  end)
end)
