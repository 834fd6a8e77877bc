local agather = require "agather"
local support = require "spec.support"
local it = require("agather.testing").it

local raises, turns = support.raises, support.turns
local plain_it = _ENV.it

local function now() return agather.get_running_loop():time() end

-- f(...) must raise an error of this class; returns it.
local function fails_with(class, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, class), "another error: " .. tostring(err))
  return err
end

local function assert_cancelled(task)
  fails_with(agather.CancelledError, task.await, task)
  assert.is_true(task:cancelled())
end

-- As many tasks that call f(i).
local function spawn_all(count, f)
  local tasks = {}
  for i = 1, count do tasks[i] = agather.spawn(f, i) end
  return tasks
end

local function gather_all(count, f) return agather.gather_list(spawn_all(count, f)):await() end

-- Whether wait() of the barrier was broken; other errors go on.
local function is_broken(barrier)
  local ok, err = pcall(barrier.wait, barrier)
  if not ok and not agather.is_error(err, agather.BrokenBarrierError) then error(err, 0) end
  return not ok
end

local function assert_idle(barrier)
  assert.equal(0, barrier:n_waiting())
  assert.is_false(barrier:broken())
  assert.equal(("<Barrier filling waiting=0/%d>"):format(barrier:parties()), tostring(barrier))
end

describe("barrier", function()
  plain_it("takes a positive whole number of parties", function()
    raises("bad argument #1 to 'Barrier' (positive integer expected, got 0)", agather.Barrier, 0)
    raises("positive integer expected, got -4", agather.Barrier, -4)
    raises("positive integer expected, got 1.5", agather.Barrier, 1.5)
    raises("positive integer expected, got nil", agather.Barrier)
    raises("positive integer expected, got 3", agather.Barrier, "3")
  end)

  plain_it("is filling and empty when it is new, outside a loop too", function()
    local barrier = agather.Barrier(5)
    assert.equal(5, barrier:parties())
    assert_idle(barrier)
  end)

  plain_it("tells that waiting takes a task", function()
    local barrier = agather.Barrier(2)
    raises("no running task", barrier.wait, barrier)
    assert_idle(barrier)
  end)

  it("lets one task pass a barrier of one, as often as it comes", function()
    local barrier = agather.Barrier(1)
    for _ = 1, 3 do
      assert.equal(0, barrier:wait())
      assert_idle(barrier)
    end
  end)

  it("lets its tasks pass when the last has come", function()
    local barrier, log = agather.Barrier(3), {}
    local tasks = spawn_all(3, function(i)
      agather.sleep(i)
      barrier:wait()
      log[#log + 1] = now()
    end)
    agather.gather_list(tasks):await()
    assert.same({ 3, 3, 3 }, log)
    assert_idle(barrier)
  end)

  it("gives each task a number of its own, in the order in which they came", function()
    local barrier = agather.Barrier(5)
    assert.same({ 0, 1, 2, 3, 4, n = 5 }, gather_all(5, function() return barrier:wait() end))
    assert_idle(barrier)
  end)

  it("lets the last that comes go first, then the others in their order", function()
    local barrier, log = agather.Barrier(4), {}
    gather_all(4, function(i)
      barrier:wait()
      log[#log + 1] = i
    end)
    assert.same({ 4, 1, 2, 3 }, log)
  end)

  it("counts who waits while it fills", function()
    local barrier = agather.Barrier(3)
    local tasks = {}
    for i = 1, 2 do
      tasks[i] = agather.spawn(barrier.wait, barrier)
      agather.sleep(0)
      assert.equal(i, barrier:n_waiting())
      assert.equal(("<Barrier filling waiting=%d/3>"):format(i), tostring(barrier))
    end
    assert.equal(2, barrier:wait())
    assert.equal(0, barrier:n_waiting())
    agather.gather_list(tasks):await()
    assert_idle(barrier)
  end)

  it("may be passed again and again by the same tasks", function()
    local barrier, log = agather.Barrier(5), {}
    gather_all(5, function()
      for round = 1, 4 do
        barrier:wait()
        log[#log + 1] = round
      end
    end)
    assert.equal(20, #log)
    for i = 1, 20 do assert.equal((i - 1) // 5 + 1, log[i]) end
    assert_idle(barrier)
  end)

  it("numbers its tasks anew in each round", function()
    local barrier = agather.Barrier(5)
    local numbers = gather_all(5, function()
      barrier:wait()
      return barrier:wait()
    end)
    table.sort(numbers)
    assert.same({ 0, 1, 2, 3, 4, n = 5 }, numbers)
  end)

  it("drains until the last of its tasks has gone", function()
    local barrier, log = agather.Barrier(5), {}
    gather_all(5, function()
      barrier:wait()
      log[#log + 1] = tostring(barrier):match("<Barrier (%a+)")
    end)
    assert.same({ "draining", "draining", "draining", "draining", "filling" }, log)
  end)

  it("keeps newcomers out while it drains", function()
    local barrier, log = agather.Barrier(2), {}
    local tasks = spawn_all(2, function(i)
      barrier:wait()
      log[#log + 1] = i
      barrier:wait()
      log[#log + 1] = i
    end)
    agather.gather_list(tasks):await()
    assert.equal(4, #log)
    assert.is_true(log[1] ~= log[2] and log[3] ~= log[4])
    assert_idle(barrier)
  end)

  it("blocks tasks that come again until all have left", function()
    local barrier, others, again = agather.Barrier(5), agather.Barrier(3), 2
    local passed = 0
    gather_all(5, function()
      barrier:wait()
      if again > 0 then
        again = again - 1
        barrier:wait()
      else
        others:wait()
        barrier:wait()
      end
      passed = passed + 1
    end)
    assert.equal(5, passed)
    assert_idle(barrier)
    assert_idle(others)
  end)

  it("goes on without a task that was cancelled", function()
    local barrier, passed = agather.Barrier(3), 0
    local function pass()
      barrier:wait()
      passed = passed + 1
    end
    local tasks = spawn_all(2, pass)
    agather.sleep(0)
    assert.equal(2, barrier:n_waiting())
    tasks[1]:cancel()
    assert_cancelled(tasks[1])
    assert.equal(1, barrier:n_waiting())
    local third = agather.spawn(pass)
    agather.sleep(0)
    assert.equal(2, barrier:n_waiting())
    assert.is_false(tasks[2]:done())
    agather.gather(tasks[2], third, agather.spawn(pass)):await()
    assert.equal(3, passed)
    assert_idle(barrier)
  end)

  it("lets the others pass when a task is cancelled in the iteration in which the last came", function()
    local barrier = agather.Barrier(3)
    local tasks = spawn_all(2, function() return barrier:wait() end)
    agather.sleep(0)
    assert.equal(2, barrier:wait())
    tasks[1]:cancel()
    assert_cancelled(tasks[1])
    assert.equal(1, tasks[2]:await())
    assert_idle(barrier)
  end)

  it("is passed again when all who waited were cancelled", function()
    local barrier = agather.Barrier(2)
    for _ = 1, 3 do
      local task = agather.spawn(barrier.wait, barrier)
      agather.sleep(0)
      task:cancel()
      assert_cancelled(task)
    end
    assert.same({ 0, 1, n = 2 }, gather_all(2, function() return barrier:wait() end))
    assert_idle(barrier)
  end)

  it("may be waited for with a timeout", function()
    local barrier = agather.Barrier(2)
    fails_with(agather.TimeoutError, agather.wait_for, function() barrier:wait() end, 3)
    assert.equal(3, now())
    assert_idle(barrier)
  end)

  it("stays as it is when it is reset with nobody waiting", function()
    local barrier = agather.Barrier(1)
    barrier:reset()
    assert_idle(barrier)
    assert.equal(0, barrier:wait())
  end)

  it("raises BrokenBarrierError in all who wait when it is reset, and is ready again", function()
    local barrier = agather.Barrier(5)
    local tasks = spawn_all(4, function() return barrier:wait() end)
    agather.sleep(0)
    barrier:reset()
    assert.equal(0, barrier:n_waiting())
    for _, task in ipairs(tasks) do
      raises("Abort or reset of barrier", task.await, task)
      assert.is_true(agather.is_error(task:exception(), agather.BrokenBarrierError))
    end
    assert_idle(barrier)
    assert.equal(5, #gather_all(5, function() return barrier:wait() end))
  end)

  it("keeps newcomers out until all have left whom the reset broke", function()
    local barrier, log = agather.Barrier(2), {}
    local function wait()
      local broken = is_broken(barrier)
      log[#log + 1] = broken and "broken" or "passed"
    end
    local waiter = agather.spawn(wait)
    agather.sleep(0)
    barrier:reset()
    assert.equal("<Barrier resetting waiting=0/2>", tostring(barrier))
    local newcomers = spawn_all(2, wait)
    agather.gather(waiter, table.unpack(newcomers)):await()
    assert.same({ "broken", "passed", "passed" }, log)
    assert_idle(barrier)
  end)

  it("lets the tasks that a reset broke wait again", function()
    local barrier, broken, passed = agather.Barrier(5), 0, 0
    local tasks = spawn_all(4, function()
      if is_broken(barrier) then broken = broken + 1 end
      barrier:wait()
      passed = passed + 1
    end)
    agather.spawn(barrier.reset, barrier)
    agather.sleep(0)
    local last = agather.spawn(function()
      barrier:wait()
      passed = passed + 1
    end)
    agather.gather(last, table.unpack(tasks)):await()
    assert.equal(4, broken)
    assert.equal(5, passed)
    assert_idle(barrier)
  end)

  it("breaks those who have not left when it is reset half drained", function()
    local barrier, left, broken = agather.Barrier(5), 0, 0
    gather_all(5, function()
      if is_broken(barrier) then
        broken = broken + 1
      else
        left = left + 1
        if left == 3 then barrier:reset() end
      end
    end)
    assert.equal(3, left)
    assert.equal(2, broken)
    assert_idle(barrier)
  end)

  it("does not break those who wait to come in when it is reset half drained", function()
    local barrier, left, broken, blocked = agather.Barrier(5), 0, 0, 0
    gather_all(5, function()
      if is_broken(barrier) then
        broken = broken + 1
        barrier:wait()
      else
        left = left + 1
        if left > 2 then
          barrier:reset()
          barrier:wait()
        elseif is_broken(barrier) then
          blocked = blocked + 1
        end
      end
    end)
    assert.equal(2, broken)
    assert.equal(0, blocked)
    assert_idle(barrier)
  end)

  it("breaks nobody when it is reset after the last has left", function()
    local barrier, left, broken, passed = agather.Barrier(5), 0, 0, 0
    gather_all(5, function()
      barrier:wait()
      left = left + 1
      if left == 5 then
        barrier:reset()
        barrier:wait()
      elseif is_broken(barrier) then
        broken = broken + 1
      end
      barrier:wait()
      passed = passed + 1
    end)
    assert.equal(0, broken)
    assert.equal(5, passed)
    assert_idle(barrier)
  end)

  it("is broken by abort, for all who wait and all who come", function()
    local barrier = agather.Barrier(3)
    local tasks = spawn_all(2, function() return barrier:wait() end)
    agather.sleep(0)
    barrier:abort()
    assert.is_true(barrier:broken())
    assert.equal(0, barrier:n_waiting())
    for _, task in ipairs(tasks) do raises("Abort or reset of barrier", task.await, task) end
    raises("Barrier aborted", barrier.wait, barrier)
    fails_with(agather.BrokenBarrierError, barrier.wait, barrier)
    assert.equal("<Barrier broken waiting=0/3>", tostring(barrier))
  end)

  it("stays broken until it is reset", function()
    local barrier = agather.Barrier(1)
    barrier:abort()
    barrier:abort()
    fails_with(agather.BrokenBarrierError, barrier.wait, barrier)
    barrier:reset()
    assert_idle(barrier)
    assert.equal(0, barrier:wait())
  end)

  it("breaks those who have not left and those who come again when it is aborted half drained", function()
    local barrier, left, broken, blocked = agather.Barrier(5), 0, 0, 0
    gather_all(5, function()
      if is_broken(barrier) then
        broken = broken + 1
      else
        left = left + 1
        if left > 2 then
          barrier:abort()
        elseif is_broken(barrier) then
          blocked = blocked + 1
        end
      end
    end)
    assert.is_true(barrier:broken())
    assert.equal(2, broken)
    assert.equal(2, blocked)
    assert.equal(0, barrier:n_waiting())
  end)

  it("may be aborted by a task that fails after it passed", function()
    local barrier, passed, broken = agather.Barrier(5), 0, 0
    gather_all(5, function()
      local ok, number = pcall(barrier.wait, barrier)
      if ok and number == 2 then
        barrier:abort()
      elseif not ok or is_broken(barrier) then
        broken = broken + 1
      else
        passed = passed + 1
      end
    end)
    assert.is_true(barrier:broken())
    assert.equal(0, passed)
    assert.equal(4, broken)
  end)

  it("may be aborted, reset and passed with the help of another barrier", function()
    local barrier, other, broken, passed = agather.Barrier(5), agather.Barrier(5), 0, 0
    gather_all(5, function()
      local ok, number = pcall(barrier.wait, barrier)
      if ok and number == 2 then
        barrier:abort()
      elseif not ok or is_broken(barrier) then
        broken = broken + 1
      end
      if other:wait() == 2 then barrier:reset() end
      other:wait()
      barrier:wait()
      passed = passed + 1
    end)
    assert.equal(4, broken)
    assert.equal(5, passed)
    assert_idle(barrier)
    assert_idle(other)
  end)

  it("cannot be waited for in a comparison of table.sort", function()
    local barrier = agather.Barrier(2)
    raises("cannot wait across", table.sort, { 2, 1 }, function() barrier:wait() end)
    assert_idle(barrier)
  end)

  it("may be waited for in a generator", function()
    local barrier = agather.Barrier(2)
    local task = agather.spawn(barrier.wait, barrier)
    local generator = agather.coroutine.wrap(function()
      agather.sleep(0)
      agather.coroutine.yield(barrier:wait())
    end)
    assert.equal(1, generator())
    assert.equal(0, task:await())
  end)

  it("does not break under collection of garbage while tasks wait", function()
    local barrier, rounds = agather.Barrier(4), 0
    gather_all(4, function(i)
      for round = 1, 10 do
        agather.sleep((i * round) % 3)
        collectgarbage("step")
        barrier:wait()
        collectgarbage()
        rounds = rounds + 1
      end
    end)
    turns(1)
    assert.equal(40, rounds)
    assert_idle(barrier)
  end)

  plain_it("serves one loop after another", function()
    local barrier = agather.Barrier(2)
    for _ = 1, 2 do
      support.virtual(function()
        assert.same({ 0, 1, n = 2 }, gather_all(2, function() return barrier:wait() end))
        agather.spawn(barrier.wait, barrier)
        agather.sleep(0)
        assert.equal(1, barrier:n_waiting())
      end)
      assert_idle(barrier)
      collectgarbage()
    end
  end)
end)
