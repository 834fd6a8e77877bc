-- Locks, events, conditions, semaphores, queues, barriers, groups and timeouts, for torture.c.
local agather = require "agather"

local function text_of(...)
  for place = 1, select("#", ...) do local _ = tostring((select(place, ...))) end
end

-- Two tasks, both ended when one of them lacks memory.
local function both(...) return agather.gather(...):await() end

local together = { cancel_on_error = true }

local function pair(one, other) return both(one, other, together) end

local function locks()
  local lock = agather.Lock()
  text_of(lock, lock:locked())
  pair(function()
    local _ <close> = lock:acquire()
    agather.sleep(1)
  end, function()
    lock:acquire()
    agather.sleep(0)
    lock:release()
  end)
  local held = lock:acquire()
  local waiting = agather.spawn(lock.acquire, lock)
  agather.sleep(0)
  waiting:cancel()
  pcall(waiting.await, waiting)
  held:release()
  pcall(lock.release, lock)
end

local function semaphores()
  for _, kind in ipairs { "Semaphore", "BoundedSemaphore" } do
    local semaphore = agather[kind](1)
    text_of(semaphore, semaphore:locked())
    pair(function()
      local _ <close> = semaphore:acquire()
      agather.sleep(1)
    end, function()
      semaphore:acquire()
      semaphore:release()
    end)
    pcall(agather.wait_for, function()
      local _ <close> = semaphore:acquire()
      semaphore:acquire()
    end, 1)
  end
  pcall(function() agather.BoundedSemaphore(1):release() end)
end

local function events()
  local event = agather.Event()
  text_of(event, event:is_set())
  pair(function() event:wait() end, function()
    agather.sleep(1)
    event:set()
  end)
  event:clear()
  local waiting = agather.spawn(event.wait, event)
  agather.sleep(0)
  waiting:cancel()
  pcall(waiting.await, waiting)
end

local function conditions()
  local condition, ready = agather.Condition(), false
  text_of(condition, condition:locked())
  pair(function()
    condition:acquire()
    condition:wait()
    condition:wait_for(function() return ready end)
    condition:release()
  end, function()
    agather.sleep(1)
    for turn = 1, 2 do
      local _ <close> = condition:acquire()
      ready = turn == 2
      if turn == 1 then condition:notify() else condition:notify_all() end
      agather.sleep(1)
    end
  end)
  pcall(agather.wait_for, function()
    local _ <close> = condition:acquire()
    condition:wait()
  end, 1)
end

local function queues()
  for _, kind in ipairs { "Queue", "LifoQueue", "PriorityQueue" } do
    local queue = agather[kind](2)
    text_of(queue, queue:qsize(), queue:empty(), queue:full(), queue:maxsize())
    pair(function()
      for item = 1, 5 do queue:put(item) end
      queue:join()
      queue:shutdown()
    end, function()
      for _ in queue:items() do
        agather.sleep(0)
        queue:task_done()
      end
    end)
    pcall(queue.put, queue, 1)
    local other = agather[kind]()
    pcall(other.get_nowait, other)
    other:put_nowait(1)
    other:get_nowait()
    pcall(agather.wait_for, function() other:get() end, 1)
    for item = 1, 40 do other:put_nowait(item) end
    other:shutdown(true)
    local full = agather[kind](1)
    full:put(1)
    pcall(full.put_nowait, full, 2)
    pcall(agather.wait_for, function() full:put(2) end, 1)
  end
  local compared = agather.PriorityQueue(0)
  local order = { __lt = function(a, b) return a[1] < b[1] end }
  for item = 1, 5 do compared:put_nowait(setmetatable({ -item }, order)) end
  compared:get()
end

local function barriers()
  local barrier = agather.Barrier(2)
  text_of(barrier, barrier:parties(), barrier:n_waiting(), barrier:broken())
  pair(function() barrier:wait() end, function() barrier:wait() end)
  for _, way in ipairs { "reset", "abort" } do
    local waiting = agather.spawn(barrier.wait, barrier)
    agather.sleep(0)
    barrier[way](barrier)
    pcall(waiting.await, waiting)
  end
  barrier:reset()
  pcall(agather.wait_for, function() barrier:wait() end, 1)
end

local function groups()
  do
    local group <close> = agather.TaskGroup()
    text_of(group)
    group:create_task(agather.async(agather.sleep)(1), { name = "in a group" })
    group:spawn(function() group:spawn(agather.sleep, 1) end)
  end
  pcall(function()
    local group <close> = agather.TaskGroup()
    for _ = 1, 2 do
      group:spawn(function()
        local _ <close> = setmetatable({}, { __close = function() error("on the way out") end })
        agather.sleep(1)
      end)
    end
    error("in the body")
  end)
end

local function timeouts()
  do
    local scope <close> = agather.timeout(1)
    text_of(scope, scope:when(), scope:expired())
    scope:reschedule(agather.get_running_loop():time() + 5)
    agather.sleep(1)
  end
  pcall(function()
    local _ <close> = agather.timeout_at(agather.get_running_loop():time() + 1)
    local _ <close> = agather.timeout(0.5)
    agather.sleep(5)
  end)
  pcall(agather.wait_for, agather.future(), 0)
  agather.wait_for(agather.spawn(agather.sleep, 1), 2)
end

local function combined()
  local function job(seconds)
    agather.sleep(seconds)
    if seconds == 3 then error("three") end
    return seconds
  end
  local timed = { agather.spawn(job, 1), agather.spawn(job, 50), agather.spawn(job, 2) }
  pcall(function()
    for task in agather.as_completed(timed, { timeout = 4, progress = function() end }) do task:await() end
  end)
  for _, task in ipairs(timed) do
    task:cancel()
    pcall(task.await, task)
  end
  for _, return_when in ipairs { agather.FIRST_COMPLETED, agather.FIRST_EXCEPTION, agather.ALL_COMPLETED } do
    local tasks = { agather.spawn(job, 1), agather.spawn(job, 3), agather.spawn(job, 4) }
    agather.wait(tasks, { return_when = return_when })
    for _, task in ipairs(tasks) do pcall(task.await, task) end
  end
  local shielded = agather.spawn(job, 2)
  local outer = agather.shield(shielded)
  agather.sleep(0)
  outer:cancel()
  pcall(outer.await, outer)
  shielded:await()
  local items = coroutine.wrap(function() for item = 1, 5 do coroutine.yield(item) end end)
  agather.map(job, items, { limit = 2, return_exceptions = true, progress = function() end })
  pcall(agather.map, job, { 1, 3, 5 })
  pcall(agather.await, agather.gather_list({ agather.spawn(job, 3), agather.spawn(job, 9) }, together))
end

return {
  clock = "virtual",
  run = function()
    for _, part in ipairs { locks, semaphores, events, conditions, queues, barriers, groups, timeouts, combined } do
      part()
      agather.sleep(0)
    end
  end,
}
