-- Pieces of random programs: gather, wait, groups, timeouts, shields, futures, callbacks, contexts and generators. Each is
-- a function of a workbench that runs in a task and ends by itself in whatever order the loop runs what is ready.
local agather = require "agather"

local pieces = {}

local Failure = agather.Error:subclass("Failure")

-- A body that pauses, and fails or returns its number.
local function worker(bench, number, fails)
  return function()
    bench:pause()
    bench:pause()
    if fails then error(Failure("failure " .. number)) end
    return number
  end
end

local function is_cancellation(err) return agather.is_error(err, agather.CancelledError) end

-- Gathers in gathers: results in the order of the arguments, errors in their places, each child once.
function pieces.gather(bench)
  local runs, total = 0, 0
  local function tree(depth)
    local items, expected = {}, {}
    for place = 1, bench:random(4) do
      if depth < 3 and bench:chance(30) then
        items[place], expected[place] = tree(depth + 1)
      else
        total = total + 1
        local number, fails = total, bench:chance(20)
        local body = worker(bench, number, fails)
        items[place] = agather.async(function()
          runs = runs + 1
          return body()
        end)()
        expected[place] = fails and "failure " .. number or number
      end
    end
    return agather.gather_list(items, { return_exceptions = true }), expected
  end
  local function same(results, expected)
    bench:check(results.n == #expected, "%s results of %d", results.n, #expected)
    for place, value in ipairs(expected) do
      local result = results[place]
      if type(value) == "table" then
        same(result, value)
      elseif type(value) == "string" then
        bench:check(agather.is_error(result, Failure) and result.message == value, "%s instead of %s", result, value)
      else
        bench:check(result == value, "%s instead of %s", result, value)
      end
    end
  end
  local group, expected = tree(1)
  same(group:await(), expected)
  bench:check(runs == total, "%d of %d children ran", runs, total)
end

-- A gather that is cancelled, or that fails with cancel_on_error, leaves no child running.
function pieces.cancelled_gather(bench)
  local children, ended = {}, 0
  local fails = bench:chance(40)
  for place = 1, bench:random(6) do
    children[place] = agather.spawn(function()
      local _ <close> = bench.on_leave(function() ended = ended + 1 end)
      bench:pause()
      if fails and place == 1 then error(Failure("first")) end
      agather.sleep(1000)
    end)
  end
  local group = agather.gather_list(children, { cancel_on_error = true, return_exceptions = not fails and bench:chance(50) })
  if not fails then
    bench:pause()
    bench:check(group:cancel(), "a gather of tasks that wait was not cancelled")
  end
  local ok, err = pcall(group.await, group)
  bench:check(not ok, "it gave results")
  bench:check(agather.is_error(err, fails and Failure or agather.CancelledError), "it raised %s", err)
  agather.wait(children)
  for place, child in ipairs(children) do
    bench:check(fails and place == 1 or child:cancelled(), "child %d was not cancelled", place)
  end
end

function pieces.wait(bench)
  local tasks = {}
  for place = 1, bench:random(6) do tasks[place] = agather.spawn(worker(bench, place, bench:chance(20))) end
  local return_when = bench:pick { "FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED" }
  local timeout = bench:chance(50) and (bench:random(4) - 1) / 64 or nil
  local done, pending = agather.wait(tasks, { return_when = return_when, timeout = timeout })
  bench:check(#done + #pending == #tasks, "%d done and %d pending of %d", #done, #pending, #tasks)
  local some = false
  for _, task in ipairs(done) do
    bench:check(task:done(), "one of done is not")
    some = some or task:exception() ~= nil
  end
  for _, task in ipairs(pending) do bench:check(not task:done(), "one of pending is done") end
  if not timeout then
    bench:check(#done > 0, "nothing done")
    bench:check(return_when == "FIRST_COMPLETED" or #pending == 0 or return_when == "FIRST_EXCEPTION" and some,
      "%s left %d pending", return_when, #pending)
  end
  if #pending > 0 then
    done, pending = agather.wait(pending)
    bench:check(#pending == 0 and #done > 0, "ALL_COMPLETED left some")
  end
  for _, task in ipairs(tasks) do task:exception() end
end

function pieces.as_completed(bench)
  local tasks, given = {}, {}
  for place = 1, bench:random(6) do tasks[place] = agather.spawn(worker(bench, place)) end
  for task in agather.as_completed(tasks) do
    bench:check(task:done() and not given[task], "one that is not done, or twice")
    given[task] = true
    bench:pause()
  end
  for place, task in ipairs(tasks) do bench:check(given[task], "task %d was not given", place) end
end

-- Leaving a group means that all its tasks have ended; it raises their errors and nothing else.
function pieces.group(bench)
  local me = agather.current_task()
  local started, ended, failures = 0, 0, 0
  local body_fails = bench:chance(15) -- then the tasks must be cancelled: they would take long
  local start = agather.get_running_loop():time()
  local ok, err = pcall(function()
    local group <close> = agather.TaskGroup()
    for place = 1, bench:random(6) do
      local fails = bench:chance(20)
      local accepted, task = pcall(group.spawn, group, function()
        started = started + 1
        local _ <close> = bench.on_leave(function() ended = ended + 1 end)
        worker(bench, place)()
        if body_fails then agather.sleep(100) end
        if fails then
          failures = failures + 1
          error(Failure("failure " .. place))
        end
      end)
      if accepted and bench:chance(10) then task:cancel() end
      if not accepted then break end -- it is shutting down
      if bench:chance(30) then bench:pause() end
    end
    if body_fails then
      failures = failures + 1
      error(Failure("failure of the body"))
    end
    bench:pause()
  end)
  bench:check(agather.get_running_loop():time() < start + 50, "the tasks were not cancelled")
  bench:check(started == ended, "%d tasks started, %d ended", started, ended)
  bench:check(ok == (failures == 0), "it ended %s with %d failures", ok, failures)
  if not ok and bench:check(agather.is_error(err, agather.ExceptionGroup), "it raised %s", err) then
    bench:check(#err.exceptions == failures, "%d errors of %d failures", #err.exceptions, failures)
  end
  bench:check(me:cancelling() == 0, "cancelling() is %d", me:cancelling())
end

-- Scopes in scopes: TimeoutError comes out of one whose time was over, and never of another.
function pieces.timeouts(bench)
  bench:run(bench:random(8), function()
    local me = agather.current_task()
    local before = me:cancelling()
    local function scope(depth)
      local expired
      local start = agather.get_running_loop():time()
      local seconds = bench:chance(80) and (bench:random(6) - 1) / 64 or nil
      local ok, err = pcall(function()
        local inner
        local _ <close> = bench.on_leave(function() expired = inner and inner:expired() end)
        inner = agather.timeout(seconds)
        local _ <close> = inner
        if depth < 3 and bench:chance(60) then scope(depth + 1) end
        bench:pause()
        bench:pause()
      end)
      if ok then return end
      if agather.is_error(err, agather.TimeoutError) then
        bench:check(expired, "TimeoutError of a scope that has not expired")
        bench:check(seconds and agather.get_running_loop():time() >= start + seconds, "it came early")
        return
      end
      error(err, 0) -- a cancellation from outside, or of an outer scope
    end
    scope(1)
    bench:check(me:cancelling() == before, "cancelling() is %d", me:cancelling())
  end)
end

-- wait_for ends what it waits for, and gives either its result or TimeoutError. (Cancelled itself while it waits for the
-- end of what had no time at all, it leaves that to end alone, as asyncio's does.)
function pieces.wait_for(bench)
  bench:run(bench:random(8), function(id)
    local inner = agather.spawn(worker(bench, id))
    local ok, result = pcall(agather.wait_for, inner, (bench:random(5) - 1) / 64)
    bench:check(inner:done() or is_cancellation(result), "what it waited for runs on")
    if ok then
      bench:check(result == id, "result %s", result)
    elseif agather.is_error(result, agather.TimeoutError) then
      bench:check(inner:cancelled(), "TimeoutError, but the task was not cancelled")
    else
      error(result, 0)
    end
  end)
end

function pieces.shield(bench)
  local inners = {}
  local tasks = bench:run(bench:random(8), function(id)
    inners[id] = agather.spawn(worker(bench, id))
    local result = agather.await(agather.shield(inners[id]))
    bench:check(result == id, "result %s", result)
  end)
  for id in ipairs(tasks) do
    if inners[id] then bench:check(inners[id]:await() == id, "the inner task %d was not left alone", id) end
  end
end

-- Everybody who waits for a future gets its one outcome.
function pieces.future(bench)
  local future, fails = agather.future(), bench:chance(30)
  local called, removed = 0, 0
  local function callback() called = called + 1 end
  local callbacks = bench:random(4)
  for _ = 1, callbacks do future:add_done_callback(callback) end
  local resolver = agather.spawn(function()
    bench:pause()
    bench:pause()
    if bench:chance(20) then removed = future:remove_done_callback(callback) end
    if fails then future:set_exception(Failure("failure")) else future:set_result("result") end
  end)
  bench:run(bench:random(8), function()
    bench:pause()
    local ok, result = pcall(agather.await, agather.shield(future))
    if not ok and is_cancellation(result) then error(result, 0) end
    bench:check(ok == not fails and (not ok or result == "result"), "%s %s", ok, result)
  end)
  resolver:await()
  agather.sleep(0)
  bench:check(called + removed == callbacks, "%d callbacks: %d called, %d removed", callbacks, called, removed)
  bench:check(pcall(future.result, future) == not fails, "the outcome changed")
end

-- A call that was not cancelled comes once and not early; a cancelled one never.
function pieces.calls(bench)
  local loop = agather.get_running_loop()
  local calls, cancelled, handles = {}, {}, {}
  local count = bench:random(12)
  for id = 1, count do
    local soon = bench:chance(30)
    local due = loop:time() + (soon and 0 or (bench:random(5) - 2) / 64)
    local function call()
      calls[id] = (calls[id] or 0) + 1
      bench:check(not cancelled[id], "call %d was cancelled", id)
      bench:check(loop:time() >= due, "call %d came early", id)
      if bench:chance(30) then -- another that is ready in this very iteration
        local other = bench:random(count)
        if handles[other] and not calls[other] then
          handles[other]:cancel()
          cancelled[other] = true
        end
      end
    end
    handles[id] = soon and loop:call_soon(call) or loop:call_at(due, call)
    if bench:chance(30) then bench:pause() end
  end
  agather.sleep(1)
  for id = 1, count do
    bench:check(calls[id] == (not cancelled[id] and 1 or nil), "call %d came %s times", id, calls[id])
  end
end

function pieces.context(bench)
  local variable = agather.ContextVar("variable", 0)
  bench:run(bench:random(8), function(id)
    bench:check(variable:get() == 0, "it starts with %s", variable:get())
    variable:set(id)
    bench:pause()
    bench:check(variable:get() == id, "%s instead of %d", variable:get(), id)
    local inner = agather.spawn(function()
      bench:check(variable:get() == id, "the inner task starts with %s", variable:get())
      variable:set(-id)
      bench:pause()
      return variable:get()
    end)
    agather.get_running_loop():call_soon(function()
      bench:check(variable:get() == id, "the callback sees %s", variable:get())
    end)
    bench:check(inner:await() == -id, "the inner task lost its value")
    bench:check(variable:get() == id, "%s instead of %d after it", variable:get(), id)
  end)
end

-- A generator gives its values in order to whichever task asks, and is closed once.
function pieces.generator(bench)
  bench:run(bench:random(6), function()
    local count, closed = bench:random(5), 0
    local made = agather.coroutine.create(function()
      local _ <close> = bench.on_leave(function()
        closed = closed + 1
        bench:pause()
      end)
      for number = 1, count do
        bench:pause()
        agather.coroutine.yield(number)
      end
    end)
    local wanted = bench:random(count)
    for number = 1, wanted do
      local ok, value = agather.coroutine.resume(made)
      if not ok then error(value, 0) end
      bench:check(value == number, "%s instead of %d", value, number)
      bench:pause()
    end
    local ok, err = agather.coroutine.close(made)
    bench:check(closed == 1, "closed %d times", closed)
    if not ok then error(err, 0) end
  end)
end

return pieces
