-- lua-luv with coroutines: what its users write, a coroutine per job that yields and is resumed by libuv's callback,
-- and a count of the jobs that have not ended. luv itself has no tasks, locks, queues or turns: to let others run, a
-- coroutine waits for a timer of 0 ms.
local timing = require "bench.timing"
local uv = require "luv"

local function resume(thread)
  local ok, message = coroutine.resume(thread)
  if not ok then error(debug.traceback(thread, message)) end
end

local function sleep(seconds)
  local thread, timer = coroutine.running(), uv.new_timer()
  timer:start(math.floor(seconds * 1000), 0, function()
    timer:close()
    resume(thread)
  end)
  coroutine.yield()
end

local function short(i) return i end

local function yields_once(i)
  sleep(0)
  return i
end

local function sleeps(i, seconds)
  sleep(seconds)
  return i
end

local function gathered(count, job, argument)
  local results, left = {}, count
  local function run(i)
    results[i] = job(i, argument)
    left = left - 1
  end
  for i = 1, count do coroutine.wrap(run)(i) end
  uv.run()
  assert(left == 0 and results[count] == count)
end

local function now() return uv.hrtime() / 1e9 end

local works = {}

function works.spawn(count)
  timing.report(count, function() gathered(count, short) end)
end

function works.yield(count)
  timing.report(count, function() gathered(count, yields_once) end)
end

function works.sleep(count)
  timing.report(count, function() gathered(count, sleeps, 0.01) end, now)
end

function works.switch(count)
  local function turns(i, rounds)
    for _ = 1, rounds do sleep(0) end
    return i
  end
  timing.report(count, function() gathered(100, turns, count // 100) end)
end

function works.alone(count)
  timing.report(count, function()
    gathered(1, function(i)
      for _ = 1, count do sleep(0) end
      return i
    end)
  end)
end

-- To cancel: close the timer and resume with an error to raise.
function works.cancel(count)
  timing.report(count, function()
    local threads, timers, left = {}, {}, count
    local function job(i)
      local timer = uv.new_timer()
      threads[i], timers[i] = coroutine.running(), timer
      timer:start(3600000, 0, function() resume(threads[i]) end)
      local message = coroutine.yield()
      if message then error(message) end
    end
    local function run(i)
      if not pcall(job, i) then left = left - 1 end
    end
    for i = 1, count do coroutine.wrap(run)(i) end
    local started = os.clock()
    for i = 1, count do
      timers[i]:close()
      coroutine.resume(threads[i], "cancelled")
    end
    uv.run()
    local time = os.clock() - started
    assert(left == 0)
    return time
  end)
end

function works.memory_function(count)
  gathered(1000, yields_once)
  local before = timing.resident()
  for i = 1, count do coroutine.wrap(sleeps)(i, 3600) end
  timing.report_memory(count, before, timing.resident())
  os.exit(true, false)
end

function works.million_functions(count)
  gathered(count, sleeps, 1)
end

timing.main(works)
