-- lua-cqueues: what its users write, coroutines wrapped into a controller, a list for the results and condition
-- variables where one waits for another. It has no cancellation of a coroutine, hence no such row.
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local timing = require "bench.timing"

local function short(i) return i end

local function yields_once(i)
  cqueues.sleep(0)
  return i
end

local function sleeps(i, seconds)
  cqueues.sleep(seconds)
  return i
end

local function gathered(count, job, argument)
  local controller, results = cqueues.new(), {}
  local function run(i) results[i] = job(i, argument) end
  for i = 1, count do controller:wrap(run, i) end
  assert(controller:loop())
  assert(results[count] == count)
end

local works = {}

function works.spawn(count)
  timing.report(count, function() gathered(count, short) end)
end

function works.yield(count)
  timing.report(count, function() gathered(count, yields_once) end)
end

function works.sleep(count)
  timing.report(count, function() gathered(count, sleeps, 0.01) end, cqueues.monotime)
end

function works.switch(count)
  local function turns(i, rounds)
    for _ = 1, rounds do cqueues.sleep(0) end
    return i
  end
  timing.report(count, function() gathered(100, turns, count // 100) end)
end

function works.alone(count)
  timing.report(count, function()
    gathered(1, function(i)
      for _ = 1, count do cqueues.sleep(0) end
      return i
    end)
  end)
end

function works.queue(count)
  timing.report(count, function()
    local controller, changed = cqueues.new(), condition.new()
    local items, first, last, seen = {}, 1, 0, 0
    controller:wrap(function()
      for i = 1, count do
        while last - first + 1 >= 100 do changed:wait() end
        last = last + 1
        items[last] = i
        if first == last then changed:signal() end
      end
    end)
    controller:wrap(function()
      while seen < count do
        while first > last do changed:wait() end
        seen = items[first]
        items[first] = nil
        first = first + 1
        if last - first + 1 == 99 then changed:signal() end
      end
    end)
    assert(controller:loop())
    assert(seen == count)
  end)
end

function works.lock(count)
  timing.report(count, function()
    local free, held, inside = condition.new(), false, 0
    local function job(i, rounds)
      for _ = 1, rounds do
        while held do free:wait() end
        held = true
        inside = inside + 1
        cqueues.sleep(0)
        held = false
        free:signal(1)
      end
      return i
    end
    gathered(100, job, count // 100)
    assert(inside == count)
  end)
end

function works.chain(count)
  timing.report(count, function()
    local controller, total = cqueues.new(), nil
    local function level(depth)
      if depth == 0 then return 0 end
      local result
      local finished = condition.new()
      controller:wrap(function()
        result = level(depth - 1)
        finished:signal()
      end)
      while not result do finished:wait() end
      return 1 + result
    end
    controller:wrap(function() total = level(count) end)
    assert(controller:loop())
    assert(total == count)
  end)
end

function works.memory_function(count)
  gathered(1000, yields_once)
  local controller, started = cqueues.new(), 0
  local before = timing.resident()
  local function run(i)
    started = started + 1
    sleeps(i, 3600)
  end
  for i = 1, count do controller:wrap(run, i) end
  while started < count do assert(controller:step(0)) end
  timing.report_memory(count, before, timing.resident())
  os.exit(true, false)
end

function works.million_functions(count)
  gathered(count, sleeps, 1)
end

timing.main(works)
