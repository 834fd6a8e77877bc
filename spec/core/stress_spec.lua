-- Ten thousand tasks on each primitive, cancelled at random: no item, no place and no wake-up is lost.
-- AGATHER_SEEDS=10 ./test spec/core/stress_spec.lua takes more random numbers.
local agather = require "agather"
local testing = require "agather.testing"

local TASKS = 10000

-- Numbers that are the same in every run: an LCG, so that a failure can be seen again.
local function random_source(seed)
  return function(limit)
    seed = (seed * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
    return (seed >> 33) % limit + 1
  end
end

-- Starts the tasks, cancels about a third of them at moments spread over the run, waits until all have ended.
-- Returns how many finished and how many were cancelled.
local function run_and_cancel(seed, body)
  local random = random_source(seed)
  local tasks = {}
  for id = 1, TASKS do tasks[id] = agather.spawn(body, id, random) end
  local killer = agather.spawn(function()
    for _ = 1, TASKS // 3 do
      tasks[random(TASKS)]:cancel()
      if random(150) == 1 then agather.sleep(random(3) == 1 and 0.0005 or 0) end
    end
  end)
  killer:await()
  agather.wait(tasks)
  local finished, cancelled = 0, 0
  for _, task in ipairs(tasks) do
    if task:cancelled() then
      cancelled = cancelled + 1
    else
      assert.is_nil(task:exception())
      finished = finished + 1
    end
  end
  assert.equal(TASKS, finished + cancelled)
  assert.is_true(cancelled > 100, "too few were cancelled to tell anything: " .. cancelled)
  assert.is_true(finished > 100, "too few finished to tell anything: " .. finished)
  return finished, cancelled
end

-- Waits a little, at random: no time, a turn, or some.
local function pause(random)
  local choice = random(3)
  if choice > 1 then agather.sleep(choice == 2 and 0 or 0.001) end
end

describe("ten thousand tasks, some cancelled,", function()
  for seed = 1, tonumber(os.getenv("AGATHER_SEEDS")) or 1 do
    local function it_holds(name, body) it(name .. " (seed " .. seed .. ")", testing.async(body)) end

    it_holds("hold a lock one at a time and leave it free", function()
      local lock, inside, entered = agather.Lock(), 0, 0
      local finished = run_and_cancel(seed, function(_, random)
        local _ <close> = lock:acquire()
        inside, entered = inside + 1, entered + 1
        assert.equal(1, inside)
        local _ <close> = setmetatable({}, { __close = function() inside = inside - 1 end })
        if random(10) == 1 then pause(random) end
      end)
      assert.is_true(entered >= finished)
      assert.equal("<Lock unlocked waiters=0>", tostring(lock))
    end)

    it_holds("share a semaphore's places and give all back", function()
      local semaphore, inside = agather.BoundedSemaphore(7), 0
      run_and_cancel(seed, function(_, random)
        local _ <close> = semaphore:acquire()
        inside = inside + 1
        assert.is_true(inside <= 7)
        local _ <close> = setmetatable({}, { __close = function() inside = inside - 1 end })
        if random(5) == 1 then pause(random) end
      end)
      assert.equal("<BoundedSemaphore value=7 waiters=0>", tostring(semaphore))
    end)

    it_holds("wait for events, and each that was not cancelled wakes", function()
      local event, woken = agather.Event(), 0
      local setter = agather.spawn(function()
        for _ = 1, 400 do
          agather.sleep(0.001)
          event:set()
          event:clear()
        end
        event:set()
      end)
      local finished = run_and_cancel(seed, function(_, random)
        pause(random)
        event:wait()
        woken = woken + 1
      end)
      setter:await()
      assert.is_true(woken >= finished)
      assert.equal("<Event set waiters=0>", tostring(event))
    end)

    it_holds("are notified by a condition as often as there is something to take", function()
      local condition, stock, taken, made = agather.Condition(), 0, 0, 0
      local over = false
      local maker = agather.spawn(function()
        while not over do
          do
            local _ <close> = condition:acquire()
            stock, made = stock + 5, made + 5
            condition:notify(5)
          end
          agather.sleep(0.0001)
        end
      end)
      local finished = run_and_cancel(seed, function()
        local _ <close> = condition:acquire()
        condition:wait_for(function() return stock > 0 end)
        stock, taken = stock - 1, taken + 1
      end)
      over = true
      maker:await()
      assert.is_true(taken >= finished)
      assert.equal(made, stock + taken)
      assert.equal("<Condition unlocked waiters=0>", tostring(condition))
    end)

    for _, kind in ipairs { "Queue", "LifoQueue", "PriorityQueue" } do
      it_holds("pass every item through a " .. kind .. " once", function()
        local queue = agather[kind](5)
        local got, put = {}, {}
        local consumers = {}
        for place = 1, 20 do
          consumers[place] = agather.spawn(function()
            for item in queue:items() do
              assert.is_nil(got[item])
              got[item] = true
              queue:task_done()
            end
          end)
        end
        -- Consumers that are cancelled while they wait must not take an item with them.
        local random = random_source(seed + 100)
        local impatient = agather.spawn(function()
          for _ = 1, 2000 do
            pcall(agather.wait_for, function()
              local item = queue:get()
              got[item] = true
              queue:task_done()
            end, random(2) == 1 and 0 or 0.001)
          end
        end)
        run_and_cancel(seed, function(id, source)
          pause(source)
          queue:put(id)
          put[id] = true
        end)
        impatient:await()
        queue:join()
        queue:shutdown()
        for _, consumer in ipairs(consumers) do consumer:await() end
        for id in pairs(put) do assert.is_true(got[id], "lost item " .. id) end
        for id in pairs(got) do assert.is_true(put[id] or false, "item from nowhere: " .. id) end
        assert.equal(0, queue:qsize())
      end)
    end

    it_holds("wait for futures and each other, and nobody is forgotten", function()
      local futures, random = {}, random_source(seed + 200)
      for place = 1, 100 do futures[place] = agather.future() end
      local resolver = agather.spawn(function()
        for _, future in ipairs(futures) do
          agather.sleep(0.001)
          if not future:done() then future:set_result("value") end
        end
      end)
      local cancelled_futures = 0
      run_and_cancel(seed, function(id)
        local ok, value = pcall(agather.await, agather.shield(futures[random(100)]))
        if not ok then
          cancelled_futures = cancelled_futures + 1
          error(value, 0)
        end
        assert.equal("value", value)
        if id % 7 == 0 then agather.gather(agather.spawn(agather.sleep, 0), agather.spawn(agather.sleep, 0)):await() end
      end)
      resolver:await()
      assert.is_true(cancelled_futures > 0)
    end)
  end
end)
