local agather = require "agather"
local support = require "spec.support"
local testing = require "agather.testing"

local async, closing, raises = testing.async, support.closing, support.raises

local function now() return agather.get_running_loop():time() end

local function sleeper(seconds, ...) return agather.spawn(agather.sleep, seconds, ...) end

local function failing(seconds, problem)
  return agather.spawn(function()
    agather.sleep(seconds)
    error(problem, 0)
  end)
end

describe("wait", function()
  it("returns when all are done, in the order of the list", async(function()
    local slow, fast = sleeper(2), sleeper(1)
    local done, pending = agather.wait{ slow, fast }
    assert.same({ slow, fast }, done)
    assert.same({}, pending)
    assert.equal(2, now())
  end))

  it("takes no time where all are done", async(function()
    local first, second = sleeper(1, "first"), sleeper(2, "second")
    agather.wait{ first, second }
    local done, pending = agather.wait{ second, first }
    assert.same({ second, first }, done)
    assert.same({}, pending)
    assert.equal(2, now())
    assert.equal("first", first:result())
  end))

  it("lets others run also where all are done", async(function()
    local future = agather.future()
    future:set_result()
    local ran = false
    agather.get_running_loop():call_soon(function() ran = true end)
    agather.wait{ future }
    assert.is_true(ran)
  end))

  it("schedules coros, functions and threads", async(function()
    local done = agather.wait{
      agather.async(agather.sleep)(1, "coro"),
      function() return agather.sleep(1, "function") end,
      coroutine.create(function() return agather.sleep(1, "thread") end),
    }
    assert.equal(3, #done)
    assert.equal("coro", done[1]:result())
    assert.equal("function", done[2]:result())
    assert.equal("thread", done[3]:result())
    assert.equal(1, now())
  end))

  it("takes futures and gathers as they are", async(function()
    local future = agather.future()
    local group = agather.gather(agather.async(agather.sleep)(1))
    agather.get_running_loop():call_later(2, function() future:set_result() end)
    local done = agather.wait{ future, group }
    assert.equal(future, done[1])
    assert.equal(group, done[2])
  end))

  it("counts what stands twice once", async(function()
    local task = sleeper(1)
    local runs = 0
    local coro = agather.async(function() runs = runs + 1 end)()
    local function body() runs = runs + 1 end
    local done, pending = agather.wait{ task, coro, task, body, coro, body }
    assert.equal(3, #done)
    assert.equal(task, done[1])
    assert.equal(0, #pending)
    assert.equal(2, runs)
  end))

  it("takes the length of the list from n", async(function()
    local first, second = sleeper(1), sleeper(2)
    local done, pending = agather.wait{ first, second, n = 1 }
    assert.same({ first }, done)
    assert.same({}, pending)
    assert.equal(1, now())
    second:await()
  end))

  it("does not change the list", async(function()
    local function body() end
    local list = { body, body }
    agather.wait(list)
    assert.same({ body, body }, list)
  end))

  it("waits for 10,000", async(function()
    local list = {}
    for place = 1, 10000 do list[place] = function() agather.sleep(place % 7) end end
    local done, pending = agather.wait(list)
    assert.equal(10000, #done)
    assert.equal(0, #pending)
    assert.equal(6, now())
  end))

  it("never raises for a failure", async(function()
    local good, bad = sleeper(1), failing(2, "bad")
    local done, pending = agather.wait{ bad, good }
    assert.same({ bad, good }, done)
    assert.same({}, pending)
    assert.equal("bad", bad:exception().value)
    assert.equal(2, now())
  end))

  it("never raises for one that was cancelled", async(function()
    local task = sleeper(10)
    agather.get_running_loop():call_later(1, function() task:cancel() end)
    local done = agather.wait{ task }
    assert.is_true(done[1]:cancelled())
    assert.equal(1, now())
  end))

  it("does not ask for the errors: they are reported when nobody does", function()
    local ok, problem = pcall(testing.run, function() agather.wait{ function() error("nobody asked", 0) end } end)
    assert.is_false(ok)
    assert.is_truthy(problem:find("nobody asked", 1, true))
  end)

  it("cancelled, leaves the tasks alone", async(function()
    local task = sleeper(5, "went on")
    local waiting = agather.spawn(agather.wait, { task })
    agather.sleep(1)
    waiting:cancel()
    local ok, err = pcall(waiting.await, waiting)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.CancelledError))
    assert.is_true(waiting:cancelled())
    assert.equal(1, now())
    assert.equal("went on", task:await())
    assert.equal(5, now())
  end))

  it("cancelled in the turn in which all are done, is cancelled", async(function()
    local future = agather.future()
    local waiting = agather.spawn(agather.wait, { future })
    agather.sleep(1)
    future:set_result()
    agather.sleep(0)
    waiting:cancel()
    assert.is_false((pcall(waiting.await, waiting)))
    assert.is_true(waiting:cancelled())
  end))

  it("wakes two turns after the last is done, as a gather does", async(function()
    local log, say = support.log()
    local future = agather.future()
    local waiting = agather.spawn(function()
      agather.wait{ future }
      say "wait"
    end)
    local group = agather.gather(future)
    local gathering = agather.spawn(function()
      group:await()
      say "gather"
    end)
    local awaiting = agather.spawn(function()
      future:await()
      say "await"
    end)
    agather.sleep(1)
    future:set_result()
    for turn = 1, 2 do
      agather.sleep(0)
      say("turn " .. turn)
    end
    agather.gather(waiting, gathering, awaiting):await()
    assert.same({ "await", "turn 1", "gather", "wait", "turn 2" }, log)
  end))

  it("may be waited for by several tasks at once", async(function()
    local task = sleeper(3)
    local function body() return #agather.wait{ task } end
    assert.same({ 1, 1, 1, n = 3 }, agather.gather(body, agather.async(body)(), agather.async(body)()):await())
    assert.equal(3, now())
  end))

  it("leaves nothing on a future that outlives it", async(function()
    local future = agather.future()
    local function many()
      for _ = 1, 2000 do agather.wait({ future, function() end }, { return_when = agather.FIRST_COMPLETED }) end
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

describe("wait with FIRST_COMPLETED", function()
  it("returns when one is done", async(function()
    local slow, fast = sleeper(10), sleeper(1)
    local done, pending = agather.wait({ slow, fast }, { return_when = agather.FIRST_COMPLETED })
    assert.same({ fast }, done)
    assert.same({ slow }, pending)
    assert.is_false(slow:done())
    assert.equal(1, now())
    slow:await()
  end))

  it("returns all that were done in the same tick", async(function()
    local first, second, slow = sleeper(1), sleeper(1), sleeper(2)
    local done, pending = agather.wait({ slow, second, first }, { return_when = agather.FIRST_COMPLETED })
    assert.same({ second, first }, done)
    assert.same({ slow }, pending)
    slow:await()
  end))

  it("returns what was done between the first callback and the wake-up", async(function()
    local function one() agather.sleep(0) end
    local function two()
      agather.sleep(0)
      agather.sleep(0)
    end
    local first, second = agather.spawn(one), agather.spawn(two)
    local done, pending = agather.wait({ second, first }, { return_when = agather.FIRST_COMPLETED })
    assert.same({ second, first }, done)
    assert.same({}, pending)
  end))

  it("returns at once where one is done", async(function()
    local before, slow = sleeper(1), sleeper(10)
    before:await()
    local done, pending = agather.wait({ slow, before }, { return_when = agather.FIRST_COMPLETED })
    assert.same({ before }, done)
    assert.same({ slow }, pending)
    assert.equal(1, now())
    slow:cancel()
  end))

  it("counts a failure and a cancellation", async(function()
    local slow, bad, gone = sleeper(10), failing(1, "bad"), sleeper(10)
    local done, pending = agather.wait({ slow, bad, gone }, { return_when = agather.FIRST_COMPLETED })
    assert.same({ bad }, done)
    assert.same({ slow, gone }, pending)
    assert.equal("bad", bad:exception().value)
    gone:cancel()
    done, pending = agather.wait(pending, { return_when = agather.FIRST_COMPLETED })
    assert.same({ gone }, done)
    assert.same({ slow }, pending)
    assert.equal(1, now())
    slow:cancel()
  end))

  it("called again and again takes one after the other", async(function()
    local pending = { sleeper(3, "c"), sleeper(1, "a"), sleeper(2, "b") }
    local order = {}
    local done
    while #pending > 0 do
      done, pending = agather.wait(pending, { return_when = agather.FIRST_COMPLETED })
      for _, task in ipairs(done) do order[#order + 1] = task:result() end
    end
    assert.same({ "a", "b", "c" }, order)
  end))
end)

describe("wait with FIRST_EXCEPTION", function()
  it("returns when one fails", async(function()
    local slow, bad, quick = sleeper(10), failing(2, "bad"), sleeper(1)
    local done, pending = agather.wait({ slow, bad, quick }, { return_when = agather.FIRST_EXCEPTION })
    assert.same({ bad, quick }, done)
    assert.same({ slow }, pending)
    assert.equal(2, now())
    assert.equal("bad", bad:exception().value)
    slow:await()
  end))

  it("returns at once where one has failed", async(function()
    local slow, bad = sleeper(10), failing(0, "bad")
    agather.wait{ bad }
    local done, pending = agather.wait({ slow, bad }, { return_when = agather.FIRST_EXCEPTION })
    assert.same({ bad }, done)
    assert.same({ slow }, pending)
    assert.equal(0, now())
    assert.equal("bad", bad:exception().value)
    slow:cancel()
  end))

  it("does not count a cancellation", async(function()
    local slow, gone = sleeper(10), sleeper(20)
    agather.get_running_loop():call_later(1, function() gone:cancel() end)
    local done, pending = agather.wait({ slow, gone }, { return_when = agather.FIRST_EXCEPTION })
    assert.same({ slow, gone }, done)
    assert.same({}, pending)
    assert.equal(10, now())
  end))

  it("returns when all are done where none fails", async(function()
    local done, pending = agather.wait({ sleeper(1), sleeper(3) }, { return_when = agather.FIRST_EXCEPTION })
    assert.equal(2, #done)
    assert.equal(0, #pending)
    assert.equal(3, now())
  end))
end)

describe("wait with a timeout", function()
  it("returns what is done and what is not, and cancels nothing", async(function()
    local fast, slow = sleeper(1), sleeper(3, "went on")
    local done, pending = agather.wait({ slow, fast }, { timeout = 2 })
    assert.same({ fast }, done)
    assert.same({ slow }, pending)
    assert.equal(2, now())
    assert.equal("went on", slow:await())
  end))

  it("returns nothing done where nothing is", async(function()
    local slow = sleeper(3)
    local done, pending = agather.wait({ slow }, { timeout = 1 })
    assert.same({}, done)
    assert.same({ slow }, pending)
    slow:await()
  end))

  it("returns before it where all are done, and the timer is gone", async(function()
    local task = sleeper(1)
    local done = agather.wait({ task }, { timeout = 2 })
    assert.same({ task }, done)
    assert.equal(1, now())
    agather.sleep(5)
    assert.equal(6, now())
  end))

  it("has what is done in the tick of the timeout among the done", async(function()
    local fast, slow = sleeper(1), sleeper(2)
    agather.sleep(0) -- their timers stand before the timeout's
    local done, pending = agather.wait({ slow, fast }, { timeout = 1 })
    assert.same({ fast }, done)
    assert.same({ slow }, pending)
    assert.equal(1, now())
    slow:await()
  end))

  it("of no time looks once", async(function()
    local slow, ended = sleeper(1), agather.future()
    ended:set_result()
    local done, pending = agather.wait({ slow, ended }, { timeout = 0 })
    assert.same({ ended }, done)
    assert.same({ slow }, pending)
    assert.equal(0, now())
    slow:await()
  end))

  it("goes with FIRST_COMPLETED", async(function()
    local slow, slower = sleeper(5), sleeper(6)
    local options = { timeout = 2, return_when = agather.FIRST_COMPLETED }
    local done, pending = agather.wait({ slow, slower }, options)
    assert.same({}, done)
    assert.same({ slow, slower }, pending)
    options.timeout = 20
    done, pending = agather.wait({ slow, slower }, options)
    assert.same({ slow }, done)
    assert.same({ slower }, pending)
    assert.equal(5, now())
    slower:await()
  end))

  it("inside timeout(): the scope cancels the wait only", async(function()
    local task = sleeper(5, "went on")
    local ok, err = pcall(function()
      local _ <close> = agather.timeout(1)
      agather.wait({ task }, { timeout = 3 })
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.TimeoutError))
    assert.equal("went on", task:await())
  end))
end)

describe("wait says what it needs:", function()
  it("a list", async(function()
    local future = agather.future()
    raises("bad argument #1 to 'wait' (list expected, got number)", agather.wait, 5)
    raises("bad argument #1 to 'wait' (list expected, got nil)", agather.wait)
    raises("bad argument #1 to 'wait' (list expected, got function)", agather.wait, print)
    raises("bad argument #1 to 'wait' (list expected, got ", agather.wait, future)
  end))

  it("a list that is not empty", async(function()
    raises("bad argument #1 to 'wait' (the list is empty)", agather.wait, {})
    raises("bad argument #1 to 'wait' (the list is empty)", agather.wait, { n = 0 })
  end))

  it("awaitables", async(function()
    local task = sleeper(0)
    raises("bad argument #1 to 'wait' (awaitable expected at place 2 of the list, got number)", agather.wait,
      { task, 5 })
    raises("bad argument #1 to 'wait' (awaitable expected at place 1 of the list, got table)", agather.wait,
      { {}, task })
    raises("bad argument #1 to 'wait' (awaitable expected at place 2 of the list, got nil)", agather.wait,
      { task, nil, n = 2 })
    task:await()
  end))

  it("awaitables, and starts none before it has looked at all", async(function()
    local started = false
    raises("place 2", agather.wait, { function() started = true end, 5 })
    agather.sleep(1)
    assert.is_false(started)
  end))

  it("options it knows", async(function()
    local list = { agather.future() }
    raises("bad argument #2 to 'wait' (table of options expected, got number)", agather.wait, list, 5)
    raises("bad argument #2 to 'wait' (unknown option 'timout')", agather.wait, list, { timout = 5 })
    raises("bad argument #2 to 'wait' (unknown option '1')", agather.wait, list, { 5 })
    raises("bad argument #2 to 'wait' (number expected, got string)", agather.wait, list, { timeout = "5" })
    raises("bad argument #2 to 'wait' (number expected, got nan)", agather.wait, list, { timeout = 0 / 0 })
    raises("bad argument #2 to 'wait' (option 'return_when' has no value '-1')", agather.wait, list,
      { return_when = -1 })
    raises("bad argument #2 to 'wait' (option 'return_when' has no value 'first_completed')", agather.wait, list,
      { return_when = "first_completed" })
  end))

  it("and at which line", async(function()
    raises("wait_spec.lua:", function() agather.wait(5) end)
    raises("wait_spec.lua:", function() agather.wait{ 5 } end)
    raises("wait_spec.lua:", function() agather.wait({ print }, { x = 1 }) end)
    raises("wait_spec.lua:", function() agather.wait({ print }, { return_when = 1 }) end)
  end))

  it("a loop that runs", function()
    raises("no running event loop", agather.wait, { print })
  end)
end)

describe("wait under the garbage collector", function()
  for _, mode in ipairs{ "incremental", "generational" } do
    it("works in " .. mode .. " mode with a step at every turn", function()
      local before = collectgarbage(mode)
      local _ <close> = closing(function() collectgarbage(before) end)
      testing.run(function()
        local pending, sum = {}, 0
        local done
        for place = 1, 100 do
          pending[place] = function()
            collectgarbage("step")
            agather.sleep(place % 10)
            collectgarbage("step")
            return { place }
          end
        end
        while #pending > 0 do
          done, pending = agather.wait(pending, { return_when = agather.FIRST_COMPLETED, timeout = 0.5 })
          collectgarbage("step")
          for _, task in ipairs(done) do sum = sum + task:result()[1] end
        end
        assert.equal(5050, sum)
        assert.equal(9, now())
      end)
    end)
  end
end)
