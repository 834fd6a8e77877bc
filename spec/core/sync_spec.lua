local agather = require "agather"
local support = require "spec.support"
local it = require("agather.testing").it

local closing, raises, turns = support.closing, support.raises, support.turns
local plain_it = _ENV.it

local function now() return agather.get_running_loop():time() end

-- f(...) must raise an error of this class; returns it.
local function fails_with(class, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, class), "another error: " .. tostring(err))
  return err
end

-- Starts f(...) as a task and lets it come to its first wait.
local function start(f, ...)
  local task = agather.spawn(f, ...)
  agather.sleep(0)
  return task
end

local function assert_cancelled(task)
  fails_with(agather.CancelledError, task.await, task)
  assert.is_true(task:cancelled())
end

describe("lock", function()
  plain_it("is free when it is new, outside a loop too", function()
    assert.is_false(agather.Lock():locked())
  end)

  plain_it("is taken and given back without a loop while nobody has to wait", function()
    local lock = agather.Lock()
    assert.equal(lock, lock:acquire())
    assert.is_true(lock:locked())
    lock:release()
    assert.is_false(lock:locked())
  end)

  plain_it("tells that waiting takes a task", function()
    local lock = agather.Lock()
    lock:acquire()
    raises("Lock.acquire: no running task", lock.acquire, lock)
    assert.is_true(lock:locked())
  end)

  it("cannot be released while nobody holds it", function()
    local lock = agather.Lock()
    fails_with(agather.RuntimeError, lock.release, lock)
    lock:acquire()
    lock:release()
    raises("Lock is not acquired.", lock.release, lock)
  end)

  it("names what was given in its place", function()
    local lock = agather.Lock()
    raises("Lock expected, got number", lock.acquire, 5)
    raises("Lock expected, got Event", lock.locked, agather.Event())
    raises("Lock expected, got table", lock.acquire, {})
  end)

  it("cannot be waited for in a comparison of table.sort", function()
    local lock = agather.Lock()
    lock:acquire()
    raises("Lock.acquire: cannot wait across", table.sort, { 2, 1 }, function() lock:acquire() end)
    assert.equal("<Lock locked waiters=0>", tostring(lock))
  end)

  it("cannot be waited for in a plain coroutine", function()
    local lock = agather.Lock()
    lock:acquire()
    raises("Lock.acquire: cannot wait inside a plain coroutine", coroutine.wrap(function() lock:acquire() end))
  end)

  it("shows how many wait", function()
    local lock = agather.Lock()
    lock:acquire()
    local first, second = agather.spawn(lock.acquire, lock), start(lock.acquire, lock)
    assert.equal("<Lock locked waiters=2>", tostring(lock))
    first:cancel()
    second:cancel()
    agather.sleep(0)
    assert.equal("<Lock locked waiters=0>", tostring(lock))
  end)

  it("shows in the task that waits for it", function()
    local lock = agather.Lock()
    lock:acquire()
    local task = start(lock.acquire, lock)
    assert.truthy(tostring(task):find("wait_for=<Lock>", 1, true))
    task:cancel()
  end)

  it("takes no turn of the loop when it is free", function()
    local lock, log = agather.Lock(), {}
    agather.spawn(function() log[#log + 1] = "other" end)
    lock:acquire()
    log[#log + 1] = "acquired"
    agather.sleep(0)
    assert.same({ "acquired", "other" }, log)
  end)

  it("is given to one task at each release, in the order in which they came", function()
    local lock, log = agather.Lock(), {}
    lock:acquire()
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = agather.spawn(function()
        lock:acquire()
        log[#log + 1] = i
      end)
    end
    agather.sleep(0)
    assert.same({}, log)
    for i = 1, 3 do
      lock:release()
      agather.sleep(0)
      assert.equal(i, #log)
      assert.equal(i, log[i])
    end
    assert.is_true(lock:locked())
    for i = 1, 3 do assert.is_true(tasks[i]:done()) end
  end)

  it("lets no two tasks in at once", function()
    local lock, inside, most = agather.Lock(), 0, 0
    local calls = {}
    for i = 1, 20 do
      calls[i] = function()
        local _ <close> = lock:acquire()
        inside = inside + 1
        most = math.max(most, inside)
        agather.sleep(i % 3)
        collectgarbage("step")
        inside = inside - 1
      end
    end
    agather.gather_list(calls):await()
    assert.equal(1, most)
    assert.is_false(lock:locked())
  end)

  it("does not let a newcomer overtake a task that was woken", function()
    local lock, log = agather.Lock(), {}
    lock:acquire()
    local waiter = start(function()
      lock:acquire()
      log[#log + 1] = "waiter"
      lock:release()
    end)
    lock:release()
    assert.is_false(lock:locked())
    lock:acquire()
    log[#log + 1] = "newcomer"
    lock:release()
    assert.same({ "waiter", "newcomer" }, log)
    waiter:await()
  end)

  it("goes on to the next when the first waiter is cancelled and it is released in one iteration", function()
    local lock = agather.Lock()
    local held = agather.future()
    local function lock_it(blocker)
      local _ <close> = lock:acquire()
      if blocker then blocker:await() end
    end
    local a = start(lock_it, held)
    local b = start(lock_it)
    local c = start(lock_it)
    assert.equal("<Lock locked waiters=2>", tostring(lock))
    held:set_result()
    b:cancel()
    agather.sleep(0)
    assert.is_true(a:done())
    assert.is_true(b:cancelled())
    c:await()
    assert.is_false(lock:locked())
  end)

  it("is taken by one task only when the first waiter is cancelled just before the release", function()
    local lock, taken = agather.Lock(), 0
    local function take()
      lock:acquire()
      taken = taken + 1
    end
    lock:acquire()
    local first, second, third = agather.spawn(take), agather.spawn(take), start(take)
    agather.get_running_loop():call_soon(function()
      first:cancel()
      lock:release()
    end)
    assert_cancelled(first)
    assert.equal(1, taken)
    assert.is_true(second:done())
    third:cancel()
    assert_cancelled(third)
  end)

  it("passes the wake-up on when the task that it woke is cancelled in the same iteration", function()
    local lock, log = agather.Lock(), {}
    lock:acquire()
    local first = agather.spawn(lock.acquire, lock)
    local second = start(function()
      lock:acquire()
      log[#log + 1] = now()
    end)
    lock:release()
    first:cancel()
    assert_cancelled(first)
    second:await()
    assert.same({ 0 }, log)
    assert.is_true(lock:locked())
  end)

  it("passes the wake-up on along a row of tasks that are all cancelled", function()
    local lock, tasks = agather.Lock(), {}
    lock:acquire()
    for i = 1, 10 do tasks[i] = agather.spawn(lock.acquire, lock) end
    agather.sleep(0)
    lock:release()
    for i = 1, 9 do tasks[i]:cancel() end
    tasks[10]:await()
    for i = 1, 9 do assert.is_true(tasks[i]:cancelled()) end
    assert.is_true(lock:locked())
  end)

  it("is free when the only task that it woke is cancelled", function()
    local lock = agather.Lock()
    lock:acquire()
    local task = start(lock.acquire, lock)
    lock:release()
    task:cancel()
    assert_cancelled(task)
    assert.is_false(lock:locked())
    lock:acquire()
  end)

  it("keeps its holder when a waiter is cancelled", function()
    local lock = agather.Lock()
    lock:acquire()
    local task = start(lock.acquire, lock)
    task:cancel()
    assert_cancelled(task)
    assert.is_true(lock:locked())
    assert.equal("<Lock locked waiters=0>", tostring(lock))
  end)

  it("is not waited for by a task that was cancelled before its first step", function()
    local lock = agather.Lock()
    lock:acquire()
    local task = agather.spawn(lock.acquire, lock)
    task:cancel()
    assert_cancelled(task)
    lock:release()
    assert.is_false(lock:locked())
  end)

  it("is not left to a task that cancelled itself before it waits", function()
    local lock = agather.Lock()
    lock:acquire()
    local task = agather.spawn(function()
      agather.current_task():cancel()
      lock:acquire()
    end)
    local other = start(lock.acquire, lock)
    lock:release()
    assert_cancelled(task)
    other:await()
    assert.is_true(lock:locked())
  end)

  it("is given to a task that cancelled itself when it need not wait", function()
    local lock, taken = agather.Lock(), false
    local task = agather.spawn(function()
      agather.current_task():cancel()
      lock:acquire()
      taken = true
      lock:release()
      agather.sleep(0)
    end)
    assert_cancelled(task)
    assert.is_true(taken)
  end)

  it("lets a waiter that caught its cancellation wait again, behind the others", function()
    local lock, log = agather.Lock(), {}
    lock:acquire()
    local stubborn = agather.spawn(function()
      fails_with(agather.CancelledError, lock.acquire, lock)
      lock:acquire()
      log[#log + 1] = "stubborn"
      lock:release()
    end)
    local patient = start(function()
      lock:acquire()
      log[#log + 1] = "patient"
      lock:release()
    end)
    stubborn:cancel()
    agather.sleep(0)
    lock:release()
    agather.gather(stubborn, patient):await()
    assert.same({ "patient", "stubborn" }, log)
  end)

  it("may be waited for with a timeout", function()
    local lock = agather.Lock()
    lock:acquire()
    fails_with(agather.TimeoutError, function()
      local _ <close> = agather.timeout(3)
      lock:acquire()
    end)
    assert.equal(3, now())
    assert.equal("<Lock locked waiters=0>", tostring(lock))
    lock:release()
    local _ <close> = agather.timeout(3)
    lock:acquire()
  end)

  it("is released at the end of a scope", function()
    local lock = agather.Lock()
    do
      local held <close> = lock:acquire()
      assert.equal(lock, held)
      assert.is_true(lock:locked())
    end
    assert.is_false(lock:locked())
  end)

  it("is released by an error and by a return", function()
    local lock = agather.Lock()
    raises("oops", function()
      local _ <close> = lock:acquire()
      error("oops")
    end)
    assert.is_false(lock:locked())
    local function inside()
      local _ <close> = lock:acquire()
      return lock:locked()
    end
    assert.is_true(inside())
    assert.is_false(lock:locked())
  end)

  it("is released by a cancellation of its holder", function()
    local lock = agather.Lock()
    local task = start(function()
      local _ <close> = lock:acquire()
      agather.sleep(100)
    end)
    assert.is_true(lock:locked())
    task:cancel()
    assert_cancelled(task)
    assert.is_false(lock:locked())
  end)

  it("is not released by the scope of a task whose wait was cancelled", function()
    local lock = agather.Lock()
    lock:acquire()
    local task = start(function() local _ <close> = lock:acquire() end)
    task:cancel()
    assert_cancelled(task)
    assert.is_true(lock:locked())
  end)

  it("is not released a second time at the end of a scope", function()
    local lock = agather.Lock()
    do
      local _ <close> = lock:acquire()
      lock:release()
    end
    assert.is_false(lock:locked())
  end)

  it("is not taken from its next holder at the end of a scope that released it by hand", function()
    local lock = agather.Lock()
    local other
    do
      local _ <close> = lock:acquire()
      other = start(lock.acquire, lock)
      lock:release()
      other:await()
      assert.is_true(lock:locked())
    end
    assert.is_true(lock:locked())
  end)

  it("is held by each scope of a loop in turn", function()
    local lock, log = agather.Lock(), {}
    local function worker(name)
      for i = 1, 2 do
        local _ <close> = lock:acquire()
        log[#log + 1] = name .. i
        agather.sleep(1)
      end
    end
    agather.gather(function() worker("a") end, function() worker("b") end):await()
    assert.same({ "a1", "b1", "a2", "b2" }, log)
    assert.equal(4, now())
  end)

  it("may be released by another task than its holder", function()
    local lock = agather.Lock()
    lock:acquire()
    agather.spawn(function() lock:release() end):await()
    assert.is_false(lock:locked())
  end)

  it("may be released by a callback of the loop", function()
    local lock = agather.Lock()
    lock:acquire()
    local task = start(lock.acquire, lock)
    agather.get_running_loop():call_later(2, lock.release, lock)
    task:await()
    assert.equal(2, now())
  end)

  it("does not break under collection of garbage while tasks wait", function()
    local lock, sum = agather.Lock(), 0
    local calls = {}
    for i = 1, 50 do
      calls[i] = function()
        local _ <close> = lock:acquire()
        collectgarbage("step")
        agather.sleep(0)
        collectgarbage("step")
        sum = sum + i
      end
    end
    local all = agather.gather_list(calls)
    for _ = 1, 20 do
      agather.sleep(0)
      collectgarbage()
    end
    all:await()
    assert.equal(1275, sum)
  end)

  it("lives while a task waits for it that nobody else knows", function()
    local weak = setmetatable({}, { __mode = "v" })
    local task = agather.spawn(function()
      local lock = agather.Lock()
      weak.lock = lock
      lock:acquire()
      agather.spawn(function()
        agather.sleep(5)
        collectgarbage()
        weak.lock:release()
      end)
      lock:acquire()
      return lock:locked()
    end)
    agather.sleep(1)
    collectgarbage()
    collectgarbage()
    assert.is_true(task:await())
    assert.equal(5, now())
  end)

  plain_it("serves one loop after another", function()
    local lock, log = agather.Lock(), {}
    for round = 1, 2 do
      support.virtual(function()
        local function work(i)
          local _ <close> = lock:acquire()
          agather.sleep(1)
          log[#log + 1] = round .. "." .. i
        end
        agather.gather(function() work(1) end, function() work(2) end):await()
      end)
      collectgarbage()
    end
    assert.same({ "1.1", "1.2", "2.1", "2.2" }, log)
  end)

  plain_it("is not kept by a loop that ended while tasks held it and waited for it", function()
    local lock = agather.Lock()
    support.virtual(function()
      local function hold()
        local _ <close> = lock:acquire()
        agather.sleep(100)
      end
      for _ = 1, 3 do start(hold) end
      assert.equal("<Lock locked waiters=2>", tostring(lock))
    end)
    assert.equal("<Lock unlocked waiters=0>", tostring(lock))
    assert.is_false(lock:locked())
    collectgarbage()
    support.virtual(function()
      local _ <close> = lock:acquire()
      assert.is_true(lock:locked())
    end)
  end)

  plain_it("shows in the report of a deadlock", function()
    local lock = agather.Lock()
    local err = raises("deadlock", support.virtual, function()
      lock:acquire()
      lock:acquire()
    end)
    assert.truthy(tostring(err):find("wait_for=<Lock>", 1, true))
  end)
end)

describe("event", function()
  plain_it("is clear when it is new", function()
    assert.is_false(agather.Event():is_set())
  end)

  plain_it("is set and cleared without a loop", function()
    local event = agather.Event()
    event:set()
    assert.is_true(event:is_set())
    event:set()
    assert.is_true(event:wait())
    event:clear()
    assert.is_false(event:is_set())
    event:clear()
    raises("Event.wait: no running task", event.wait, event)
  end)

  it("names what was given in its place", function()
    local event = agather.Event()
    raises("Event expected, got Lock", event.wait, agather.Lock())
    raises("Event expected, got nil", event.set, nil)
    raises("Event expected, got string", event.clear, "x")
    raises("Event expected, got boolean", event.is_set, true)
  end)

  it("is no closing value", function()
    raises("non-closable", function() local _ <close> = agather.Event() end)
  end)

  it("wakes all who wait, in the order in which they came", function()
    local event, log, tasks = agather.Event(), {}, {}
    for i = 1, 3 do
      tasks[i] = agather.spawn(function()
        local result = event:wait()
        log[#log + 1] = i
        return result
      end)
    end
    agather.sleep(0)
    assert.equal("<Event unset waiters=3>", tostring(event))
    assert.same({}, log)
    event:set()
    assert.same({}, log)
    agather.sleep(0)
    assert.same({ 1, 2, 3 }, log)
    for i = 1, 3 do assert.is_true(tasks[i]:await()) end
    assert.equal("<Event set waiters=0>", tostring(event))
  end)

  it("takes no turn of the loop when it is set", function()
    local event, log = agather.Event(), {}
    event:set()
    agather.spawn(function() log[#log + 1] = "other" end)
    assert.is_true(event:wait())
    log[#log + 1] = "waited"
    agather.sleep(0)
    assert.same({ "waited", "other" }, log)
  end)

  it("wakes who waited when it is set and cleared at once", function()
    local event = agather.Event()
    local task = start(event.wait, event)
    event:set()
    event:clear()
    assert.is_true(task:await())
    assert.is_false(event:is_set())
  end)

  it("makes tasks wait again after it was cleared", function()
    local event = agather.Event()
    event:set()
    event:clear()
    local task = start(event.wait, event)
    turns(3)
    assert.is_false(task:done())
    event:set()
    assert.is_true(task:await())
  end)

  it("goes on without a waiter that was cancelled", function()
    local event = agather.Event()
    local first, second = agather.spawn(event.wait, event), start(event.wait, event)
    first:cancel()
    assert_cancelled(first)
    assert.equal("<Event unset waiters=1>", tostring(event))
    event:set()
    assert.is_true(second:await())
  end)

  it("does not save a task that is cancelled in the iteration in which it is set", function()
    local event = agather.Event()
    local first, second, third = agather.spawn(event.wait, event), agather.spawn(event.wait, event),
      start(event.wait, event)
    first:cancel()
    event:set()
    second:cancel()
    assert.is_true(third:await())
    assert.is_true(first:cancelled())
    assert.is_true(second:cancelled())
  end)

  it("lets a task that cancelled itself stop at the next wait", function()
    local event = agather.Event()
    local task = agather.spawn(function()
      agather.current_task():cancel()
      event:wait()
    end)
    assert_cancelled(task)
    assert.equal("<Event unset waiters=0>", tostring(event))
  end)

  it("may be waited for with a timeout", function()
    local event = agather.Event()
    fails_with(agather.TimeoutError, agather.wait_for, function() event:wait() end, 2)
    assert.equal(2, now())
    assert.equal("<Event unset waiters=0>", tostring(event))
    agather.get_running_loop():call_later(1, event.set, event)
    assert.is_true(agather.wait_for(function() return event:wait() end, 2))
    assert.equal(3, now())
  end)

  it("does not break under collection of garbage while tasks wait", function()
    local event, tasks = agather.Event(), {}
    for i = 1, 50 do
      tasks[i] = agather.spawn(event.wait, event)
      agather.sleep(0)
      collectgarbage("step")
    end
    for i = 1, 50, 2 do tasks[i]:cancel() end
    collectgarbage()
    event:set()
    collectgarbage()
    for i = 1, 50 do
      agather.sleep(0)
      collectgarbage("step")
      assert.equal(i % 2 == 1, tasks[i]:cancelled())
    end
  end)

  plain_it("serves one loop after another", function()
    local event = agather.Event()
    for _ = 1, 2 do
      support.virtual(function()
        agather.get_running_loop():call_later(1, event.set, event)
        assert.is_true(event:wait())
        event:clear()
        agather.spawn(event.wait, event)
        agather.sleep(0)
      end)
      assert.equal("<Event unset waiters=0>", tostring(event))
      collectgarbage()
    end
  end)
end)

describe("condition", function()
  -- Takes the condition's lock, waits until it is notified, says so and leaves.
  local function waiter(condition, log, name)
    local _ <close> = condition:acquire()
    local result = condition:wait()
    log[#log + 1] = name
    return result
  end

  local function notify(condition, n)
    local _ <close> = condition:acquire()
    condition:notify(n)
  end

  plain_it("has a lock of its own, free at first", function()
    local condition = agather.Condition()
    assert.is_false(condition:locked())
    assert.equal(condition, condition:acquire())
    assert.is_true(condition:locked())
    condition:release()
    assert.is_false(condition:locked())
  end)

  plain_it("shares the lock that it was given", function()
    local lock = agather.Lock()
    local condition = agather.Condition(lock)
    condition:acquire()
    assert.is_true(lock:locked())
    lock:release()
    assert.is_false(condition:locked())
    lock:acquire()
    assert.is_true(condition:locked())
    condition:release()
    assert.is_false(lock:locked())
  end)

  plain_it("takes nothing but a lock", function()
    raises("Lock expected, got number", agather.Condition, 5)
    raises("Lock expected, got Event", agather.Condition, agather.Event())
    raises("Lock expected, got table", agather.Condition, {})
    raises("Lock expected, got Condition", agather.Condition, agather.Condition())
  end)

  plain_it("tells that waiting takes a task", function()
    local condition = agather.Condition()
    condition:acquire()
    raises("Condition.acquire: no running task", condition.acquire, condition)
    raises("Condition.wait: no running task", condition.wait, condition)
    assert.is_true(condition:locked())
  end)

  it("wants its lock to be held for wait and notify", function()
    local condition = agather.Condition()
    raises("cannot wait on un-acquired lock", condition.wait, condition)
    raises("cannot notify on un-acquired lock", condition.notify, condition)
    raises("cannot notify on un-acquired lock", condition.notify_all, condition)
    raises("Lock is not acquired.", condition.release, condition)
    assert.is_false(condition:locked())
  end)

  it("names what was given in its place", function()
    local condition = agather.Condition()
    for _, method in ipairs { "acquire", "release", "locked", "wait", "notify", "notify_all" } do
      raises("Condition expected, got Lock", condition[method], agather.Lock())
    end
  end)

  it("wants a number of tasks to notify", function()
    local condition = agather.Condition()
    local _ <close> = condition:acquire()
    raises("number expected, got string", condition.notify, condition, "many")
    raises("number has no integer representation", condition.notify, condition, 1.5)
  end)

  it("gives its lock back while it waits", function()
    local condition, log = agather.Condition(), {}
    local task = start(waiter, condition, log, 1)
    assert.is_false(condition:locked())
    assert.equal("<Condition unlocked waiters=1>", tostring(condition))
    notify(condition)
    assert.is_true(task:await())
    assert.is_false(condition:locked())
    assert.equal("<Condition unlocked waiters=0>", tostring(condition))
  end)

  it("holds its lock again when wait returns", function()
    local condition = agather.Condition()
    local task = start(function()
      condition:acquire()
      condition:wait()
      return condition:locked()
    end)
    notify(condition)
    assert.is_true(task:await())
    assert.is_true(condition:locked())
  end)

  it("lets a notified task wait for the lock", function()
    local condition, log = agather.Condition(), {}
    local tasks = {}
    for i = 1, 3 do tasks[i] = agather.spawn(function()
      condition:acquire()
      condition:wait()
      log[#log + 1] = i
    end) end
    agather.sleep(0)
    condition:acquire()
    condition:notify()
    agather.sleep(0)
    assert.same({}, log)
    condition:release()
    agather.sleep(0)
    assert.same({ 1 }, log)
    assert.is_true(condition:locked())
    condition:notify(2)
    agather.sleep(0)
    assert.same({ 1 }, log)
    condition:release()
    agather.sleep(0)
    assert.same({ 1, 2 }, log)
    condition:release()
    agather.sleep(0)
    assert.same({ 1, 2, 3 }, log)
    agather.gather_list(tasks):await()
  end)

  it("notifies one task unless told otherwise", function()
    local condition, log = agather.Condition(), {}
    local tasks = {}
    for i = 1, 3 do tasks[i] = agather.spawn(waiter, condition, log, i) end
    agather.sleep(0)
    notify(condition)
    turns(3)
    assert.same({ 1 }, log)
    notify(condition, 1)
    turns(3)
    assert.same({ 1, 2 }, log)
    notify(condition, 2048)
    agather.gather_list(tasks):await()
    assert.same({ 1, 2, 3 }, log)
  end)

  it("notifies none, with no, a zero and a negative number of tasks", function()
    local condition, log = agather.Condition(), {}
    notify(condition)
    local task = start(waiter, condition, log, 1)
    notify(condition, 0)
    notify(condition, -5)
    turns(3)
    assert.is_false(task:done())
    notify(condition)
    task:await()
  end)

  it("does not notify a task twice", function()
    local condition, log = agather.Condition(), {}
    local first, second = agather.spawn(waiter, condition, log, 1), start(waiter, condition, log, 2)
    do
      local _ <close> = condition:acquire()
      condition:notify()
      condition:notify()
    end
    agather.gather(first, second):await()
    assert.same({ 1, 2 }, log)
  end)

  it("notifies all", function()
    local condition, log, tasks = agather.Condition(), {}, {}
    for i = 1, 5 do tasks[i] = agather.spawn(waiter, condition, log, i) end
    agather.sleep(0)
    do
      local _ <close> = condition:acquire()
      condition:notify_all()
    end
    agather.gather_list(tasks):await()
    assert.same({ 1, 2, 3, 4, 5 }, log)
    assert.is_false(condition:locked())
  end)

  it("may be notified by another task than the one that holds the lock", function()
    local condition, log = agather.Condition(), {}
    local task = start(waiter, condition, log, 1)
    condition:acquire()
    agather.spawn(condition.notify, condition):await()
    condition:release()
    task:await()
    assert.same({ 1 }, log)
  end)

  it("holds its lock when its wait is cancelled", function()
    local condition = agather.Condition()
    condition:acquire()
    local task = start(condition.wait, condition)
    assert.is_false(condition:locked())
    task:cancel()
    assert_cancelled(task)
    assert.is_true(condition:locked())
    assert.equal("<Condition locked waiters=0>", tostring(condition))
  end)

  it("waits for its lock even when its wait is cancelled", function()
    local condition = agather.Condition()
    local task = start(function()
      local _ <close> = condition:acquire()
      condition:wait()
    end)
    condition:acquire()
    task:cancel()
    turns(5)
    assert.is_false(task:done())
    condition:release()
    assert_cancelled(task)
    assert.is_false(condition:locked())
  end)

  it("raises the cancellation that came while it waited for the lock, once it holds it", function()
    local condition = agather.Condition()
    local held
    local task = start(function()
      local _ <close> = condition:acquire()
      local _ <close> = closing(function() held = condition:locked() end)
      condition:wait()
    end)
    condition:acquire()
    condition:notify()
    agather.sleep(0)
    task:cancel()
    agather.sleep(0)
    assert.is_false(task:done())
    condition:release()
    assert_cancelled(task)
    assert.is_true(held)
    assert.is_false(condition:locked())
  end)

  it("raises the last of several cancellations", function()
    local condition = agather.Condition()
    local task = start(function()
      local _ <close> = condition:acquire()
      condition:wait()
    end)
    condition:acquire()
    for i = 1, 3 do
      task:cancel("number " .. i)
      turns(2)
    end
    condition:release()
    assert.truthy(tostring(fails_with(agather.CancelledError, task.await, task)):find("number 3", 1, true))
  end)

  it("raises the very cancellation that it got", function()
    local condition = agather.Condition()
    local raised
    local task = start(function()
      local _ <close> = condition:acquire()
      raised = fails_with(agather.CancelledError, condition.wait, condition)
      error(raised, 0)
    end)
    task:cancel("why")
    local err = fails_with(agather.CancelledError, task.await, task)
    assert.truthy(tostring(raised):find("why", 1, true))
    assert.equal(raised, err)
  end)

  it("takes its lock without a wait when nobody holds it", function()
    local condition = agather.Condition()
    local task = start(function()
      condition:acquire()
      condition:wait()
    end)
    condition:acquire()
    condition:notify()
    local loop = agather.get_running_loop()
    loop:call_soon(task.cancel, task)
    loop:call_soon(condition.release, condition)
    pcall(task.await, task)
    assert.is_true(condition:locked())
  end)

  -- Two consumers wait for an item; the first is notified and cancelled: the second must get it.
  local function consumers(condition, state)
    local function consume()
      local _ <close> = condition:acquire()
      while true do
        while state.items == 0 do condition:wait() end
        if state.items < 0 then return end
        state.items = state.items - 1
      end
    end
    return agather.spawn(consume), start(consume)
  end

  local function assert_item_taken(condition, state, first, second)
    pcall(function()
      local _ <close> = agather.timeout(1)
      while state.items > 0 do condition:wait() end
    end)
    assert.equal(0, state.items)
    state.items = -1
    condition:notify_all()
    condition:release()
    second:await()
    assert.is_true(first:cancelled())
  end

  it("hands its notification on when the notified task is cancelled in the same iteration", function()
    local condition, state = agather.Condition(), { items = 0 }
    local first, second = consumers(condition, state)
    condition:acquire()
    state.items = 1
    condition:notify(1)
    first:cancel()
    assert_item_taken(condition, state, first, second)
  end)

  it("hands its notification on when the notified task is cancelled while it waits for the lock", function()
    local condition, state = agather.Condition(), { items = 0 }
    local first, second = consumers(condition, state)
    condition:acquire()
    state.items = 1
    condition:notify(1)
    agather.sleep(0)
    first:cancel()
    assert_item_taken(condition, state, first, second)
  end)

  it("hands its notification on when the lock and a cancellation come in one iteration", function()
    local condition, log = agather.Condition(), {}
    local first, second = agather.spawn(waiter, condition, log, 1), start(waiter, condition, log, 2)
    condition:acquire()
    condition:notify()
    agather.sleep(0)
    condition:release()
    first:cancel()
    assert_cancelled(first)
    second:await()
    assert.same({ 2 }, log)
  end)

  it("gives its lock to the next when a notified task is cancelled that was to have it", function()
    local condition, log = agather.Condition(), {}
    local notified = start(waiter, condition, log, "notified")
    condition:acquire()
    condition:notify()
    agather.sleep(0)
    local other = start(function()
      local _ <close> = condition:acquire()
      log[#log + 1] = "other"
    end)
    condition:release()
    notified:cancel()
    assert_cancelled(notified)
    other:await()
    assert.same({ "other" }, log)
    assert.is_false(condition:locked())
  end)

  it("notifies nobody else when a task is cancelled that was not notified", function()
    local condition, log = agather.Condition(), {}
    local first, second = agather.spawn(waiter, condition, log, 1), start(waiter, condition, log, 2)
    first:cancel()
    assert_cancelled(first)
    turns(3)
    assert.same({}, log)
    notify(condition)
    second:await()
  end)

  it("passes over a waiter that was cancelled just before", function()
    local condition, log = agather.Condition(), {}
    local first, second = agather.spawn(waiter, condition, log, 1), start(waiter, condition, log, 2)
    condition:acquire()
    first:cancel()
    condition:notify()
    condition:release()
    assert_cancelled(first)
    second:await()
    assert.same({ 2 }, log)
  end)

  it("gives its lock to the next when a task is cancelled that waits in acquire", function()
    local condition = agather.Condition()
    condition:acquire()
    local first, second = agather.spawn(condition.acquire, condition), start(condition.acquire, condition)
    condition:release()
    first:cancel()
    assert_cancelled(first)
    second:await()
    assert.is_true(condition:locked())
  end)

  it("may be waited for with a timeout", function()
    local condition = agather.Condition()
    local _ <close> = condition:acquire()
    fails_with(agather.TimeoutError, function()
      local _ <close> = agather.timeout(0.5)
      condition:wait()
    end)
    assert.equal(0.5, now())
    assert.is_true(condition:locked())
  end)

  it("is released at the end of a scope, by an error too", function()
    local condition = agather.Condition()
    do
      local held <close> = condition:acquire()
      assert.equal(condition, held)
    end
    assert.is_false(condition:locked())
    raises("oops", function()
      local _ <close> = condition:acquire()
      error("oops")
    end)
    assert.is_false(condition:locked())
  end)

  it("is not taken from its next holder at the end of a scope that released it by hand", function()
    local condition = agather.Condition()
    do
      local _ <close> = condition:acquire()
      local other = start(condition.acquire, condition)
      condition:release()
      other:await()
    end
    assert.is_true(condition:locked())
    condition:release()
    do
      local _ <close> = condition:acquire()
      condition:release()
    end
    assert.is_false(condition:locked())
  end)

  it("is released by the scope of a task that waited meanwhile", function()
    local condition, log = agather.Condition(), {}
    local tasks = {}
    for i = 1, 3 do tasks[i] = agather.spawn(waiter, condition, log, i) end
    agather.sleep(0)
    notify(condition, 3)
    agather.gather_list(tasks):await()
    assert.is_false(condition:locked())
  end)

  it("shares one lock with another condition", function()
    local lock, log = agather.Lock(), {}
    local full, free = agather.Condition(lock), agather.Condition(lock)
    local box
    local consumer = agather.spawn(function()
      for _ = 1, 3 do
        local _ <close> = lock:acquire()
        while box == nil do full:wait() end
        log[#log + 1] = box
        box = nil
        free:notify()
      end
    end)
    for i = 1, 3 do
      local _ <close> = lock:acquire()
      while box ~= nil do free:wait() end
      box = i
      full:notify()
    end
    consumer:await()
    assert.same({ 1, 2, 3 }, log)
    assert.is_false(lock:locked())
  end)

  it("lives, with its lock, while a task waits for it that nobody else knows", function()
    local weak = setmetatable({}, { __mode = "v" })
    local task = agather.spawn(function()
      local condition = agather.Condition(agather.Lock())
      weak.condition = condition
      agather.get_running_loop():call_later(5, function()
        collectgarbage()
        weak.condition:acquire()
        weak.condition:notify()
        weak.condition:release()
      end)
      local _ <close> = condition:acquire()
      return condition:wait()
    end)
    agather.sleep(1)
    collectgarbage()
    collectgarbage()
    assert.is_true(task:await())
    assert.equal(5, now())
  end)

  it("does not break under collection of garbage while tasks wait", function()
    local condition, log, tasks = agather.Condition(), {}, {}
    for i = 1, 30 do
      tasks[i] = agather.spawn(waiter, condition, log, i)
      agather.sleep(0)
      collectgarbage("step")
    end
    for i = 3, 30, 3 do tasks[i]:cancel() end
    for _ = 1, 20 do
      collectgarbage()
      notify(condition)
      agather.sleep(0)
    end
    for i = 1, 30 do
      collectgarbage("step")
      pcall(tasks[i].await, tasks[i])
    end
    assert.equal(20, #log)
  end)

  plain_it("serves one loop after another", function()
    local condition, log = agather.Condition(), {}
    for round = 1, 2 do
      support.virtual(function()
        local task = start(waiter, condition, log, round)
        start(waiter, condition, log, "never")
        notify(condition)
        task:await()
      end)
      assert.equal("<Condition unlocked waiters=0>", tostring(condition))
      assert.is_false(condition:locked())
      collectgarbage()
    end
    assert.same({ 1, 2 }, log)
  end)
end)

describe("semaphore", function()
  plain_it("has one place unless told otherwise", function()
    local semaphore = agather.Semaphore()
    assert.is_false(semaphore:locked())
    assert.equal(semaphore, semaphore:acquire())
    assert.is_true(semaphore:locked())
    semaphore:release()
    assert.is_false(semaphore:locked())
  end)

  plain_it("may have no place at first", function()
    local semaphore = agather.Semaphore(0)
    assert.is_true(semaphore:locked())
    semaphore:release()
    assert.is_false(semaphore:locked())
  end)

  plain_it("takes a whole number that is not negative", function()
    for _, make in ipairs { agather.Semaphore, agather.BoundedSemaphore } do
      raises("initial value must not be negative, got -1", make, -1)
      raises("number has no integer representation", make, 1.5)
      raises("number expected, got string", make, "many")
    end
  end)

  plain_it("tells that waiting takes a task", function()
    raises("Semaphore.acquire: no running task", agather.Semaphore(0).acquire, agather.Semaphore(0))
  end)

  it("names what was given in its place", function()
    local semaphore, bounded = agather.Semaphore(), agather.BoundedSemaphore()
    raises("Semaphore expected, got Lock", semaphore.acquire, agather.Lock())
    raises("Semaphore expected, got nil", semaphore.release, nil)
    raises("Semaphore expected, got number", semaphore.locked, 1)
    raises("BoundedSemaphore expected, got string", bounded.acquire, "x")
  end)

  it("has as many places as it was given", function()
    local semaphore = agather.Semaphore(3)
    semaphore:acquire()
    semaphore:acquire()
    assert.is_false(semaphore:locked())
    semaphore:acquire()
    assert.is_true(semaphore:locked())
    local task = start(semaphore.acquire, semaphore)
    assert.equal("<Semaphore value=0 waiters=1>", tostring(semaphore))
    turns(3)
    assert.is_false(task:done())
    semaphore:release()
    assert.equal(semaphore, task:await())
    assert.is_true(semaphore:locked())
  end)

  it("lets as many in at once as it has places", function()
    local semaphore, inside, most = agather.Semaphore(3), 0, 0
    local calls = {}
    for i = 1, 20 do
      calls[i] = function()
        local _ <close> = semaphore:acquire()
        inside = inside + 1
        most = math.max(most, inside)
        agather.sleep(1)
        collectgarbage("step")
        inside = inside - 1
      end
    end
    agather.gather_list(calls):await()
    assert.equal(3, most)
    assert.equal(7, now())
    assert.is_false(semaphore:locked())
  end)

  it("wakes one task for each release", function()
    local semaphore, log, tasks = agather.Semaphore(3), {}, {}
    semaphore:acquire()
    semaphore:acquire()
    for i = 1, 4 do
      tasks[i] = agather.spawn(function()
        semaphore:acquire()
        log[#log + 1] = i
      end)
    end
    agather.sleep(0)
    assert.same({ 1 }, log)
    semaphore:release()
    semaphore:release()
    agather.sleep(0)
    assert.same({ 1, 2, 3 }, log)
    assert.is_true(semaphore:locked())
    semaphore:release()
    agather.gather_list(tasks):await()
    assert.same({ 1, 2, 3, 4 }, log)
  end)

  it("is first come, first served when tasks come again", function()
    local semaphore, log = agather.Semaphore(1), {}
    local function work(name)
      for i = 1, 2 do
        semaphore:acquire()
        log[#log + 1] = name .. i
        agather.sleep(0.01)
        semaphore:release()
      end
    end
    agather.gather(function() work("a") end, function() work("b") end, function() work("c") end):await()
    assert.same({ "a1", "b1", "c1", "a2", "b2", "c2" }, log)
  end)

  it("does not let a task that released it overtake the one that it woke", function()
    local semaphore, log = agather.Semaphore(1), {}
    local function say(what) log[#log + 1] = what end
    local tasks = {
      agather.spawn(function()
        semaphore:acquire()
        say(1)
      end),
      agather.spawn(function()
        semaphore:acquire()
        say(2)
        semaphore:release()
        semaphore:acquire()
        say(4)
      end),
      agather.spawn(function()
        semaphore:acquire()
        say(3)
      end),
    }
    agather.sleep(0)
    semaphore:release()
    semaphore:release()
    agather.gather_list(tasks):await()
    assert.same({ 1, 2, 3, 4 }, log)
  end)

  it("is locked for newcomers while a woken task has not run", function()
    local semaphore, log = agather.Semaphore(0), {}
    local first = start(function()
      semaphore:acquire()
      log[#log + 1] = "first"
    end)
    semaphore:release()
    semaphore:release()
    assert.is_true(semaphore:locked())
    semaphore:acquire()
    log[#log + 1] = "second"
    first:await()
    assert.same({ "first", "second" }, log)
    assert.is_true(semaphore:locked())
  end)

  it("wakes tasks that had to queue although there were places", function()
    local semaphore, log = agather.Semaphore(0), {}
    local function take(name)
      semaphore:acquire()
      log[#log + 1] = name
    end
    local tasks = { agather.spawn(take, 1), nil, nil }
    tasks[2] = agather.spawn(function()
      for _ = 1, 3 do semaphore:release() end
      assert.is_true(semaphore:locked())
      take(2)
    end)
    tasks[3] = agather.spawn(take, 3)
    agather.gather_list(tasks):await()
    assert.same({ 1, 2, 3 }, log)
    assert.is_true(semaphore:locked())
  end)

  it("passes over a waiter that was cancelled just before the release", function()
    local semaphore, tasks = agather.Semaphore(0), {}
    for i = 1, 4 do tasks[i] = agather.spawn(semaphore.acquire, semaphore) end
    agather.sleep(0)
    tasks[1]:cancel()
    tasks[2]:cancel()
    semaphore:release()
    turns(2)
    assert.is_true(tasks[1]:cancelled())
    assert.is_true(tasks[2]:cancelled())
    assert.is_true(tasks[3]:done())
    assert.is_false(tasks[4]:done())
    tasks[4]:cancel()
  end)

  it("passes the place on when the task that it woke is cancelled in the same iteration", function()
    local semaphore = agather.Semaphore(0)
    local first, second = agather.spawn(semaphore.acquire, semaphore), start(semaphore.acquire, semaphore)
    semaphore:release()
    first:cancel()
    assert_cancelled(first)
    second:await()
    assert.is_true(semaphore:locked())
    assert.equal("<Semaphore value=0 waiters=0>", tostring(semaphore))
  end)

  it("passes places on along a row of tasks that are all cancelled", function()
    local semaphore, tasks = agather.Semaphore(0), {}
    for i = 1, 10 do tasks[i] = agather.spawn(semaphore.acquire, semaphore) end
    agather.sleep(0)
    semaphore:release()
    semaphore:release()
    for i = 1, 8 do tasks[i]:cancel() end
    agather.gather(tasks[9], tasks[10]):await()
    assert.is_true(semaphore:locked())
  end)

  it("has its place back when the only task that it woke is cancelled", function()
    local semaphore = agather.Semaphore(0)
    local task = start(semaphore.acquire, semaphore)
    semaphore:release()
    task:cancel()
    assert_cancelled(task)
    assert.is_false(semaphore:locked())
    semaphore:acquire()
  end)

  it("loses no place to a waiter that was cancelled", function()
    local semaphore = agather.Semaphore(1)
    semaphore:acquire()
    local task = start(semaphore.acquire, semaphore)
    task:cancel()
    assert_cancelled(task)
    assert.is_true(semaphore:locked())
    semaphore:release()
    assert.is_false(semaphore:locked())
  end)

  it("is not locked by a waiter whose cancellation has not reached it yet", function()
    local semaphore = agather.Semaphore(0)
    local task = start(semaphore.acquire, semaphore)
    task:cancel()
    semaphore:release()
    assert.is_false(semaphore:locked())
    semaphore:acquire()
    assert_cancelled(task)
    assert.is_true(semaphore:locked())
  end)

  it("is free again when its holder cancels the one that it woke", function()
    local semaphore = agather.Semaphore(1)
    local second
    local first = agather.spawn(function()
      do
        local _ <close> = semaphore:acquire()
        agather.sleep(0)
      end
      second:cancel()
    end)
    second = agather.spawn(function()
      local _ <close> = semaphore:acquire()
      error("never reached")
    end)
    first:await()
    assert_cancelled(second)
    agather.wait_for(function() semaphore:acquire() end, 1)
  end)

  it("lets a task that cancelled itself stop at the next wait", function()
    local semaphore = agather.Semaphore(0)
    local task = agather.spawn(function()
      agather.current_task():cancel()
      semaphore:acquire()
    end)
    assert_cancelled(task)
    semaphore:release()
    assert.is_false(semaphore:locked())
  end)

  it("may be waited for with a timeout", function()
    local semaphore = agather.Semaphore(0)
    fails_with(agather.TimeoutError, agather.wait_for, function() semaphore:acquire() end, 2)
    assert.equal(2, now())
    semaphore:release()
    assert.is_false(semaphore:locked())
  end)

  it("gives its place back at the end of a scope, by an error or a cancellation too", function()
    local semaphore = agather.Semaphore(1)
    do
      local held <close> = semaphore:acquire()
      assert.equal(semaphore, held)
      assert.is_true(semaphore:locked())
    end
    assert.is_false(semaphore:locked())
    raises("oops", function()
      local _ <close> = semaphore:acquire()
      error("oops")
    end)
    assert.is_false(semaphore:locked())
    local task = start(function()
      local _ <close> = semaphore:acquire()
      agather.sleep(100)
    end)
    task:cancel()
    assert_cancelled(task)
    assert.is_false(semaphore:locked())
  end)

  it("keeps its places when a wait in a scope is cancelled", function()
    local semaphore = agather.BoundedSemaphore(1)
    semaphore:acquire()
    local task = start(function() local _ <close> = semaphore:acquire() end)
    task:cancel()
    assert_cancelled(task)
    assert.is_true(semaphore:locked())
  end)

  it("may be released more often than it was acquired", function()
    local semaphore = agather.Semaphore(1)
    semaphore:release()
    semaphore:acquire()
    assert.is_false(semaphore:locked())
    semaphore:acquire()
    assert.is_true(semaphore:locked())
  end)

  it("may not be released more often than it was acquired when it is bounded", function()
    local semaphore = agather.BoundedSemaphore(2)
    raises("BoundedSemaphore released too many times", semaphore.release, semaphore)
    semaphore:acquire()
    semaphore:acquire()
    assert.is_true(semaphore:locked())
    semaphore:release()
    semaphore:release()
    raises("BoundedSemaphore released too many times", semaphore.release, semaphore)
    assert.is_false(semaphore:locked())
  end)

  it("counts the places that woken and cancelled tasks had when it is bounded", function()
    local semaphore = agather.BoundedSemaphore(1)
    semaphore:acquire()
    local first, second = agather.spawn(semaphore.acquire, semaphore), start(semaphore.acquire, semaphore)
    semaphore:release()
    first:cancel()
    second:await()
    semaphore:release()
    raises("BoundedSemaphore released too many times", semaphore.release, semaphore)
    assert.is_true(first:cancelled())
    assert.equal("<BoundedSemaphore value=1 waiters=0>", tostring(semaphore))
  end)

  it("does not break under collection of garbage while tasks wait", function()
    local semaphore, tasks, taken = agather.Semaphore(0), {}, 0
    for i = 1, 40 do
      tasks[i] = agather.spawn(function()
        semaphore:acquire()
        taken = taken + 1
      end)
      agather.sleep(0)
      collectgarbage("step")
    end
    for i = 1, 40 do
      if i % 4 == 0 then tasks[i]:cancel() else semaphore:release() end
      if i % 3 == 0 then agather.sleep(0) end
      collectgarbage("step")
    end
    agather.wait(tasks)
    assert.equal(30, taken)
    assert.is_true(semaphore:locked())
  end)

  plain_it("serves one loop after another", function()
    local semaphore = agather.Semaphore(1)
    for _ = 1, 2 do
      support.virtual(function()
        local function hold(seconds)
          local _ <close> = semaphore:acquire()
          agather.sleep(seconds)
        end
        agather.gather(function() hold(1) end, function() hold(1) end):await()
        start(hold, 100)
        start(hold, 100)
        assert.is_true(semaphore:locked())
      end)
      assert.is_false(semaphore:locked())
      assert.equal("<Semaphore value=1 waiters=0>", tostring(semaphore))
      collectgarbage()
    end
  end)
end)

describe("What locks and conditions say and do", function()
  plain_it("names a missing self", function()
    support.raises("Lock expected, got no value", agather.Lock().release)
  end)
  it("Condition:wait_for waits until a function is true", function()
    local condition, ready = agather.Condition(), false
    local task = agather.spawn(function()
      local _ <close> = condition:acquire()
      return condition:wait_for(function() return ready end)
    end)
    agather.sleep(0)
    ready = "value"
    do
      local _ <close> = condition:acquire()
      condition:notify()
    end
    assert.equal("value", task:await())
  end)
end)
