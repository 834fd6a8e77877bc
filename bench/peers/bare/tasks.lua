-- Bare coroutines: the same work with nothing but coroutine.create, resume and yield and tables in plain Lua 5.4. All
-- coroutines are made before the first one starts, as tasks are, and each turn is a pass over the list. No loop, no
-- timers, no errors handled: what it costs is the least that a scheduler in Lua could cost.
local timing = require "bench.timing"

local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

local function short(i) return i end

local function yields_once(i)
  yield()
  return i
end

local function created(count, job)
  local threads = {}
  for i = 1, count do threads[i] = create(job) end
  return threads
end

-- Resumes each; the list of what they returned or yielded.
local function pass(threads)
  local results = {}
  for i = 1, #threads do
    local _, value = resume(threads[i], i)
    results[i] = value
  end
  return results
end

local works = {}

function works.spawn(count)
  timing.report(count, function()
    local results = pass(created(count, short))
    assert(results[count] == count)
  end)
end

function works.yield(count)
  timing.report(count, function()
    local threads = created(count, yields_once)
    for i = 1, count do resume(threads[i], i) end
    local results = pass(threads)
    assert(results[count] == count)
  end)
end

function works.switch(count)
  local rounds = count // 100
  local function turns()
    for _ = 1, rounds do yield() end
  end
  timing.report(count, function()
    local threads = created(100, turns)
    for _ = 1, rounds + 1 do
      for i = 1, 100 do resume(threads[i]) end
    end
  end)
end

function works.alone(count)
  timing.report(count, function()
    local thread = create(function()
      for _ = 1, count do yield() end
    end)
    for _ = 1, count + 1 do resume(thread) end
  end)
end

function works.cancel(count)
  timing.report(count, function()
    local threads = created(count, yields_once)
    for i = 1, count do resume(threads[i], i) end
    local started = os.clock()
    for i = 1, count do coroutine.close(threads[i]) end
    return os.clock() - started
  end)
end

-- The producer yields while the list is full, the consumer while it is empty.
function works.queue(count)
  timing.report(count, function()
    local items, first, last, seen = {}, 1, 0, 0
    local producer = create(function()
      for i = 1, count do
        while last - first + 1 >= 100 do yield() end
        last = last + 1
        items[last] = i
      end
    end)
    local consumer = create(function()
      while seen < count do
        while first > last do yield() end
        seen = items[first]
        items[first] = nil
        first = first + 1
      end
    end)
    while seen < count do
      resume(producer)
      resume(consumer)
    end
  end)
end

-- A lock is a list of who waits; who lets go resumes nobody, but makes the first of the list ready.
function works.lock(count)
  timing.report(count, function()
    local held, inside = false, 0
    local waiting, first, last = {}, 1, 0
    local ready, ready_first, ready_last = {}, 1, 0
    local function make_ready(thread)
      ready_last = ready_last + 1
      ready[ready_last] = thread
    end
    local threads = created(100, function(thread)
      for _ = 1, count // 100 do
        if held then
          last = last + 1
          waiting[last] = thread
          yield()
        end
        held = true
        inside = inside + 1
        make_ready(thread)
        yield()
        if first <= last then
          make_ready(waiting[first])
          waiting[first] = nil
          first = first + 1
        else
          held = false
        end
      end
    end)
    for i = 1, 100 do make_ready(threads[i]) end
    while ready_first <= ready_last do
      local thread = ready[ready_first]
      ready[ready_first] = nil
      ready_first = ready_first + 1
      resume(thread, thread)
    end
    assert(inside == count)
  end)
end

-- A coroutine that resumes a coroutine that resumes one ends at 200 levels (C stack overflow), so a parent yields its
-- child to a loop, which resumes the parent with the child's result.
function works.chain(count)
  local function chain(depth)
    if depth == 0 then return 0 end
    local child = create(chain)
    return 1 + yield(child, depth - 1)
  end
  timing.report(count, function()
    local stack, depth = { create(chain) }, 1
    local argument = count
    while depth > 0 do
      local _, value, child_argument = resume(stack[depth], argument)
      if child_argument then
        depth = depth + 1
        stack[depth] = value
        argument = child_argument
      else
        stack[depth] = nil
        depth = depth - 1
        argument = value
      end
    end
    assert(argument == count)
  end)
end

-- A coroutine that waits in yield: for a sleep of its own there is nothing smaller than a function that yields.
function works.memory_function(count)
  pass(created(1000, yields_once))
  local before = timing.resident()
  local threads = created(count, yields_once)
  for i = 1, count do resume(threads[i], i) end
  timing.report_memory(count, before, timing.resident())
  os.exit(#threads == count, false)
end

works.memory = works.memory_function

timing.main(works)
