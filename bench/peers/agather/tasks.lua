-- agather, written as its README says: plain functions run by agather.spawn, results by gather_list.
local agather = require "agather"
local timing = require "bench.timing"

local sleep, spawn, await, gather_list = agather.sleep, agather.spawn, agather.await, agather.gather_list

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
  local tasks = {}
  for i = 1, count do tasks[i] = spawn(job, i, argument) end
  local results = await(gather_list(tasks))
  assert(results.n == count and results[count] == count)
end

local function now() return agather.get_running_loop():time() end

local works = {}

function works.spawn(count)
  timing.report(count, function() gathered(count, short) end)
end

-- The other way to write it: coroutine objects, which gather makes tasks of.
function works.gather(count)
  local job = agather.async(short)
  timing.report(count, function()
    local jobs = {}
    for i = 1, count do jobs[i] = job(i) end
    local results = await(gather_list(jobs))
    assert(results.n == count and results[count] == count)
  end)
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
    for _ = 1, count do sleep(0) end
  end)
end

function works.cancel(count)
  timing.report(count, function()
    local tasks = {}
    for i = 1, count do tasks[i] = spawn(sleeps, i, 3600) end
    sleep(0)
    local started = os.clock()
    for i = 1, count do tasks[i]:cancel() end
    await(gather_list(tasks, { return_exceptions = true }))
    local time = os.clock() - started
    assert(tasks[count]:cancelled())
    return time
  end)
end

function works.queue(count)
  timing.report(count, function()
    local queue = agather.Queue(100)
    local producer = spawn(function()
      for i = 1, count do queue:put(i) end
    end)
    local last
    for _ = 1, count do last = queue:get() end
    await(producer)
    assert(last == count)
  end)
end

function works.lock(count)
  timing.report(count, function()
    local lock, inside = agather.Lock(), 0
    local function job(i, rounds)
      for _ = 1, rounds do
        local _ <close> = lock:acquire()
        inside = inside + 1
        sleep(0)
      end
      return i
    end
    gathered(100, job, count // 100)
    assert(inside == count)
  end)
end

function works.chain(count)
  local function chain(depth)
    if depth == 0 then return 0 end
    return 1 + await(spawn(chain, depth - 1))
  end
  timing.report(count, function() assert(chain(count) == count) end)
end

local function memory(count, job, ...)
  gathered(1000, yields_once)
  local tasks, before = {}, timing.resident()
  for i = 1, count do tasks[i] = spawn(job, ...) end
  sleep(0)
  timing.report_memory(#tasks, before, timing.resident())
  os.exit(true, false)
end

-- Tasks that are nothing but a sleep, and tasks that run a function which sleeps.
function works.memory(count) memory(count, sleep, 3600) end
function works.memory_function(count) memory(count, sleeps, 1, 3600) end

function works.million(count)
  local tasks = {}
  for i = 1, count do tasks[i] = spawn(sleep, 1, i) end
  assert(await(gather_list(tasks))[count] == count)
end

function works.million_functions(count) gathered(count, sleeps, 1) end

agather.run(timing.main, works)
