local agather = require "agather"
local support = require "spec.support"
local testing = require "agather.testing"

local async, closing, raises = testing.async, support.closing, support.raises

local function now() return agather.get_running_loop():time() end

local function sleeper(seconds, ...) return agather.spawn(agather.sleep, seconds, ...) end

-- The results in the order of completion.
local function results_of(list, options)
  local results = {}
  for task in agather.as_completed(list, options) do results[#results + 1] = task:await() end
  return results
end

local function is_timeout(ok, err)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, agather.TimeoutError), "another error: " .. tostring(err))
end

describe("as_completed", function()
  it("gives tasks in the order of completion", async(function()
    local times = {}
    for task in agather.as_completed{ sleeper(3, "c"), sleeper(1, "a"), sleeper(2, "b") } do
      times[#times + 1] = task:await() .. now()
    end
    assert.same({ "a1.0", "b2.0", "c3.0" }, times)
  end))

  it("gives those done in one tick in the order in which they were done", async(function()
    assert.same({ "x", "y", "z" }, results_of{ sleeper(1, "x"), sleeper(1, "y"), sleeper(1, "z") })
    local first = sleeper(1, "first")
    local last = sleeper(1, "last")
    assert.same({ "first", "last" }, results_of{ last, first })
  end))

  it("gives the very tasks and futures of the list", async(function()
    local task, future = sleeper(2), agather.future()
    agather.get_running_loop():call_later(1, function() future:set_result() end)
    local order = {}
    for item in agather.as_completed{ task, future } do order[#order + 1] = item end
    assert.equal(future, order[1])
    assert.equal(task, order[2])
    assert.equal(2, #order)
  end))

  it("gives only what is done", async(function()
    for task in agather.as_completed{ sleeper(2), sleeper(1) } do assert.is_true(task:done()) end
  end))

  it("schedules coros, functions and threads when it is called", async(function()
    local started = 0
    local function body()
      started = started + 1
      return agather.sleep(started, started)
    end
    local following = agather.as_completed{ agather.async(body)(), body, coroutine.create(body) }
    agather.sleep(0)
    assert.equal(3, started)
    local sum = 0
    for _ = 1, 3 do sum = sum + following():await() end
    assert.equal(6, sum)
    assert.is_nil(following())
  end))

  it("gives what stands twice once", async(function()
    local runs = 0
    local coro = agather.async(function()
      runs = runs + 1
      return "ham"
    end)()
    assert.same({ "ham", "spam" }, results_of{ coro, coro, function() return "spam" end })
    assert.equal(1, runs)
  end))

  it("of an empty list ends at once", async(function()
    for _ in agather.as_completed{} do assert.is_true(false) end
    for _ in agather.as_completed({}, { timeout = 1 }) do assert.is_true(false) end
    assert.equal(0, now())
  end))

  it("takes the length of the list from n", async(function()
    local second = sleeper(1)
    assert.same({ "one" }, results_of{ sleeper(2, "one"), second, n = 1 })
  end))

  it("gives what was done before without waiting for time to pass", async(function()
    local before, later = sleeper(1, "before"), sleeper(3, "later")
    before:await()
    local times = {}
    for task in agather.as_completed{ later, before } do times[#times + 1] = task:await() .. now() end
    assert.same({ "before1.0", "later3.0" }, times)
  end))

  it("gives one that failed, whose error is raised where it is awaited", async(function()
    local seen = {}
    for task in agather.as_completed{ sleeper(2, "good"), function() error("bad", 0) end } do
      local ok, value = pcall(task.await, task)
      seen[#seen + 1] = tostring(ok) .. " " .. value
    end
    assert.same({ "false bad", "true good" }, seen)
  end))

  it("gives one that was cancelled", async(function()
    local task = sleeper(10)
    agather.get_running_loop():call_later(1, function() task:cancel() end)
    for item in agather.as_completed{ task } do assert.is_true(item:cancelled()) end
    assert.equal(1, now())
  end))

  it("keeps what is done while the body is busy", async(function()
    local log = {}
    for task in agather.as_completed{ sleeper(1, "a"), sleeper(2, "b"), sleeper(3, "c"), sleeper(20, "d") } do
      log[#log + 1] = task:await() .. now()
      agather.sleep(10)
    end
    assert.same({ "a1.0", "b11.0", "c21.0", "d31.0" }, log)
  end))

  it("leaves the others running when the loop is left", async(function()
    local slow = sleeper(5, "went on")
    for task in agather.as_completed{ slow, sleeper(1) } do -- luacheck: ignore 512
      assert.are_not.equal(slow, task)
      break
    end
    assert.equal(1, now())
    assert.equal("went on", slow:await())
  end))

  it("leaves the others running when the body fails", async(function()
    local slow = sleeper(5, "went on")
    raises("body", function()
      for _ in agather.as_completed{ slow, sleeper(1) } do error("body", 0) end
    end)
    assert.equal("went on", slow:await())
  end))

  it("cancelled while it waits, leaves the tasks running", async(function()
    local slow = sleeper(5, "went on")
    local iterating = agather.spawn(results_of, { slow })
    agather.sleep(1)
    iterating:cancel()
    local ok, err = pcall(iterating.await, iterating)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.CancelledError))
    assert.is_true(iterating:cancelled())
    assert.equal("went on", slow:await())
  end))

  it("may be iterated by several tasks, each task given once", async(function()
    local following = agather.as_completed{ sleeper(1, "a"), sleeper(2, "b"), sleeper(3, "c"), sleeper(4, "d") }
    local seen = {}
    local function body()
      for task in following do seen[#seen + 1] = task:await() end
    end
    agather.gather(body, agather.async(body)(), agather.async(body)()):await()
    assert.same({ "a", "b", "c", "d" }, seen)
  end))

  it("goes over 10,000", async(function()
    local list = {}
    for place = 1, 10000 do list[place] = function() return agather.sleep(place % 10, place) end end
    local sum, latest = 0, 0
    for task in agather.as_completed(list) do
      local place = task:await()
      assert.is_true(place % 10 >= latest)
      latest = place % 10
      sum = sum + place
    end
    assert.equal(50005000, sum)
  end))

  it("leaves nothing on a future that outlives it", async(function()
    local future = agather.future()
    local function many()
      for _ = 1, 1000 do
        for _ in agather.as_completed{ future, function() end } do break end -- luacheck: ignore 512
      end
    end
    many()
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    many()
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 64)
  end))
end)

describe("as_completed with a timeout", function()
  it("raises TimeoutError when the time is over, and cancels nothing", async(function()
    local slow = sleeper(3, "went on")
    local seen = {}
    is_timeout(pcall(function()
      for task in agather.as_completed({ slow, sleeper(1, "fast") }, { timeout = 2 }) do
        seen[#seen + 1] = task:await()
      end
    end))
    assert.same({ "fast" }, seen)
    assert.equal(2, now())
    assert.equal("went on", slow:await())
  end))

  it("counts from the call, not from each step", async(function()
    local slow = sleeper(10)
    local count = 0
    is_timeout(pcall(function()
      for _ in agather.as_completed({ sleeper(1), sleeper(2), sleeper(3), slow }, { timeout = 2.5 }) do
        count = count + 1
      end
    end))
    assert.equal(2, count)
    assert.equal(2.5, now())
    agather.wait{ slow }
  end))

  it("that is not needed does nothing", async(function()
    assert.same({ "a" }, results_of({ sleeper(1, "a") }, { timeout = 2 }))
    assert.equal(1, now())
    agather.sleep(5)
  end))

  it("gives what was done in time before it raises", async(function()
    local slow = sleeper(20)
    local seen = {}
    is_timeout(pcall(function()
      for task in agather.as_completed({ sleeper(1, "a"), sleeper(2, "b"), slow }, { timeout = 3 }) do
        seen[#seen + 1] = task:await()
        agather.sleep(5)
      end
    end))
    assert.same({ "a", "b" }, seen)
    assert.equal(11, now())
    agather.wait{ slow }
  end))

  it("tells nobody of what is done in the iteration in which the time is over", async(function()
    local told = {}
    local loop = agather.get_running_loop()
    loop:set_exception_handler(function(context) told[#told + 1] = context.message end)
    local ok, err = pcall(function()
      for _ in agather.as_completed({ function() end }, { timeout = 0 }) do error("one was given") end
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.TimeoutError))
    agather.sleep(0)
    loop:set_exception_handler(nil)
    assert.same({}, told)
  end))

  it("of no time raises where nothing is done", async(function()
    local slow = sleeper(1)
    is_timeout(pcall(results_of, { slow }, { timeout = 0 }))
    assert.equal(0, now())
    slow:await()
  end))
end)

describe("as_completed says what it needs:", function()
  it("a list of awaitables", async(function()
    local task = sleeper(0)
    raises("bad argument #1 to 'as_completed' (list expected, got number)", agather.as_completed, 5)
    raises("bad argument #1 to 'as_completed' (list expected, got nil)", agather.as_completed)
    raises("bad argument #1 to 'as_completed' (list expected, got function)", agather.as_completed, print)
    raises("bad argument #1 to 'as_completed' (list expected, got ", agather.as_completed, task)
    raises("bad argument #1 to 'as_completed' (awaitable expected at place 2 of the list, got number)",
      agather.as_completed, { task, 5 })
    task:await()
  end))

  it("options it knows", async(function()
    raises("bad argument #2 to 'as_completed' (table of options expected, got number)", agather.as_completed, {}, 5)
    raises("bad argument #2 to 'as_completed' (unknown option 'timout')", agather.as_completed, {}, { timout = 1 })
    raises("bad argument #2 to 'as_completed' (number expected, got string)", agather.as_completed, {},
      { timeout = "1" })
    raises("bad argument #2 to 'as_completed' (number expected, got nan)", agather.as_completed, {},
      { timeout = 0 / 0 })
    raises("as_completed_spec.lua:", function() agather.as_completed({}, { timout = 1 }) end)
    raises("as_completed_spec.lua:", function() agather.as_completed{ 5 } end)
  end))

  it("a loop that runs", function()
    raises("no running event loop", agather.as_completed, {})
  end)
end)

describe("as_completed under the garbage collector", function()
  for _, mode in ipairs{ "incremental", "generational" } do
    it("works in " .. mode .. " mode with a step at every turn", function()
      local before = collectgarbage(mode)
      local _ <close> = closing(function() collectgarbage(before) end)
      testing.run(function()
        local list = {}
        for place = 1, 100 do
          list[place] = function()
            for _ = 1, place % 5 do
              collectgarbage("step")
              agather.sleep(1)
            end
            return { place }
          end
        end
        local sum = 0
        for task in agather.as_completed(list, { timeout = 100 }) do
          collectgarbage("step")
          sum = sum + task:await()[1]
        end
        assert.equal(5050, sum)
      end)
    end)
  end
end)

local function fail_after(seconds, problem) agather.sleep(seconds) error(problem, 0) end

describe("as_completed, told or late,", function()
  it("refuses a progress that is neither a boolean nor a function", async(function()
    raises("option 'progress' must be a boolean or a function, got number", agather.as_completed, {}, { progress = 5 })
  end))
  it("tells how many are done, of how many, and how many failed", async(function()
    local told = {}
    local function tell(done, total, failed) told[#told + 1] = ("%d/%d %d"):format(done, total, failed) end
    local list = {
      function() agather.sleep(1) end,
      function() fail_after(2, "bad") end,
      function() agather.sleep(3) end,
    }
    for task in agather.as_completed(list, { progress = tell }) do pcall(task.await, task) end
    assert.same({ "1/3 0", "2/3 1", "3/3 1" }, told)
  end))
  it("lets a task end after the timeout while the body is busy", async(function()
    local slow = agather.spawn(agather.sleep, 4)
    local ok = pcall(function()
      for _ in agather.as_completed({ slow, agather.spawn(agather.sleep, 1) }, { timeout = 3 }) do agather.sleep(5) end
    end)
    assert.is_false(ok)
  end))
  it("raises TimeoutError again when it is asked again", async(function()
    local slow, slower = agather.spawn(agather.sleep, 5), agather.spawn(agather.sleep, 6)
    local following = agather.as_completed({ slow, slower }, { timeout = 1 })
    assert.is_false((pcall(following)))
    assert.is_false((pcall(following)))
    agather.wait{ slow, slower }
  end))
end)
