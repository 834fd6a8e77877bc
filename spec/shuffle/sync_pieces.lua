-- Pieces of random programs: locks, semaphores, events, conditions, barriers and queues. Each is a function of a
-- workbench that runs in a task and ends by itself in whatever order the loop runs what is ready.
local agather = require "agather"

local pieces = {}

-- At most [most] tasks at a time between enter() and the end of the scope.
local function counter(bench, most)
  local inside = 0
  return function()
    inside = inside + 1
    bench:check(inside <= most, "%d tasks where %d may be", inside, most)
    return bench.on_leave(function() inside = inside - 1 end)
  end
end

function pieces.lock(bench)
  local lock, enter = agather.Lock(), counter(bench, 1)
  bench:run(bench:random(12), function()
    bench:pause()
    local _ <close> = lock:acquire()
    local _ <close> = enter()
    bench:pause()
  end)
  bench:check(tostring(lock) == "<Lock unlocked waiters=0>", "the end of it is %s", lock)
end

function pieces.semaphore(bench)
  local places = bench:random(3)
  local semaphore, enter = agather.BoundedSemaphore(places), counter(bench, places)
  bench:run(bench:random(15), function()
    bench:pause()
    local _ <close> = semaphore:acquire()
    local _ <close> = enter()
    bench:pause()
  end)
  bench:check(tostring(semaphore) == ("<BoundedSemaphore value=%d waiters=0>"):format(places), "the end of it is %s", semaphore)
end

function pieces.event(bench)
  local event = agather.Event()
  local setter = agather.spawn(function()
    for _ = 1, bench:random(5) do
      bench:pause()
      event:set()
      if bench:chance(50) then event:clear() end
    end
    bench:pause()
    event:set()
  end)
  bench:run(bench:random(10), function()
    bench:pause()
    event:wait()
    bench:pause()
  end)
  setter:await()
end

function pieces.condition(bench)
  local condition, enter = agather.Condition(), counter(bench, 1)
  local stock, made, taken = 0, 0, 0
  local takers = bench:random(8)
  local maker = agather.spawn(function()
    for _ = 1, takers do -- enough for all of them
      bench:pause()
      local _ <close> = condition:acquire()
      local _ <close> = enter()
      bench:pause()
      local some = bench:random(2)
      stock, made = stock + some, made + some
      if bench:chance(20) then condition:notify_all() else condition:notify(some) end
    end
  end)
  bench:run(takers, function()
    bench:pause()
    local _ <close> = condition:acquire()
    condition:wait_for(function() return stock > 0 end)
    local _ <close> = enter()
    stock, taken = stock - 1, taken + 1
    bench:pause()
  end)
  maker:await()
  bench:check(made == stock + taken, "%d made, %d left, %d taken", made, stock, taken)
  bench:check(tostring(condition) == "<Condition unlocked waiters=0>", "the end of it is %s", condition)
end

function pieces.barrier(bench)
  local parties, rounds = bench:random(4), bench:random(3)
  local barrier = agather.Barrier(parties)
  local numbers, passed = {}, 0
  bench:run(parties * rounds, function()
    bench:pause()
    local number = barrier:wait()
    numbers[number] = (numbers[number] or 0) + 1
    passed = passed + 1
  end, { cancel = 0 })
  for number = 0, parties - 1 do
    bench:check(numbers[number] == rounds, "number %d was given %s times in %d rounds", number, numbers[number], rounds)
  end
  bench:check(passed == parties * rounds and barrier:n_waiting() == 0, "%d passed, %d wait", passed, barrier:n_waiting())
end

-- Some are cancelled while they wait: whoever passes, passes in a full round, or gets the error of an abort.
function pieces.barrier_with_cancellations(bench)
  local parties = bench:random(3) + 1
  local barrier = agather.Barrier(parties)
  local passed, broken, over = 0, 0, false
  local breaker = agather.spawn(function()
    agather.sleep(1) -- after all pauses: who is left over would wait for ever
    over = true
    barrier:abort()
  end)
  bench:run(bench:random(5) * parties, function()
    bench:pause()
    local ok, result = pcall(barrier.wait, barrier)
    if ok then
      passed = passed + 1
    elseif agather.is_error(result, agather.BrokenBarrierError) then
      broken = broken + 1
      bench:check(over, "broken before anybody broke it")
    else
      error(result, 0)
    end
  end)
  breaker:await()
  bench:check(broken < parties, "%d waited for an abort where %d pass", broken, parties)
end

-- Each item comes out once, those of one producer in their order, and join() and shutdown() end.
local function queue_piece(kind)
  return function(bench)
    local queue = agather[kind](bench:random(4) - 1)
    local put, got, count = {}, {}, 0
    local last = {} -- producer -> number of its item that was taken last
    local function take(item)
      bench:check(put[item] ~= nil, "item %d from nowhere", item)
      bench:check(not got[item], "item %d twice", item)
      got[item] = true
      local producer, number = item // 1000, item % 1000
      if kind == "Queue" then
        bench:check(number > (last[producer] or 0), "item %d after %s", item, last[producer])
        last[producer] = number
      end
      queue:task_done()
    end
    local consumers = {}
    for place = 1, bench:random(4) do
      consumers[place] = agather.spawn(function()
        for item in queue:items() do
          take(item)
          bench:pause()
        end
      end)
    end
    local impatient = agather.spawn(function() -- gives up while it waits, and must not take an item with it
      for _ = 1, bench:random(10) do
        local ok, item = pcall(agather.wait_for, function()
          local one = queue:get()
          take(one)
        end, (bench:random(4) - 1) / 64)
        bench:check(ok or agather.is_error(item, agather.TimeoutError), "the impatient one got %s", item)
      end
    end)
    bench:run(bench:random(6), function(id)
      for number = 1, bench:random(6) do
        bench:pause()
        local item = id * 1000 + number
        put[item] = "on its way" -- a consumer may have it before put returns
        local ok, err = pcall(queue.put, queue, item)
        if not ok then
          bench:check(not got[item], "item %d was taken although its put was cancelled", item)
          put[item] = nil
          error(err, 0)
        end
        count = count + 1
      end
    end)
    impatient:await()
    queue:join()
    queue:shutdown()
    for _, consumer in ipairs(consumers) do consumer:await() end
    local taken = 0
    for item in pairs(put) do bench:check(got[item], "item %d was lost", item) end
    for _ in pairs(got) do taken = taken + 1 end
    bench:check(taken == count and queue:qsize() == 0, "%d put, %d taken, %d left", count, taken, queue:qsize())
  end
end
pieces.queue = queue_piece "Queue"
pieces.lifo_queue = queue_piece "LifoQueue"
pieces.priority_queue = queue_piece "PriorityQueue"

return pieces
