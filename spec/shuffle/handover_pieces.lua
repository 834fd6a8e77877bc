-- Pieces of random programs: one thing at a time is given to tasks that wait for it, and some of them are cancelled in the
-- same step. What was given must not stay untaken while somebody waits, whoever was woken and cancelled meanwhile.
local agather = require "agather"

-- make(bench) returns take(), which waits for one and takes it, give(), which makes one available, and left(), how many
-- nobody has taken.
local function handover(make)
  return function(bench)
    local take, give, left = make(bench)
    local tasks, waiting, took, given = {}, {}, 0, 0
    for id = 1, 1 + bench:random(5) do
      tasks[id] = agather.spawn(function()
        waiting[id] = true
        local _ <close> = bench.on_leave(function() waiting[id] = nil end)
        take()
        took = took + 1
      end)
    end
    agather.sleep(1 / 64)
    local function cancel_some()
      for id, task in ipairs(tasks) do
        if waiting[id] and bench:chance(25) then task:cancel() end
      end
    end
    while next(waiting) do
      if bench:chance(30) then cancel_some() end
      give()
      given = given + 1
      if bench:chance(60) then cancel_some() end
      if bench:chance(30) then
        agather.sleep(0)
        cancel_some()
      end
      agather.sleep(1 / 64) -- all turns that it takes
      bench:check(left() == given - took, "%d given, %d taken, %d left", given, took, left())
      if not bench:check(left() == 0 or not next(waiting), "%d left while tasks wait for it", left()) then break end
    end
    for _, task in ipairs(tasks) do task:cancel() end
    agather.wait(tasks)
  end
end

local pieces = {}

pieces.lock_handover = handover(function()
  local lock = agather.Lock()
  lock:acquire()
  return function() lock:acquire() end, function() lock:release() end, function() return lock:locked() and 0 or 1 end
end)

pieces.semaphore_handover = handover(function()
  local semaphore = agather.Semaphore(0)
  return function() semaphore:acquire() end, function() semaphore:release() end, function()
    return math.tointeger(tostring(semaphore):match("value=(%d+)"))
  end
end)

pieces.condition_handover = handover(function(bench)
  local condition, stock = agather.Condition(), 0
  local function take()
    local _ <close> = condition:acquire()
    condition:wait_for(function() return stock > 0 end)
    stock = stock - 1
  end
  local function give()
    local _ <close> = condition:acquire()
    stock = stock + 1
    condition:notify()
    if bench:chance(50) then agather.sleep(0) end -- whoever was told waits for the lock meanwhile
  end
  return take, give, function() return stock end
end)

pieces.queue_get_handover = handover(function(bench)
  local queue = agather[bench:pick { "Queue", "LifoQueue", "PriorityQueue" }]()
  return function() queue:get() end, function() queue:put_nowait(1) end, function() return queue:qsize() end
end)

pieces.queue_put_handover = handover(function(bench)
  local queue = agather[bench:pick { "Queue", "LifoQueue", "PriorityQueue" }](1)
  queue:put(1)
  return function() queue:put(1) end, function() queue:get_nowait() end, function() return 1 - queue:qsize() end
end)

return pieces
