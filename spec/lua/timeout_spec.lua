local agather = require "agather"
local support = require "spec.support"
local testing = require "agather.testing"

local async, closing, raises = testing.async, support.closing, support.raises

local function now() return agather.get_running_loop():time() end

-- Calls f(...), which must raise an error of this class; returns it.
local function fails_with(class, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, class), "another error: " .. tostring(err))
  return err
end

-- Runs f in a scope with a timeout of so many seconds.
local function within(seconds, f, ...)
  local _ <close> = agather.timeout(seconds)
  return f(...)
end

-- Whether the running task may go on as if nobody had ever cancelled it.
local function assert_untouched()
  assert.equal(0, agather.current_task():cancelling())
  agather.sleep(0)
  agather.sleep(1)
end

describe("timeout", function()
  it("lets a body end that is in time", async(function()
    local scope
    do
      local inner <close> = agather.timeout(10)
      scope = inner
      agather.sleep(1)
    end
    assert.equal(1, now())
    assert.is_false(scope:expired())
    assert.equal(10, scope:when())
    assert_untouched()
  end))

  it("passes on what the body returns", async(function()
    assert.same({ 1, 2, 3 }, { within(2, agather.sleep, 1, 1, 2, 3) })
  end))

  it("raises TimeoutError at the deadline", async(function()
    local scope
    fails_with(agather.TimeoutError, function()
      local inner <close> = agather.timeout(1)
      scope = inner
      agather.sleep(10)
    end)
    assert.equal(1, now())
    assert.is_true(scope:expired())
    assert_untouched()
  end))

  it("cancels the task where it waits", async(function()
    local seen
    fails_with(agather.TimeoutError, within, 1, function()
      local ok, err = pcall(agather.sleep, 10)
      seen = not ok and err
      error(err, 0)
    end)
    assert.is_true(agather.is_error(seen, agather.CancelledError))
  end))

  it("raises an error that agather.pcall catches", async(function()
    local ok, err = agather.pcall(within, 1, agather.sleep, 10)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.TimeoutError))
  end))

  it("without seconds never fires", async(function()
    local scope
    do
      local inner <close> = agather.timeout(nil)
      scope = inner
      agather.sleep(1000000)
    end
    assert.is_nil(scope:when())
    assert.is_false(scope:expired())
  end))

  it("of infinitely many seconds never fires", async(function()
    within(math.huge, agather.sleep, 1000000)
    assert.equal(1000000, now())
  end))

  it("of no time fires where the body waits first", async(function()
    local scope, started
    fails_with(agather.TimeoutError, function()
      local inner <close> = agather.timeout(0)
      scope, started = inner, true
      agather.sleep(10)
    end)
    assert.is_true(started)
    assert.equal(0, now())
    assert.is_true(scope:expired())
    assert_untouched()
  end))

  it("of no time fires at a sleep of no time", async(function()
    fails_with(agather.TimeoutError, within, 0, agather.sleep, 0)
    assert_untouched()
  end))

  it("in the past fires at a sleep of no time", async(function()
    local scope
    agather.sleep(20)
    fails_with(agather.TimeoutError, function()
      local inner <close> = agather.timeout(-11)
      scope = inner
      agather.sleep(0)
    end)
    assert.equal(9, scope:when())
    assert.equal(20, now())
  end))

  it("of no time does nothing to a body that does not wait", async(function()
    local scope
    do
      local inner <close> = agather.timeout(0)
      scope = inner
    end
    assert.is_false(scope:expired())
    assert_untouched()
  end))

  it("stops its timer when the scope is left", async(function()
    for _ = 1, 3 do within(1, agather.sleep, 0.5) end
    agather.sleep(10)
    assert.equal(11.5, now())
    assert_untouched()
  end))

  it("lets an error of the body pass, the same value", async(function()
    local scope
    local problem = { "problem" }
    local ok, err = pcall(function()
      local inner <close> = agather.timeout(1)
      scope = inner
      error(problem, 0)
    end)
    assert.is_false(ok)
    assert.equal(problem, err)
    assert.is_false(scope:expired())
    assert_untouched()
  end))

  it("lets an error of the cleanup after the deadline pass", async(function()
    local scope
    raises("broken cleanup", function()
      local inner <close> = agather.timeout(1)
      scope = inner
      local _ <close> = closing(function() error("broken cleanup", 0) end)
      agather.sleep(10)
    end)
    assert.is_true(scope:expired())
    assert_untouched()
  end))

  it("lets a TimeoutError of the body's own pass", async(function()
    local own = agather.TimeoutError("own")
    local ok, err = pcall(within, 10, error, own, 0)
    assert.is_false(ok)
    assert.equal(own, err)
  end))

  it("raises nothing when the body swallows the cancellation", async(function()
    local scope
    do
      local inner <close> = agather.timeout(1)
      scope = inner
      assert.is_false((pcall(agather.sleep, 10)))
      assert.equal(1, agather.current_task():cancelling())
      agather.sleep(1)
    end
    assert.is_true(scope:expired())
    assert.equal(2, now())
    assert_untouched()
  end))

  it("fires once", async(function()
    local cancellations = 0
    do
      local _ <close> = agather.timeout(1)
      for _ = 1, 5 do
        if not pcall(agather.sleep, 10) then cancellations = cancellations + 1 end
      end
    end
    assert.equal(1, cancellations)
    assert.equal(41, now())
  end))

  it("waits for the cleanup of the body", async(function()
    fails_with(agather.TimeoutError, within, 1, function()
      local _ <close> = closing(function() agather.sleep(5) end)
      agather.sleep(10)
    end)
    assert.equal(6, now())
  end))

  it("does not cancel its task for good", async(function()
    local task = agather.spawn(function() pcall(within, 1, agather.sleep, 10) return "went on" end)
    assert.equal("went on", task:await())
    assert.is_false(task:cancelled())
    assert.equal(0, task:cancelling())
  end))

  it("ends a task with the error where nobody catches it", async(function()
    local task = agather.spawn(within, 1, agather.sleep, 10)
    fails_with(agather.TimeoutError, task.await, task)
    assert.is_false(task:cancelled())
    assert.is_true(agather.is_error(task:exception(), agather.TimeoutError))
  end))

  it("works inside a generator that waits", async(function()
    local following = agather.coroutine.wrap(function()
      agather.coroutine.yield((pcall(within, 1, agather.sleep, 10)))
      agather.coroutine.yield(within(2, agather.sleep, 1, "in time"))
    end)
    assert.is_false(following())
    assert.equal("in time", following())
    assert.equal(2, now())
  end))

  it("touches no other task", async(function()
    local other = agather.spawn(agather.sleep, 5, "undisturbed")
    fails_with(agather.TimeoutError, within, 1, agather.sleep, 10)
    assert.equal("undisturbed", other:await())
    assert.equal(5, now())
  end))

  it("holds for each task of many", async(function()
    local list = {}
    for place = 1, 100 do list[place] = function() return (pcall(within, 50.5, agather.sleep, place)) end end
    local results = agather.gather_list(list):await()
    for place = 1, 100 do assert.equal(place <= 50, results[place]) end
    assert.equal(50.5, now())
  end))

  it("shows its state and deadline", async(function()
    local scope
    do
      local inner <close> = agather.timeout(10)
      scope = inner
      assert.equal("<Timeout active when=10.000>", tostring(scope))
      scope:reschedule(nil)
      assert.equal("<Timeout active>", tostring(scope))
    end
    assert.equal("<Timeout finished>", tostring(scope))
    pcall(function()
      local inner <close> = agather.timeout(1)
      scope = inner
      pcall(agather.sleep, 10)
      assert.equal("<Timeout expiring>", tostring(scope))
    end)
    assert.equal("<Timeout expired>", tostring(scope))
  end))

  it("says what it needs, at the line of the caller", async(function()
    raises("bad argument #1 to 'timeout' (number expected, got string)", agather.timeout, "x")
    raises("bad argument #1 to 'timeout' (number expected, got table)", agather.timeout, {})
    raises("bad argument #1 to 'timeout' (number expected, got nan)", agather.timeout, 0 / 0)
    raises("timeout_spec.lua:", function() agather.timeout("x") end)
  end))

  it("is refused outside a task", async(function()
    local problem
    agather.get_running_loop():call_soon(function() problem = select(2, pcall(agather.timeout, 1)) end)
    agather.sleep(0)
    agather.sleep(0)
    assert.is_true(agather.is_error(problem, agather.RuntimeError))
    assert.equal("timeout: use it inside a task", tostring(problem))
  end))

  it("is refused outside a loop", function()
    raises("no running event loop", agather.timeout, 1)
    raises("timeout: use it inside a task", agather.timeout, nil)
  end)
end)

describe("timeout_at", function()
  it("raises TimeoutError at that time of the loop", async(function()
    agather.sleep(5)
    local scope
    fails_with(agather.TimeoutError, function()
      local inner <close> = agather.timeout_at(7)
      scope = inner
      agather.sleep(10)
    end)
    assert.equal(7, now())
    assert.equal(7, scope:when())
    assert.is_true(scope:expired())
  end))

  it("without a time never fires", async(function()
    local scope
    do
      local inner <close> = agather.timeout_at(nil)
      scope = inner
      agather.sleep(1000)
    end
    assert.is_nil(scope:when())
    assert.is_false(scope:expired())
  end))

  it("fires at the first wait when the time has passed", async(function()
    agather.sleep(5)
    fails_with(agather.TimeoutError, function()
      local _ <close> = agather.timeout_at(2)
      agather.sleep(0)
    end)
    assert.equal(5, now())
  end))

  it("says what it needs", async(function()
    raises("bad argument #1 to 'timeout_at' (number expected, got string)", agather.timeout_at, "x")
    raises("bad argument #1 to 'timeout_at' (number expected, got nan)", agather.timeout_at, 0 / 0)
    raises("timeout_spec.lua:", function() agather.timeout_at("x") end)
  end))

  it("is refused outside a task", function()
    raises("timeout_at: use it inside a task", agather.timeout_at, 1)
  end)
end)

describe("a timeout that is rescheduled", function()
  it("fires later", async(function()
    fails_with(agather.TimeoutError, function()
      local scope <close> = agather.timeout(1)
      scope:reschedule(5)
      assert.equal(5, scope:when())
      agather.sleep(10)
    end)
    assert.equal(5, now())
  end))

  it("fires earlier", async(function()
    fails_with(agather.TimeoutError, function()
      local scope <close> = agather.timeout(100)
      scope:reschedule(2)
      agather.sleep(10)
    end)
    assert.equal(2, now())
  end))

  it("fires at once where the time has passed", async(function()
    agather.sleep(5)
    fails_with(agather.TimeoutError, function()
      local scope <close> = agather.timeout(100)
      scope:reschedule(1)
      agather.sleep(0)
    end)
    assert.equal(5, now())
  end))

  it("never fires without a time", async(function()
    local scope <close> = agather.timeout(1)
    scope:reschedule(nil)
    assert.is_nil(scope:when())
    agather.sleep(100)
    assert.is_false(scope:expired())
  end))

  it("fires where it had no time before", async(function()
    fails_with(agather.TimeoutError, function()
      local scope <close> = agather.timeout(nil)
      scope:reschedule(3)
      agather.sleep(100)
    end)
    assert.equal(3, now())
  end))

  it("may be rescheduled by another task, which may cancel the body too", async(function()
    local opened = agather.future()
    local task = agather.spawn(function()
      local scope <close> = agather.timeout(10)
      opened:set_result(scope)
      agather.sleep(50)
    end)
    local scope = opened:await()
    assert.equal(10, scope:when())
    scope:reschedule(30)
    assert.equal(30, scope:when())
    agather.sleep(20)
    scope:reschedule(nil)
    agather.sleep(20)
    assert.is_false(task:done())
    task:cancel()
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.is_false(scope:expired())
  end))

  it("goes on while something keeps moving the deadline", async(function()
    local scope
    local mover = agather.spawn(function()
      for _ = 1, 10 do
        agather.sleep(1)
        scope:reschedule(now() + 2)
      end
    end)
    fails_with(agather.TimeoutError, function()
      local inner <close> = agather.timeout(2)
      scope = inner
      agather.future():await()
    end)
    assert.equal(12, now())
    assert.is_true(mover:done())
  end))

  it("is refused once the scope has been left", async(function()
    local scope
    do
      local inner <close> = agather.timeout(10)
      scope = inner
    end
    local err = fails_with(agather.RuntimeError, scope.reschedule, scope, 20)
    assert.equal("cannot change the state of a timeout that is finished", tostring(err))
  end))

  it("is refused once it has expired", async(function()
    local scope
    pcall(function()
      local inner <close> = agather.timeout(1)
      scope = inner
      agather.sleep(10)
    end)
    local err = fails_with(agather.RuntimeError, scope.reschedule, scope, 20)
    assert.equal("cannot change the state of a timeout that is expired", tostring(err))
  end))

  it("is refused while it is expiring", async(function()
    local scope <close> = agather.timeout(1)
    fails_with(agather.CancelledError, agather.sleep, 10)
    local err = fails_with(agather.RuntimeError, scope.reschedule, scope, 20)
    assert.equal("cannot change the state of a timeout that is expiring", tostring(err))
    assert.is_true(scope:expired())
  end))

  it("needs a number, and keeps its deadline otherwise", async(function()
    local scope <close> = agather.timeout(1)
    raises("bad argument #1 to 'reschedule' (number expected, got string)", scope.reschedule, scope, "x")
    raises("bad argument #1 to 'reschedule' (number expected, got nan)", scope.reschedule, scope, 0 / 0)
    raises("timeout_spec.lua:", function() scope:reschedule("x") end)
    assert.equal(1, scope:when())
  end))
end)

describe("timeouts in each other", function()
  it("due in one tick: only the outer raises TimeoutError", async(function()
    local outer, inner, between
    fails_with(agather.TimeoutError, function()
      local first <close> = agather.timeout_at(1)
      outer = first
      local ok, err = pcall(function()
        local second <close> = agather.timeout_at(1)
        inner = second
        agather.sleep(10)
      end)
      between = err
      assert.is_false(ok)
      error(err, 0)
    end)
    assert.is_true(agather.is_error(between, agather.CancelledError))
    assert.is_true(outer:expired())
    assert.is_true(inner:expired())
    assert_untouched()
  end))

  it("due in one tick, the inner first: only the outer raises TimeoutError", async(function()
    local between
    fails_with(agather.TimeoutError, function()
      local outer <close> = agather.timeout(nil)
      local ok, err = pcall(function()
        local _ <close> = agather.timeout_at(1)
        outer:reschedule(1)
        agather.sleep(10)
      end)
      between = err
      assert.is_false(ok)
      error(err, 0)
    end)
    assert.is_true(agather.is_error(between, agather.CancelledError))
    assert_untouched()
  end))

  it("due in one tick, five of them: only the outermost raises TimeoutError", async(function()
    local seen = {}
    local function nest(depth)
      if depth == 0 then return agather.sleep(10) end
      local ok, err = pcall(within, 1, nest, depth - 1)
      assert.is_false(ok)
      seen[depth] = agather.is_error(err, agather.TimeoutError)
      error(err, 0)
    end
    fails_with(agather.TimeoutError, nest, 5)
    assert.same({ false, false, false, false, true }, seen)
    assert_untouched()
  end))

  it("of no time, both: only the outer raises TimeoutError", async(function()
    local between
    fails_with(agather.TimeoutError, within, 0, function()
      local ok, err = pcall(within, 0, agather.sleep, 10)
      assert.is_false(ok)
      between = err
      error(err, 0)
    end)
    assert.is_true(agather.is_error(between, agather.CancelledError))
    assert_untouched()
  end))

  it("the inner due first raises, and the outer goes on", async(function()
    within(5, function()
      fails_with(agather.TimeoutError, within, 1, agather.sleep, 10)
      assert.equal(1, now())
      agather.sleep(1)
    end)
    assert.equal(2, now())
    assert_untouched()
  end))

  it("the outer due first raises, and the inner lets the cancellation pass", async(function()
    local inner, between
    fails_with(agather.TimeoutError, within, 1, function()
      local ok, err = pcall(function()
        local second <close> = agather.timeout(5)
        inner = second
        agather.sleep(10)
      end)
      between = err
      assert.is_false(ok)
      error(err, 0)
    end)
    assert.equal(1, now())
    assert.is_true(agather.is_error(between, agather.CancelledError))
    assert.is_false(inner:expired())
    assert_untouched()
  end))

  it("each fire in their turn", async(function()
    fails_with(agather.TimeoutError, within, 3, function()
      fails_with(agather.TimeoutError, within, 2, function()
        fails_with(agather.TimeoutError, within, 1, agather.sleep, 10)
        assert.equal(1, now())
        agather.sleep(10)
      end)
      assert.equal(2, now())
      agather.sleep(10)
    end)
    assert.equal(3, now())
    assert_untouched()
  end))

  it("the outer interrupts the cleanup that the inner has begun", async(function()
    local cleaned
    fails_with(agather.TimeoutError, within, 2, function()
      within(1, function()
        local _ <close> = closing(function()
          agather.sleep(10)
          cleaned = true
        end)
        agather.sleep(10)
      end)
    end)
    assert.equal(2, now())
    assert.is_nil(cleaned)
    assert_untouched()
  end))
end)

describe("a timeout in cleanup", function()
  it("fires there, and the outer one raises after it", async(function()
    local cleanup
    fails_with(agather.TimeoutError, within, 1, function()
      local _ <close> = closing(function()
        cleanup = fails_with(agather.TimeoutError, within, 1, agather.sleep, 10)
      end)
      agather.sleep(10)
    end)
    assert.is_not_nil(cleanup)
    assert.equal(2, now())
    assert_untouched()
  end))

  it("lets a cleanup end that is in time", async(function()
    local cleaned
    fails_with(agather.TimeoutError, within, 1, function()
      local _ <close> = closing(function() cleaned = within(2, agather.sleep, 1, "cleaned") end)
      agather.sleep(10)
    end)
    assert.equal("cleaned", cleaned)
    assert.equal(2, now())
    assert_untouched()
  end))

  it("fires after a cancellation that was caught", async(function()
    local task = agather.spawn(function()
      fails_with(agather.CancelledError, agather.sleep, 10)
      fails_with(agather.TimeoutError, within, 0, agather.sleep, 10)
      assert.equal(1, agather.current_task():cancelling())
      return "cleaned"
    end)
    agather.sleep(1)
    task:cancel()
    assert.equal("cleaned", task:await())
  end))

  it("fires in the cleanup of a task that is being cancelled, which ends cancelled", async(function()
    local cleanup
    local task = agather.spawn(function()
      local _ <close> = closing(function() cleanup = select(2, pcall(within, 1, agather.sleep, 10)) end)
      agather.sleep(10)
    end)
    agather.sleep(1)
    task:cancel()
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(agather.is_error(cleanup, agather.TimeoutError))
    assert.is_true(task:cancelled())
    assert.equal(2, now())
  end))

  it("lets a second cancellation pass", async(function()
    local task = agather.spawn(function()
      fails_with(agather.CancelledError, agather.sleep, 10)
      fails_with(agather.CancelledError, within, 5, agather.sleep, 10)
      return agather.current_task():cancelling()
    end)
    agather.sleep(1)
    task:cancel()
    agather.sleep(1)
    task:cancel()
    assert.equal(2, task:await())
    assert.equal(2, now())
  end))
end)

describe("a cancellation from outside", function()
  it("passes through a timeout that is not due", async(function()
    local scope
    local task = agather.spawn(function()
      local inner <close> = agather.timeout(10)
      scope = inner
      agather.sleep(20)
    end)
    agather.sleep(1)
    task:cancel()
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.is_false(scope:expired())
    assert.equal(1, task:cancelling())
  end))

  it("by the body itself passes through", async(function()
    local task = agather.spawn(within, 10, function()
      agather.current_task():cancel()
      agather.sleep(20)
    end)
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.equal(0, now())
  end))

  it("keeps its message", async(function()
    local task = agather.spawn(within, 10, agather.sleep, 20)
    agather.sleep(1)
    task:cancel("enough")
    raises("enough", task.await, task)
  end))

  it("in the tick of the deadline, before it, wins", async(function()
    local scope
    local task = agather.spawn(function()
      agather.sleep(1)
      local inner <close> = agather.timeout_at(5)
      scope = inner
      agather.sleep(20)
    end)
    agather.get_running_loop():call_at(5, function() task:cancel() end)
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.is_true(scope:expired())
    assert.equal(1, task:cancelling())
    assert.equal(5, now())
  end))

  it("in the tick of the deadline, after it, wins", async(function()
    local task = agather.spawn(function()
      local _ <close> = agather.timeout_at(5)
      agather.sleep(20)
    end)
    agather.sleep(1)
    agather.get_running_loop():call_at(5, function() task:cancel() end)
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.equal(1, task:cancelling())
    assert.equal(5, now())
  end))

  it("wins over both of two timeouts due in the same tick", async(function()
    local task = agather.spawn(within, 5, within, 5, agather.sleep, 20)
    agather.sleep(1)
    agather.get_running_loop():call_at(5, function() task:cancel() end)
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.equal(1, task:cancelling())
  end))

  it("during the cleanup after the deadline wins", async(function()
    local task = agather.spawn(within, 1, function()
      local _ <close> = closing(function() agather.sleep(10) end)
      agather.sleep(20)
    end)
    agather.sleep(5)
    assert.equal(1, task:cancelling())
    task:cancel()
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.equal(5, now())
  end))

  it("wins when the deadline passes during its cleanup", async(function()
    local task = agather.spawn(within, 5, function()
      local _ <close> = closing(function() agather.sleep(10) end)
      agather.sleep(20)
    end)
    agather.sleep(1)
    task:cancel()
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.equal(5, now())
    assert.equal(1, task:cancelling())
  end))

  it("reaches a task whose body swallowed the timeout's", async(function()
    local task = agather.spawn(function()
      do
        local _ <close> = agather.timeout(1)
        pcall(agather.sleep, 10)
      end
      agather.sleep(10)
    end)
    agather.sleep(2)
    task:cancel()
    fails_with(agather.CancelledError, task.await, task)
    assert.is_true(task:cancelled())
    assert.equal(2, now())
  end))
end)

describe("a timeout cancels", function()
  -- What a task may wait for, each as a function that waits for ever.
  local places = {
    ["sleep"] = function() agather.sleep(1000) end,
    ["a future"] = function() agather.future():await() end,
    ["a coro"] = function() agather.await(agather.async(agather.sleep)(1000)) end,
    ["a generator"] = function() agather.coroutine.wrap(function() agather.sleep(1000) end)() end,
    ["pcall"] = function()
      local ok, err = pcall(agather.sleep, 1000)
      assert.is_false(ok)
      error(err, 0)
    end,
    ["agather.pcall"] = function() agather.pcall(agather.sleep, 1000) end,
    ["an Event"] = function() agather.Event():wait() end,
    ["a Lock"] = function()
      local lock = agather.Lock()
      lock:acquire()
      lock:acquire()
    end,
    ["a Semaphore"] = function()
      local semaphore = agather.Semaphore(0)
      semaphore:acquire()
    end,
    ["a Queue that is empty"] = function() agather.Queue():get() end,
    ["a Queue that is full"] = function()
      local queue = agather.Queue(1)
      queue:put(1)
      queue:put(2)
    end,
    ["a Barrier"] = function() agather.Barrier(2):wait() end,
    ["wait_for"] = function() agather.wait_for(agather.future(), 1000) end,
    ["a metamethod"] = function()
      local waiting = setmetatable({}, { __index = function() return agather.sleep(1000) end })
      return waiting.field
    end,
    ["an iterator"] = function()
      for _ in function() return agather.sleep(1000, true) end do assert.is_true(false) end
    end,
  }
  for name, wait in pairs(places) do
    it("a task in " .. name, async(function()
      fails_with(agather.TimeoutError, within, 1, wait)
      assert.equal(1, now())
      assert_untouched()
    end))
  end

  it("a task that is awaited, and waits for its end", async(function()
    local cleaned
    local inner = agather.spawn(function()
      local _ <close> = closing(function()
        agather.sleep(2)
        cleaned = true
      end)
      agather.sleep(1000)
    end)
    fails_with(agather.TimeoutError, within, 1, inner.await, inner)
    assert.is_true(cleaned)
    assert.is_true(inner:cancelled())
    assert.equal(3, now())
  end))

  it("all children of a gather", async(function()
    local first, second = agather.spawn(agather.sleep, 10), agather.spawn(agather.sleep, 20)
    local group = agather.gather(first, second)
    fails_with(agather.TimeoutError, within, 1, group.await, group)
    agather.sleep(0)
    assert.is_true(first:cancelled())
    assert.is_true(second:cancelled())
  end))

  it("no task of a wait", async(function()
    local task = agather.spawn(agather.sleep, 5, "went on")
    fails_with(agather.TimeoutError, within, 1, agather.wait, { task })
    assert.equal("went on", task:await())
    assert.equal(5, now())
  end))

  it("no task of as_completed", async(function()
    local task = agather.spawn(agather.sleep, 5, "went on")
    fails_with(agather.TimeoutError, within, 1, function()
      for _ in agather.as_completed{ task } do assert.is_true(false) end
    end)
    assert.equal("went on", task:await())
  end))

  it("no task behind a shield", async(function()
    local task = agather.spawn(agather.sleep, 5, "went on")
    fails_with(agather.TimeoutError, within, 1, function() agather.shield(task):await() end)
    assert.equal("went on", task:await())
  end))
end)

describe("wait_for", function()
  it("returns all results", async(function()
    assert.same({ 1, 2, 3 }, { agather.wait_for(agather.async(agather.sleep)(1, 1, 2, 3), 2) })
    assert.equal(1, now())
  end))

  it("takes functions, threads, tasks, futures and gathers", async(function()
    local future = agather.future()
    future:set_result("future")
    assert.equal("function", agather.wait_for(function() return agather.sleep(1, "function") end, 2))
    assert.equal("thread", agather.wait_for(coroutine.create(function() return agather.sleep(1, "thread") end), 2))
    assert.equal("task", agather.wait_for(agather.spawn(agather.sleep, 1, "task"), 2))
    assert.equal("future", agather.wait_for(future, 2))
    local function second() return agather.sleep(1, "second") end
    local group = agather.gather(function() return "first" end, second)
    assert.same({ "first", "second", n = 2 }, agather.wait_for(group, 2))
  end))

  it("without a limit waits as long as it takes", async(function()
    assert.equal("done", agather.wait_for(function() return agather.sleep(1000000, "done") end, nil))
    assert.equal("done", agather.wait_for(function() return "done" end))
  end))

  it("runs a coro in the calling task", async(function()
    local this = agather.current_task()
    assert.equal(this, agather.wait_for(agather.async(agather.current_task)(), 5))
    assert.equal(this, agather.wait_for(agather.async(agather.current_task)(), nil))
    assert.equal(this, agather.wait_for(agather.current_task, 5))
  end))

  it("raises the awaitable's error, the same value", async(function()
    local problem = {}
    for _, limit in ipairs{ 5, math.huge } do
      local ok, err = pcall(agather.wait_for, function() error(problem, 0) end, limit)
      assert.is_false(ok)
      assert.equal(problem, err)
    end
  end))

  it("cancels at the limit, and raises TimeoutError", async(function()
    local cancelled
    local task = agather.spawn(function()
      local _ <close> = closing(function(_, err) cancelled = agather.is_error(err, agather.CancelledError) end)
      agather.sleep(100)
    end)
    fails_with(agather.TimeoutError, agather.wait_for, task, 1)
    assert.equal(1, now())
    assert.is_true(cancelled)
    assert.is_true(task:cancelled())
    assert_untouched()
  end))

  it("waits for the cleanup of what it cancelled", async(function()
    local cleaned = 0
    local function body()
      local _ <close> = closing(function()
        agather.sleep(2)
        cleaned = cleaned + 1
      end)
      agather.sleep(100)
    end
    fails_with(agather.TimeoutError, agather.wait_for, agather.spawn(body), 1)
    assert.equal(3, now())
    fails_with(agather.TimeoutError, agather.wait_for, body, 1)
    assert.equal(6, now())
    assert.equal(2, cleaned)
    assert_untouched()
  end))

  it("waits for one that ignores the cancellation", async(function()
    local ended
    local function body()
      for _ = 1, 3 do pcall(agather.sleep, 4) end
      ended = now()
      return "in the end"
    end
    assert.equal("in the end", agather.wait_for(agather.spawn(body), 2))
    assert.equal(10, ended)
    assert_untouched()
  end))

  it("returns what the awaitable makes of its cancellation", async(function()
    local function swallow()
      fails_with(agather.CancelledError, agather.sleep, 100)
      return "swallowed"
    end
    assert.equal("swallowed", agather.wait_for(swallow, 1))
    assert.equal("swallowed", agather.wait_for(agather.spawn(swallow), 1))
    assert.equal(2, now())
    assert_untouched()
  end))

  it("raises the error of the cleanup", async(function()
    local function body()
      local _ <close> = closing(function() error("broken cleanup", 0) end)
      agather.sleep(100)
    end
    raises("broken cleanup", agather.wait_for, body, 1)
    raises("broken cleanup", agather.wait_for, agather.spawn(body), 1)
    assert_untouched()
  end))

  it("gives the result that comes before the limit", async(function()
    local future = agather.future()
    agather.get_running_loop():call_later(1, function() future:set_result("in time") end)
    assert.equal("in time", agather.wait_for(future, 2))
    assert.equal(1, now())
    agather.sleep(5)
    assert_untouched()
  end))

  it("cancelled, cancels the task it waits for", async(function()
    for _, limit in ipairs{ 60, math.huge } do
      local inner = agather.spawn(function() agather.future():await() end)
      local waiting = agather.spawn(agather.wait_for, inner, limit)
      agather.sleep(1)
      waiting:cancel()
      fails_with(agather.CancelledError, waiting.await, waiting)
      assert.is_true(inner:cancelled())
      assert.is_true(waiting:cancelled())
    end
    assert.equal(2, now())
  end))

  it("cancelled before it started, leaves the task to itself", async(function()
    local inner = agather.spawn(agather.sleep, 5, "went on")
    local waiting = agather.spawn(agather.wait_for, inner, 60)
    waiting:cancel()
    fails_with(agather.CancelledError, waiting.await, waiting)
    assert.equal("went on", inner:await())
  end))

  it("cancelled, waits for one that ignores it", async(function()
    local ended
    local waiting = agather.spawn(agather.wait_for, function()
      pcall(agather.sleep, 100)
      agather.sleep(3)
      ended = now()
    end, 50)
    agather.sleep(1)
    waiting:cancel()
    agather.wait{ waiting }
    assert.equal(4, ended)
    assert.is_false(waiting:cancelled())
  end))

  it("cancelled in the tick of its limit, is cancelled", async(function()
    for _, first in ipairs{ true, false } do
      local start = now()
      local waiting
      local function cancel() waiting:cancel() end
      if first then agather.get_running_loop():call_at(start + 1, cancel) end
      waiting = agather.spawn(function()
        local _ <close> = agather.timeout(nil)
        return agather.wait_for(agather.future(), 1)
      end)
      agather.sleep(0)
      if not first then agather.get_running_loop():call_at(start + 1, cancel) end
      fails_with(agather.CancelledError, waiting.await, waiting)
      assert.is_true(waiting:cancelled())
      assert.equal(start + 1, now())
    end
  end))

  it("cancelled in the tick of the result, is cancelled", async(function()
    local future = agather.future()
    local waiting = agather.spawn(agather.wait_for, future, 10)
    agather.sleep(1)
    future:set_result("lost")
    waiting:cancel()
    fails_with(agather.CancelledError, waiting.await, waiting)
    assert.is_true(waiting:cancelled())
  end))

  it("inside another raises where the shorter limit stands", async(function()
    fails_with(agather.TimeoutError, agather.wait_for, function()
      fails_with(agather.TimeoutError, agather.wait_for, agather.future(), 1)
      assert.equal(1, now())
      agather.wait_for(agather.future(), 100)
    end, 2)
    assert.equal(2, now())
    assert_untouched()
  end))

  it("says what it needs, at the line of the caller", async(function()
    raises("bad argument #1 to 'wait_for' (awaitable expected, got number)", agather.wait_for, 5, 1)
    raises("bad argument #1 to 'wait_for' (awaitable expected, got nil)", agather.wait_for, nil, 1)
    raises("bad argument #1 to 'wait_for' (awaitable expected, got table)", agather.wait_for, {}, 1)
    raises("bad argument #2 to 'wait_for' (number expected, got string)", agather.wait_for, agather.sleep, "1")
    raises("bad argument #2 to 'wait_for' (number expected, got nan)", agather.wait_for, agather.sleep, 0 / 0)
    raises("timeout_spec.lua:", function() agather.wait_for(5, 1) end)
    raises("timeout_spec.lua:", function() agather.wait_for(agather.sleep, "1") end)
  end))

  it("is refused outside a loop", function()
    raises("no running event loop", agather.wait_for, agather.sleep, 1)
  end)
end)

describe("wait_for with no time", function()
  it("gives the result of what is done", async(function()
    local future = agather.future()
    future:set_result("done", "and more")
    assert.same({ "done", "and more" }, { agather.wait_for(future, 0) })
    assert.same({ "done", "and more" }, { agather.wait_for(future, -1) })
  end))

  it("raises the error of what has failed", async(function()
    local future = agather.future()
    future:set_exception("failed before")
    raises("failed before", agather.wait_for, future, 0)
  end))

  it("raises CancelledError for what was cancelled before", async(function()
    local future = agather.future()
    future:cancel()
    fails_with(agather.CancelledError, agather.wait_for, future, 0)
  end))

  it("never starts a coro", async(function()
    local started = false
    local function body() started = true end
    fails_with(agather.TimeoutError, agather.wait_for, agather.async(body)(), 0)
    fails_with(agather.TimeoutError, agather.wait_for, body, -1)
    assert.is_false(started)
    assert_untouched()
  end))

  it("cancels a task that runs, and waits for its end", async(function()
    for _, limit in ipairs{ 0, -1 } do
      local start = now()
      local running = false
      local task = agather.spawn(function()
        local _ <close> = closing(function()
          agather.sleep(2)
          running = false
        end)
        running = true
        agather.sleep(10)
      end)
      agather.sleep(1)
      assert.is_true(running)
      fails_with(agather.TimeoutError, agather.wait_for, task, limit)
      assert.is_true(task:cancelled())
      assert.is_false(running)
      assert.equal(start + 3, now())
    end
    assert_untouched()
  end))

  it("returns what a task makes of its cancellation", async(function()
    local task = agather.spawn(function()
      pcall(agather.sleep, 10)
      return "swallowed", 2
    end)
    agather.sleep(1)
    assert.same({ "swallowed", 2 }, { agather.wait_for(task, 0) })
  end))

  it("raises the error of a cleanup", async(function()
    local task = agather.spawn(function()
      local _ <close> = closing(function() error("broken cleanup", 0) end)
      agather.sleep(10)
    end)
    agather.sleep(1)
    raises("broken cleanup", agather.wait_for, task, 0)
  end))

  it("cancelled while it waits for the end, leaves the cleanup to itself", async(function()
    local cleaned
    local task = agather.spawn(function()
      local _ <close> = closing(function()
        agather.sleep(5)
        cleaned = now()
      end)
      agather.sleep(10)
    end)
    agather.sleep(1)
    local waiting = agather.spawn(agather.wait_for, task, 0)
    agather.sleep(1)
    waiting:cancel()
    fails_with(agather.CancelledError, waiting.await, waiting)
    assert.equal(2, now())
    fails_with(agather.CancelledError, task.await, task)
    assert.equal(6, cleaned)
  end))
end)

describe("timeouts under the garbage collector", function()
  for _, mode in ipairs{ "incremental", "generational" } do
    it("work in " .. mode .. " mode with a step at every turn", function()
      local before = collectgarbage(mode)
      local _ <close> = closing(function() collectgarbage(before) end)
      testing.run(function()
        local list = {}
        for place = 1, 60 do
          list[place] = function()
            local _ <close> = agather.timeout(place % 3 + 0.5)
            for _ = 1, 3 do
              collectgarbage("step")
              agather.wait_for(function() return agather.sleep(place % 2, {}) end, 5)
            end
            return place
          end
        end
        local results = agather.gather_list(list, { return_exceptions = true }):await()
        collectgarbage()
        for place = 1, 60 do
          -- Three sleeps of no time are always in time; three of a second take longer than any limit here.
          if place % 2 == 0 then
            assert.equal(place, results[place])
          else
            assert.is_true(agather.is_error(results[place], agather.TimeoutError))
          end
        end
      end)
    end)
  end

  it("that were left leave nothing behind", async(function()
    local function many()
      for _ = 1, 2000 do
        within(1000, agather.sleep, 0)
        pcall(within, 0, agather.sleep, 1)
      end
    end
    many()
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    many()
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 64)
  end))
end)
