local agather = require "agather"
local support = require "spec.support"
local testing = require "agather.testing"

local async, closing, raises = testing.async, support.closing, support.raises

local function now() return agather.get_running_loop():time() end

-- A function to map that counts how many of it run, and notes the most that ran at once.
local function counted(seconds)
  local counts = { running = 0, most = 0, calls = 0 }
  return counts, function(item)
    counts.running = counts.running + 1
    counts.calls = counts.calls + 1
    counts.most = math.max(counts.most, counts.running)
    local _ <close> = closing(function() counts.running = counts.running - 1 end)
    agather.sleep(type(seconds) == "function" and seconds(item) or seconds)
    return item
  end
end

-- An iterator over 1 to last that notes how far it was pulled.
local function numbers(last)
  local source = { pulled = 0 }
  return source, function()
    if source.pulled >= last then
      source.ended = (source.ended or 0) + 1
      return nil
    end
    source.pulled = source.pulled + 1
    return source.pulled
  end
end

local function range(last)
  local list = {}
  for place = 1, last do list[place] = place end
  return list
end

local function double(item) return item * 2 end

local function is_cancelled(ok, err)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, agather.CancelledError), "another error: " .. tostring(err))
end

-- What holds with a limit holds without one.
for name, limit in pairs{ ["without a limit"] = false, ["with a limit"] = 3 } do
  local function options(others)
    others = others or {}
    others.limit = limit or nil
    return others
  end

  describe("map " .. name, function()
    it("gives the results in the order of the items", async(function()
      local results = agather.map(function(item)
        agather.sleep(10 - item)
        return item * 2
      end, { 1, 2, 3, 4, 5 }, options())
      assert.same({ 2, 4, 6, 8, 10, n = 5 }, { n = results.n, table.unpack(results, 1, results.n) })
    end))

    it("hands the function the item and its place", async(function()
      local results = agather.map(function(...) return select("#", ...) .. table.concat({ ... }) end,
        { "a", "b", "c" }, options())
      assert.equal("2a1 2b2 2c3", table.concat(results, " "))
    end))

    it("keeps the first result of each", async(function()
      local results = agather.map(function(item) return item, "more" end, { 1, 2 }, options())
      assert.equal(1, results[1])
      assert.equal(2, results[2])
      assert.equal(2, results.n)
    end))

    it("may have nil and false as results", async(function()
      local results = agather.map(function(item)
        if item == 1 then return false end
      end, { 1, 2, 3 }, options())
      assert.equal(3, results.n)
      assert.is_false(results[1])
      assert.is_nil(results[2])
      assert.is_nil(results[3])
    end))

    it("of nothing gives an empty list at once", async(function()
      local function never() error("called", 0) end
      assert.equal(0, agather.map(never, {}, options()).n)
      assert.equal(0, agather.map(never, function() end, options()).n)
      assert.equal(0, now())
    end))

    it("takes false as an item", async(function()
      local results = agather.map(function(item) return tostring(item) end, { false, true }, options())
      assert.equal("false", results[1])
      assert.equal("true", results[2])
    end))

    it("takes the length of the list from n", async(function()
      local results = agather.map(double, { 1, 2, 3, n = 2 }, options())
      assert.equal(2, results.n)
      assert.equal(4, results[2])
      assert.is_nil(results[3])
    end))

    it("takes an iterator", async(function()
      local results = agather.map(function(word, place) return word .. place end, ("a b c"):gmatch("%a"), options())
      assert.equal("a1 b2 c3", table.concat(results, " "))
      assert.equal(3, results.n)
    end))

    it("takes an iterator with its state and control", async(function()
      local function following(last, item)
        if item < last then return item + 1 end
      end
      local results = agather.map(double, following, 4, 0, nil, options())
      assert.equal("2 4 6 8", table.concat(results, " "))
    end))

    it("takes a generator that waits", async(function()
      local counts, f = counted(10)
      local generator = agather.coroutine.wrap(function()
        for item = 1, 3 do
          agather.sleep(1)
          agather.coroutine.yield(item)
        end
      end)
      local results = agather.map(f, generator, options())
      assert.equal("1 2 3", table.concat(results, " "))
      assert.equal(3, counts.most)
      assert.equal(13, now())
    end))

    it("asks an iterator that waits for one item at a time", async(function()
      local asking, most, item = 0, 0, 0
      local results = agather.map(double, function()
        asking = asking + 1
        most = math.max(most, asking)
        agather.sleep(1)
        asking = asking - 1
        item = item + 1
        if item <= 5 then return item end
      end, options())
      assert.equal(5, results.n)
      assert.equal(1, most)
      assert.equal(6, now())
    end))

    it("closes the iterator at the end", async(function()
      local closed = {}
      local source, iterate = numbers(4)
      local value = closing(function(_, err) closed[#closed + 1] = err == nil and "no error" or err end)
      agather.map(double, iterate, nil, nil, value, options())
      assert.same({ "no error" }, closed)
      assert.equal(4, source.pulled)
      assert.equal(1, source.ended >= 1 and 1 or 0)
    end))

    it("may run inside another", async(function()
      local results = agather.map(function(outer)
        return table.concat(agather.map(function(inner)
          agather.sleep(1)
          return outer .. inner
        end, { 1, 2 }, options()), ",")
      end, { "a", "b" }, options())
      assert.equal("a1,a2 b1,b2", table.concat(results, " "))
      assert.equal(1, now())
    end))

    it("gives a list that may be awaited", async(function()
      local results = agather.map(double, { 1, 2 }, options())
      assert.equal(results, results:await())
      assert.equal(results, agather.await(results))
    end))

    it("raises the first error at once, the same value, and the others run on", async(function()
      local problem = {}
      local ended = 0
      local ok, err = pcall(agather.map, function(item)
        agather.sleep(item)
        if item == 1 then error(problem, 0) end
        ended = ended + 1
      end, { 1, 5, 9 }, options())
      assert.is_false(ok)
      assert.equal(problem, err)
      assert.equal(1, now())
      agather.sleep(20)
      assert.equal(2, ended)
    end))

    it("reports none of the errors that come after the first", async(function()
      local ok, err = pcall(agather.map, function(item)
        agather.sleep(item)
        error(item, 0)
      end, { 1, 2, 3 }, options())
      assert.is_false(ok)
      assert.equal(1, err)
      agather.sleep(10)
    end))

    it("closes the iterator on an error", async(function()
      local seen
      local _, iterate = numbers(3)
      raises("bad", agather.map, function() error("bad", 0) end, iterate, nil, nil,
        closing(function(_, err) seen = err end), options())
      assert.equal("bad", seen)
    end))

    it("raises an error of the iterator, and closes it", async(function()
      local seen
      raises("no more", agather.map, double, function() error("no more", 0) end, nil, nil,
        closing(function(_, err) seen = err end), options())
      assert.equal("no more", seen)
    end))

    it("with return_exceptions has errors among the results", async(function()
      local results = agather.map(function(item)
        agather.sleep(item)
        if item % 2 == 0 then error("bad" .. item, 0) end
        return item
      end, { 1, 2, 3, 4 }, options{ return_exceptions = true })
      assert.equal(4, results.n)
      assert.equal(1, results[1])
      assert.equal("bad2", results[2].value)
      assert.is_true(agather.is_error(results[2]))
      assert.equal(3, results[3])
      assert.equal("bad4", results[4].value)
      assert.is_truthy(results[2].traceback:find("map_spec.lua", 1, true))
    end))

    it("with return_exceptions has an item's own cancellation among the results", async(function()
      local results = agather.map(function(item)
        if item == 2 then error(agather.CancelledError(), 0) end
        return item
      end, { 1, 2, 3 }, options{ return_exceptions = true })
      assert.equal(1, results[1])
      assert.is_true(agather.is_error(results[2], agather.CancelledError))
      assert.equal(3, results[3])
    end))

    it("raises CancelledError where an item's own work was cancelled", async(function()
      local task = agather.spawn(agather.sleep, 100)
      agather.get_running_loop():call_later(1, function() task:cancel() end)
      is_cancelled(pcall(agather.map, function() task:await() end, { 1 }, options()))
      assert.equal(0, agather.current_task():cancelling())
      agather.sleep(1)
      assert.equal(2, now())
    end))

    it("with cancel_on_error cancels the others and waits for them first", async(function()
      local log, say = support.log()
      raises("bad", agather.map, function(item)
        if item == 2 then
          agather.sleep(1)
          error("bad", 0)
        end
        local _ <close> = closing(function(_, err)
          agather.sleep(item)
          say(item .. " " .. tostring(agather.is_error(err, agather.CancelledError)))
        end)
        agather.sleep(100)
      end, { 1, 2, 3 }, options{ cancel_on_error = true })
      assert.same({ "1 true", "3 true" }, log)
      assert.equal(4, now())
    end))

    it("cancelled, cancels what runs, and is cancelled", async(function()
      local counts, f = counted(100)
      local task = agather.spawn(agather.map, f, range(3), options())
      agather.sleep(1)
      assert.equal(3, counts.running)
      task:cancel()
      is_cancelled(pcall(task.await, task))
      assert.is_true(task:cancelled())
      assert.equal(1, now())
      agather.sleep(0)
      assert.equal(0, counts.running)
    end))

    it("cancelled, keeps the message", async(function()
      local task = agather.spawn(agather.map, function() agather.sleep(100) end, { 1 }, options())
      agather.sleep(1)
      task:cancel("enough")
      raises("enough", task.await, task)
    end))

    it("cancelled, also with return_exceptions, is cancelled", async(function()
      local counts, f = counted(100)
      local task = agather.spawn(agather.map, f, range(3), options{ return_exceptions = true })
      agather.sleep(1)
      task:cancel()
      is_cancelled(pcall(task.await, task))
      assert.is_true(task:cancelled())
      agather.sleep(0)
      assert.equal(0, counts.running)
    end))

    it("cancelled, closes the iterator", async(function()
      local seen
      local _, iterate = numbers(3)
      local task = agather.spawn(agather.map, function() agather.sleep(100) end, iterate, nil, nil,
        closing(function(_, err) seen = err end), options())
      agather.sleep(1)
      task:cancel()
      is_cancelled(pcall(task.await, task))
      assert.is_true(agather.is_error(seen, agather.CancelledError))
    end))

    it("in timeout(): is cancelled when it is due", async(function()
      local counts, f = counted(100)
      local ok, err = pcall(function()
        local _ <close> = agather.timeout(1)
        agather.map(f, range(3), options())
      end)
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.TimeoutError))
      assert.equal(1, now())
      agather.sleep(0)
      assert.equal(0, counts.running)
    end))

    it("lets a timeout of one item be an error of that item", async(function()
      local results = agather.map(function(item)
        local _ <close> = agather.timeout(2.5)
        return agather.sleep(item, item)
      end, { 1, 2, 3 }, options{ return_exceptions = true })
      assert.equal(1, results[1])
      assert.equal(2, results[2])
      assert.is_true(agather.is_error(results[3], agather.TimeoutError))
    end))

    it("runs the function in tasks other than the caller", async(function()
      local this = agather.current_task()
      local results = agather.map(agather.current_task, { 1, 2 }, options())
      assert.are_not.equal(this, results[1])
    end))

    it("says what it needs", async(function()
      raises("bad argument #1 to 'map' (function expected, got number)", agather.map, 5, {}, options())
      raises("bad argument #1 to 'map' (function expected, got nil)", agather.map, nil, {}, options())
      raises("bad argument #2 to 'map' (list expected, got number)", agather.map, double, 5, options())
      raises("bad argument #2 to 'map' (list expected, got nil)", agather.map, double, nil, options())
      raises("bad argument #2 to 'map' (unknown option 'limt')", agather.map, double, {}, options{ limt = 1 })
      raises("option 'progress' must be a boolean or a function, got string", agather.map, double, {},
        options{ progress = "yes" })
      raises("map_spec.lua:", function() agather.map(5, {}) end)
      raises("map_spec.lua:", function() agather.map(double, 5) end)
    end))

    it("is refused outside a task", async(function()
      local problem
      agather.get_running_loop():call_soon(function()
        problem = select(2, pcall(agather.map, double, { 1 }, options()))
      end)
      agather.sleep(0)
      agather.sleep(0)
      assert.equal("map: use it inside a task", tostring(problem))
      assert.is_true(agather.is_error(problem, agather.RuntimeError))
    end))

    it("is refused outside a loop", function()
      raises("map: use it inside a task", agather.map, double, { 1 }, options())
    end)

    for _, mode in ipairs{ "incremental", "generational" } do
      it("works in " .. mode .. " mode with a step of the collector at every turn", function()
        local before = collectgarbage(mode)
        local _ <close> = closing(function() collectgarbage(before) end)
        testing.run(function()
          local generator = agather.coroutine.wrap(function()
            for item = 1, 200 do
              collectgarbage("step")
              if item % 10 == 0 then agather.sleep(1) end
              agather.coroutine.yield({ item })
            end
          end)
          local results = agather.map(function(item, place)
            collectgarbage("step")
            agather.sleep(place % 3)
            collectgarbage("step")
            if place % 5 == 0 then error({ item[1] }, 0) end
            return { item[1] }
          end, generator, options{ return_exceptions = true })
          collectgarbage()
          assert.equal(200, results.n)
          for place = 1, 200 do
            local value = results[place]
            if place % 5 == 0 then value = value.value end
            assert.equal(place, value[1])
          end
        end)
      end)
    end
  end)
end

describe("map without a limit", function()
  it("runs all at once", async(function()
    local counts, f = counted(1)
    agather.map(f, range(1000))
    assert.equal(1000, counts.most)
    assert.equal(1, now())
  end))
end)

describe("map with a limit", function()
  it("runs that many at once, never more", async(function()
    for _, limit in ipairs{ 1, 2, 3, 7, 20, 100 } do
      local start = now()
      local counts, f = counted(1)
      local results = agather.map(f, range(20), { limit = limit })
      assert.equal(20, results.n)
      assert.equal(math.min(limit, 20), counts.most)
      assert.equal(start + math.ceil(20 / limit), now())
    end
  end))

  it("of one runs one after the other, in order", async(function()
    local order = {}
    agather.map(function(item)
      order[#order + 1] = item
      agather.sleep(10 - item)
    end, range(5), { limit = 1 })
    assert.same({ 1, 2, 3, 4, 5 }, order)
    assert.equal(35, now())
  end))

  it("starts the next when one is done, not when all are", async(function()
    local starts = {}
    agather.map(function(seconds, place)
      starts[place] = now()
      agather.sleep(seconds)
    end, { 1, 10, 1, 1, 1 }, { limit = 2 })
    assert.same({ 0, 0, 1, 2, 3 }, starts)
    assert.equal(10, now())
  end))

  it("pulls from an iterator only as places free up", async(function()
    local source, iterate = numbers(100)
    local gates = {}
    local task = agather.spawn(agather.map, function(item)
      gates[item] = agather.future()
      gates[item]:await()
    end, iterate, { limit = 4 })
    agather.sleep(1)
    assert.equal(4, source.pulled)
    gates[2]:set_result()
    agather.sleep(1)
    assert.equal(5, source.pulled)
    gates[1]:set_result()
    gates[5]:set_result()
    agather.sleep(1)
    assert.equal(7, source.pulled)
    task:cancel()
    is_cancelled(pcall(task.await, task))
    agather.sleep(1)
    assert.equal(7, source.pulled)
  end))

  it("asks an iterator for nothing more once it has ended", async(function()
    local source, iterate = numbers(5)
    agather.map(function(item) agather.sleep(item) end, iterate, { limit = 3 })
    assert.equal(1, source.ended)
  end))

  it("higher than the number of items needs no more tasks than those", async(function()
    local most = 0
    agather.map(function()
      most = math.max(most, #agather.all_tasks())
      agather.sleep(1)
    end, range(3), { limit = 1000000 })
    assert.is_true(most <= 5)
  end))

  it("pulls nothing more after an error", async(function()
    local source, iterate = numbers(100)
    raises("bad", agather.map, function(item)
      agather.sleep(1)
      if item == 5 then error("bad", 0) end
    end, iterate, { limit = 2 })
    assert.equal(3, now())
    agather.sleep(10)
    assert.is_true(source.pulled <= 6)
  end))

  it("starts nothing more of a list after an error", async(function()
    local calls = 0
    raises("bad", agather.map, function(item)
      calls = calls + 1
      agather.sleep(item)
      if item == 1 then error("bad", 0) end
    end, { 1, 5, 2, 2, 2 }, { limit = 2 })
    assert.equal(1, now())
    agather.sleep(20)
    assert.equal(2, calls)
  end))

  it("with return_exceptions goes on after an error", async(function()
    local counts, f = counted(1)
    local results = agather.map(function(item)
      f(item)
      error(item, 0)
    end, range(10), { limit = 2, return_exceptions = true })
    assert.equal(10, counts.calls)
    assert.equal(2, counts.most)
    for place = 1, 10 do assert.equal(place, results[place].value) end
    assert.equal(5, now())
  end))

  it("starts nothing more when it is cancelled", async(function()
    local counts, f = counted(1)
    local task = agather.spawn(agather.map, f, range(100), { limit = 2 })
    agather.sleep(2.5)
    assert.equal(6, counts.calls)
    task:cancel()
    is_cancelled(pcall(task.await, task))
    agather.sleep(10)
    assert.equal(6, counts.calls)
    assert.equal(0, counts.running)
  end))

  it("starts nothing more when it is cancelled, also with return_exceptions", async(function()
    local counts, f = counted(10)
    local task = agather.spawn(agather.map, f, range(100), { limit = 2, return_exceptions = true })
    agather.sleep(1)
    task:cancel()
    is_cancelled(pcall(task.await, task))
    agather.sleep(100)
    assert.equal(2, counts.calls)
  end))

  it("cancelled while the iterator waits, cancels that too", async(function()
    local seen
    local task = agather.spawn(agather.map, double, function()
      local _ <close> = closing(function(_, err) seen = err end)
      agather.sleep(100)
      return 1
    end, { limit = 3 })
    agather.sleep(1)
    task:cancel()
    is_cancelled(pcall(task.await, task))
    assert.is_true(agather.is_error(seen, agather.CancelledError))
    assert.equal(1, now())
  end))

  it("lets those that swallow a cancellation end before it is over", async(function()
    local ended = 0
    local task = agather.spawn(agather.map, function(item)
      pcall(agather.sleep, 100)
      pcall(agather.sleep, item)
      agather.sleep(item)
      ended = ended + 1
    end, range(3), { limit = 3 })
    agather.sleep(1)
    task:cancel()
    is_cancelled(pcall(task.await, task))
    assert.equal(3, ended)
  end))

  it("takes 100,000 items from a generator in constant memory", async(function()
    local most, counts = 0, { running = 0, most = 0 }
    local function look()
      collectgarbage()
      most = math.max(most, collectgarbage("count"))
    end
    local generator = agather.coroutine.wrap(function()
      for item = 1, 100000 do
        if item % 20000 == 0 then look() end
        agather.coroutine.yield({ item })
      end
    end)
    local sum = 0
    local function body(item)
      counts.running = counts.running + 1
      counts.most = math.max(counts.most, counts.running)
      agather.sleep(0)
      counts.running = counts.running - 1
      sum = sum + item[1]
    end
    look()
    local before = most
    local results = agather.map(body, generator, { limit = 50 })
    look()
    assert.equal(100000, results.n)
    assert.equal(5000050000, sum)
    assert.equal(50, counts.most)
    assert.is_true(most - before < 512, "grew by " .. most - before .. " KiB")
  end))

  it("says what it needs of the limit", async(function()
    for _, limit in ipairs{ 0, -1, 1.5, "3", false, {} } do
      raises("bad argument #2 to 'map' (option 'limit' must be a positive integer, got ", agather.map, double, {},
        { limit = limit })
    end
    raises("got 0)", agather.map, double, {}, { limit = 0 })
    raises("got 1.5)", agather.map, double, {}, { limit = 1.5 })
  end))
end)

describe("gather_list with a limit", function()
  it("gives the results in the order of the list", async(function()
    local list = {}
    for place = 1, 10 do list[place] = function() return agather.sleep(11 - place, place) end end
    local results = agather.gather_list(list, { limit = 3 }):await()
    assert.equal(10, results.n)
    for place = 1, 10 do assert.equal(place, results[place]) end
  end))

  it("runs that many at once, never more", async(function()
    for _, limit in ipairs{ 1, 3, 8, 50 } do
      local counts, f = counted(1)
      local list = {}
      for place = 1, 8 do list[place] = agather.async(f)(place) end
      local start = now()
      agather.gather_list(list, { limit = limit }):await()
      assert.equal(math.min(limit, 8), counts.most)
      assert.equal(start + math.ceil(8 / limit), now())
    end
  end))

  it("returns at once what may be awaited", async(function()
    local group = agather.gather_list({ function() return agather.sleep(1, "done") end }, { limit = 1 })
    assert.is_true(agather.is_awaitable(group))
    assert.is_false(group:done())
    assert.equal("done", group:await()[1])
    assert.is_true(group:done())
    assert.equal("done", group:result()[1])
  end))

  it("of an empty list gives an empty list", async(function()
    local results = agather.gather_list({}, { limit = 5 }):await()
    assert.equal(0, results.n)
  end))

  it("takes coros, functions, threads, tasks and futures", async(function()
    local future = agather.future()
    agather.get_running_loop():call_later(5, function() future:set_result("future") end)
    local results = agather.gather_list({
      agather.async(agather.sleep)(1, "coro"),
      function() return agather.sleep(1, "function") end,
      coroutine.create(function() return agather.sleep(1, "thread") end),
      agather.spawn(agather.sleep, 1, "task"),
      future,
    }, { limit = 2 }):await()
    assert.equal("coro function thread task future", table.concat(results, " "))
  end))

  it("runs what stands twice once, and fills all its places", async(function()
    local runs = 0
    local function body()
      runs = runs + 1
      agather.sleep(1)
      return runs
    end
    local coro, task = agather.async(body)(), agather.spawn(agather.sleep, 1, "task")
    local results = agather.gather_list({ coro, task, coro, task, coro }, { limit = 2 }):await()
    assert.same({ 1, "task", 1, "task", 1 }, { table.unpack(results) })
    assert.equal(5, results.n)
    assert.equal(1, runs)
  end))

  it("does not change the list", async(function()
    local list = { double, double }
    pcall(agather.await, agather.gather_list(list, { limit = 1, return_exceptions = true }))
    assert.same({ double, double }, list)
  end))

  it("runs a function that stands twice twice, as without a limit", async(function()
    local runs = 0
    local function f()
      runs = runs + 1
      return runs
    end
    for _, options in ipairs { { limit = 2 }, {} } do
      runs = 0
      assert.same({ 1, 2, n = 2 }, agather.gather_list({ f, f }, options):await())
    end
  end))

  it("is as long as n says, as without a limit", async(function()
    local f = function() return 1 end
    for _, options in ipairs { { limit = 2 }, {} } do
      assert.same({ 1, n = 1 }, agather.gather_list({ n = 1, f, f }, options):await())
      raises("at place 2 of the list, got nil", agather.gather_list, { n = 3, f }, options)
    end
  end))

  it("that is cancelled cancels all that it was given, as without a limit", async(function()
    for _, options in ipairs { { limit = 1 }, {} } do
      local tasks = {}
      for place = 1, 3 do tasks[place] = agather.spawn(agather.sleep, 1) end
      local group = agather.gather_list(tasks, options)
      agather.sleep(0)
      group:cancel()
      assert.is_false((pcall(agather.await, group)))
      for place = 1, 3 do assert.is_true(tasks[place]:cancelled()) end
    end
  end))

  it("raises the first error, and starts nothing more", async(function()
    local started = 0
    local function good()
      started = started + 1
      agather.sleep(1)
    end
    local function bad()
      agather.sleep(1)
      error("bad", 0)
    end
    raises("bad", agather.await, agather.gather_list({ good, bad, function() good() end, function() good() end },
      { limit = 1 }))
    assert.equal(2, now())
    agather.sleep(10)
    assert.equal(1, started)
  end))

  it("with return_exceptions has errors among the results", async(function()
    local results = agather.gather_list({
      function() error("bad", 0) end,
      function() return "good" end,
      function() error(agather.CancelledError(), 0) end,
    }, { limit = 1, return_exceptions = true }):await()
    assert.equal("bad", results[1].value)
    assert.equal("good", results[2])
    assert.is_true(agather.is_error(results[3], agather.CancelledError))
    assert.equal(3, results.n)
  end))

  it("with cancel_on_error cancels what runs, and waits for it", async(function()
    local seen
    raises("bad", agather.await, agather.gather_list({
      function()
        local _ <close> = closing(function(_, err)
          agather.sleep(2)
          seen = err
        end)
        agather.sleep(100)
      end,
      function()
        agather.sleep(1)
        error("bad", 0)
      end,
    }, { limit = 2, cancel_on_error = true }))
    assert.is_true(agather.is_error(seen, agather.CancelledError))
    assert.equal(3, now())
  end))

  it("cancelled, cancels what runs and starts nothing more", async(function()
    local counts, f = counted(10)
    local list = {}
    for place = 1, 10 do list[place] = function() f(place) end end
    local group = agather.gather_list(list, { limit = 3 })
    agather.sleep(1)
    assert.is_true(group:cancel())
    is_cancelled(pcall(group.await, group))
    agather.sleep(0)
    assert.equal(0, counts.running)
    assert.equal(3, counts.calls)
    assert.equal(1, now())
  end))

  it("is cancelled with the task that awaits it", async(function()
    local counts, f = counted(10)
    local task = agather.spawn(function()
      agather.gather_list({ function() f(1) end, function() f(2) end }, { limit = 1 }):await()
    end)
    agather.sleep(1)
    task:cancel()
    is_cancelled(pcall(task.await, task))
    agather.sleep(0)
    assert.equal(0, counts.running)
    assert.equal(1, counts.calls)
  end))

  it("takes 20,000", async(function()
    local list = {}
    for place = 1, 20000 do
      list[place] = function()
        agather.sleep(place % 3)
        return place
      end
    end
    local results = agather.gather_list(list, { limit = 1000 }):await()
    assert.equal(20000, results.n)
    for place = 1, 20000 do
      if results[place] ~= place then assert.equal(place, results[place]) end
    end
  end))

  it("says what it needs", async(function()
    local function gather(...) return agather.gather_list(...) end
    raises("bad argument #1 to 'gather_list' (table expected, got number)", gather, 5, { limit = 1 })
    raises("bad argument #1 to 'gather_list' (awaitable expected at place 2 of the list, got number)", gather,
      { double, 5 }, { limit = 1 })
    raises("bad argument #1 to 'gather_list' (awaitable expected at place 1 of the list, got nil)", gather,
      { nil, double, n = 2 }, { limit = 1 })
    raises("(option 'limit' must be a positive integer, got 0)", gather, {}, { limit = 0 })
    raises("(option 'limit' must be a positive integer, got 2.5)", gather, {}, { limit = 2.5 })
    raises("(option 'limit' must be a positive integer, got many)", gather, {}, { limit = "many" })
    raises("(unknown option 'limt')", gather, {}, { limit = 1, limt = 1 })
    raises("option 'progress' must be a boolean or a function, got number", gather, {}, { progress = 1 })
  end))

  it("is refused outside a loop", function()
    raises("no running event loop", agather.gather_list, {}, { limit = 1 })
  end)
end)

describe("map, cancelled or with holes,", function()
  for name, limit in pairs{ ["without a limit"] = false, ["with a limit"] = 3 } do
    it(name .. " cancelled, waits for the cleanup of all", async(function()
      local cleaned = 0
      local task = agather.spawn(agather.map, function(item)
        local _ <close> = closing(function()
          agather.sleep(item)
          cleaned = cleaned + 1
        end)
        agather.sleep(100)
      end, { 1, 2, 3 }, { limit = limit or nil })
      agather.sleep(1)
      task:cancel()
      assert.is_false((pcall(task.await, task)))
      assert.equal(3, cleaned)
      assert.equal(4, now())
    end))

    it(name .. " cancelled twice, waits for the cleanup of all", async(function()
      local cleaned = 0
      local task = agather.spawn(agather.map, function(item)
        local _ <close> = closing(function()
          for _ = 1, 2 do pcall(agather.sleep, item) end
          cleaned = cleaned + 1
        end)
        agather.sleep(100)
      end, { 1, 2, 3 }, { limit = limit or nil })
      agather.sleep(1)
      task:cancel()
      agather.sleep(0.5)
      task:cancel()
      assert.is_false((pcall(task.await, task)))
      assert.equal(3, cleaned)
    end))

    it(name .. " B6 maps nil items of a list with n", async(function()
      local results = agather.map(function(item, place) return item or -place end, { 1, nil, 3, n = 3 },
        { limit = limit or nil })
      assert.equal("1 -2 3", table.concat(results, " "))
    end))
  end

  it("without a limit, cancelled while the iterator waits, cancels what it has started", async(function()
    local running = 0
    local generator = agather.coroutine.wrap(function()
      for item = 1, 3 do
        agather.coroutine.yield(item)
        agather.sleep(1)
      end
    end)
    local task = agather.spawn(agather.map, function()
      running = running + 1
      local _ <close> = closing(function() running = running - 1 end)
      agather.sleep(100)
    end, generator)
    agather.sleep(1.5)
    assert.equal(2, running)
    task:cancel()
    assert.is_false((pcall(task.await, task)))
    assert.equal(0, running)
  end))
end)
