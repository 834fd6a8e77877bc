local agather = require "agather"
local support = require "spec.support"
local testing = require "agather.testing"

local async, closing, raises = testing.async, support.closing, support.raises

local function now() return agather.get_running_loop():time() end

-- A task that opens a group and runs body(group) in it.
local function in_group(body)
  return agather.spawn(function()
    local group <close> = agather.TaskGroup()
    return body(group)
  end)
end

-- The values that stand in an ExceptionGroup, those of groups in it as lists.
local function values_in(err)
  assert.is_true(agather.is_error(err, agather.ExceptionGroup), "another error: " .. tostring(err))
  local values = {}
  for place, inner in ipairs(err.exceptions) do
    if agather.is_error(inner, agather.ExceptionGroup) then
      values[place] = values_in(inner)
    else
      values[place] = inner.value or inner
    end
  end
  return values
end

-- Waits for a task that must fail with an ExceptionGroup; returns the values in it and the error.
local function errors_of(task)
  local ok, err = pcall(task.await, task)
  assert.is_false(ok)
  return values_in(err), err
end

-- Waits for a task that must end cancelled.
local function ends_cancelled(task)
  local ok, err = pcall(task.await, task)
  assert.is_false(ok)
  assert.is_true(agather.is_error(err, agather.CancelledError), "another error: " .. tostring(err))
  assert.is_true(task:cancelled())
end

local function fail_after(seconds, problem)
  agather.sleep(seconds)
  error(problem, 0)
end

-- Waits; when it is cancelled, fails after so many seconds of cleanup.
local function fail_in_cleanup(seconds, problem)
  local _ <close> = closing(function() fail_after(seconds, problem) end)
  agather.sleep(1000)
end

-- Waits; when it is cancelled, takes so many seconds to end.
local function clean_up_for(seconds)
  local _ <close> = closing(function() agather.sleep(seconds) end)
  agather.sleep(1000)
end

describe("TaskGroup", function()
  it("waits for its tasks at the end of the scope", async(function()
    local first, second
    do
      local group <close> = agather.TaskGroup()
      first = group:spawn(agather.sleep, 1, 42)
      second = group:create_task(function() return agather.sleep(2, 11) end)
    end
    assert.equal(2, now())
    assert.equal(42, first:result())
    assert.equal(11, second:result())
  end))

  it("takes tasks while its body waits", async(function()
    local first, second
    do
      local group <close> = agather.TaskGroup()
      first = group:spawn(agather.sleep, 1, 42)
      agather.sleep(1.5)
      second = group:spawn(agather.sleep, 2, 11)
    end
    assert.equal(3.5, now())
    assert.equal(42, first:result())
    assert.equal(11, second:result())
  end))

  it("without tasks is left at once", async(function()
    local ran = false
    agather.get_running_loop():call_soon(function() ran = true end)
    do
      local group <close> = agather.TaskGroup()
      assert.is_truthy(group)
    end
    assert.is_false(ran)
  end))

  it("lets the body's results pass", async(function()
    assert.same({ 1, 2, 3 }, {
      in_group(function(group)
        group:spawn(agather.sleep, 1)
        return 1, 2, 3
      end):await(),
    })
    assert.equal(1, now())
  end))

  it("hands arguments to what it spawns, and gives all results", async(function()
    local group <close> = agather.TaskGroup()
    local task = group:spawn(function(...) return select("#", ...), ... end, 1, nil, 3, nil)
    assert.same({ 4, 1, nil, 3, nil }, { task:await() })
  end))

  it("takes coros, functions and threads", async(function()
    local tasks = {}
    do
      local group <close> = agather.TaskGroup()
      tasks[1] = group:create_task(agather.async(agather.sleep)(1, "coro"))
      tasks[2] = group:create_task(function() return agather.sleep(1, "function") end)
      tasks[3] = group:create_task(coroutine.create(function() return agather.sleep(1, "thread") end))
    end
    assert.equal("coro", tasks[1]:result())
    assert.equal("function", tasks[2]:result())
    assert.equal("thread", tasks[3]:result())
  end))

  it("names its tasks as asked", async(function()
    local group <close> = agather.TaskGroup()
    assert.equal("yolo", group:create_task(function() end, { name = "yolo" }):get_name())
  end))

  it("runs its tasks in the context asked for", async(function()
    local variable = agather.ContextVar("variable", "unset")
    local context = agather.current_task():get_context()
    local group <close> = agather.TaskGroup()
    group:create_task(function() variable:set("own") end):await()
    assert.equal("unset", variable:get())
    group:create_task(function() variable:set("shared") end, { context = context }):await()
    assert.equal("shared", variable:get())
  end))

  it("lets a task of its own add tasks, also when the body has ended", async(function()
    local log, say = support.log()
    do
      local group <close> = agather.TaskGroup()
      group:spawn(function()
        agather.sleep(1)
        for seconds = 1, 2 do
          group:spawn(function()
            agather.sleep(seconds)
            say("ended at " .. now())
          end)
        end
      end)
    end
    assert.same({ "ended at 2.0", "ended at 3.0" }, log)
    assert.equal(3, now())
  end))

  it("lets a chain of tasks go on for ever so long", async(function()
    local count = 0
    do
      local group <close> = agather.TaskGroup()
      local function following()
        count = count + 1
        agather.sleep(0)
        if count < 1000 then group:spawn(following) end
      end
      group:spawn(following)
    end
    assert.equal(1000, count)
  end))

  it("keeps nothing of tasks that are done", async(function()
    local group <close> = agather.TaskGroup()
    local function many()
      for _ = 1, 1000 do group:spawn(agather.sleep, 0) end
      agather.sleep(1)
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

  it("waits for 10,000", async(function()
    local count = 0
    do
      local group <close> = agather.TaskGroup()
      for place = 1, 10000 do
        group:spawn(function()
          agather.sleep(place % 5)
          count = count + 1
        end)
      end
    end
    assert.equal(10000, count)
    assert.equal(4, now())
  end))

  it("is left before what stood open before it is closed", async(function()
    local log, say = support.log()
    do
      local _ <close> = closing(function() say "resource closed" end)
      local group <close> = agather.TaskGroup()
      group:spawn(function()
        agather.sleep(1)
        say "task done"
      end)
    end
    assert.same({ "task done", "resource closed" }, log)
  end))

  it("shows how many tasks and errors it has", async(function()
    local group
    do
      local inner <close> = agather.TaskGroup()
      group = inner
      assert.equal("<TaskGroup tasks=0 errors=0>", tostring(group))
      group:spawn(agather.sleep, 1)
      group:spawn(function() assert.equal("<TaskGroup tasks=2 errors=0 exiting>", tostring(group)) end)
    end
    assert.equal("<TaskGroup tasks=0 errors=0 exiting>", tostring(group))
    errors_of(in_group(function(failing)
      group = failing
      group:spawn(fail_after, 0, "bad")
      group:spawn(function()
        local _ <close> = closing(function()
          assert.equal("<TaskGroup tasks=1 errors=1 cancelling>", tostring(group))
        end)
        agather.sleep(1)
      end)
      agather.sleep(1)
    end))
  end))

  it("is refused outside a task", async(function()
    local problem
    agather.get_running_loop():call_soon(function() problem = select(2, pcall(agather.TaskGroup)) end)
    agather.sleep(0)
    agather.sleep(0)
    assert.is_true(agather.is_error(problem, agather.RuntimeError))
    assert.equal("TaskGroup: use it inside a task", tostring(problem))
  end))

  it("is refused outside a loop", function()
    local err = raises("TaskGroup: use it inside a task", agather.TaskGroup)
    assert.is_true(agather.is_error(err, agather.RuntimeError))
  end)

  it("says what it needs", async(function()
    local group <close> = agather.TaskGroup()
    raises("bad argument #1 to 'spawn' (function expected, got number)", group.spawn, group, 5)
    raises("bad argument #1 to 'spawn' (function expected, got nil)", group.spawn, group)
    raises("group_spec.lua:", function() group:spawn(5) end)
    raises("bad argument #1 to 'create_task' (awaitable expected, got number)", group.create_task, group, 5)
    raises("bad argument #1 to 'create_task' (awaitable expected, got nil)", group.create_task, group, nil)
    raises("unknown option 'nome'", group.create_task, group, function() end, { nome = "x" })
    assert.equal("<TaskGroup tasks=0 errors=0>", tostring(group))
  end))
end)

describe("a child of a TaskGroup that is cancelled on its own", function()
  it("is no failure: the others go on", async(function()
    local first, second
    do
      local group <close> = agather.TaskGroup()
      first = group:spawn(agather.sleep, 10)
      agather.sleep(1)
      first:cancel()
      second = group:spawn(agather.sleep, 2, 11)
    end
    assert.is_true(first:cancelled())
    assert.equal(11, second:result())
    assert.equal(3, now())
    assert.equal(0, agather.current_task():cancelling())
  end))

  it("by an error of that class, is none either", async(function()
    local second
    do
      local group <close> = agather.TaskGroup()
      group:spawn(error, agather.CancelledError(), 0)
      second = group:spawn(agather.sleep, 1, "second")
    end
    assert.equal("second", second:result())
  end))

  it("as the last, ends the wait", async(function()
    do
      local group <close> = agather.TaskGroup()
      local task = group:spawn(agather.sleep, 10)
      agather.get_running_loop():call_later(1, function() task:cancel() end)
    end
    assert.equal(1, now())
  end))

  it("before it started, never runs", async(function()
    local started = false
    do
      local group <close> = agather.TaskGroup()
      group:spawn(function() started = true end):cancel()
    end
    assert.is_false(started)
  end))
end)

describe("a child of a TaskGroup that fails", function()
  it("cancels the others, and the group raises an ExceptionGroup", async(function()
    local cancelled, ended = false, false
    local sibling
    local task = in_group(function(group)
      group:spawn(fail_after, 1, "bad")
      sibling = group:spawn(function()
        local _ <close> = closing(function(_, err) cancelled = agather.is_error(err, agather.CancelledError) end)
        agather.sleep(10)
        ended = true
      end)
    end)
    local values, err = errors_of(task)
    assert.same({ "bad" }, values)
    assert.equal("unhandled errors in a TaskGroup (1 sub-exception)", tostring(err))
    assert.is_true(cancelled)
    assert.is_false(ended)
    assert.is_true(sibling:cancelled())
    assert.is_false(task:cancelled())
    assert.equal(1, now())
  end))

  it("cancels the body where it waits", async(function()
    local seen
    local this = agather.current_task()
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "bad")
      local slept, problem = pcall(agather.sleep, 10)
      assert.is_false(slept)
      seen = problem
      assert.equal(1, this:cancelling())
      error(problem, 0)
    end)
    assert.is_false(ok)
    assert.same({ "bad" }, values_in(err))
    assert.is_true(agather.is_error(seen, agather.CancelledError))
    assert.equal(0, this:cancelling())
    agather.sleep(1)
    assert.equal(2, now())
  end))

  it("leaves the parent as it was: it may wait and open another group", async(function()
    for round = 1, 3 do
      local ok, err = pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(fail_after, 1, round)
        agather.sleep(10)
      end)
      assert.is_false(ok)
      assert.same({ round }, values_in(err))
      assert.equal(0, agather.current_task():cancelling())
    end
    assert.equal(3, now())
  end))

  it("cancels the body once: one that swallows it goes on", async(function()
    local this = agather.current_task()
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "bad")
      assert.is_false((pcall(agather.sleep, 10)))
      assert.equal(1, this:cancelling())
      agather.sleep(5)
    end)
    assert.is_false(ok)
    assert.same({ "bad" }, values_in(err))
    assert.equal(6, now())
    assert.equal(0, this:cancelling())
    agather.sleep(1)
  end))

  it("and is awaited in the body: the body is cancelled, the group raises the error", async(function()
    local seen
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      local task = group:spawn(fail_after, 1, "bad")
      local awaited, problem = pcall(task.await, task)
      assert.is_false(awaited)
      seen = problem
      error(problem, 0)
    end)
    assert.is_false(ok)
    assert.same({ "bad" }, values_in(err))
    assert.is_true(agather.is_error(seen, agather.CancelledError))
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(0)
  end))

  it("with others in the same turn: all errors stand in the group", async(function()
    local cancelled = false
    assert.same({ 1, 2, 3 }, (errors_of(in_group(function(group)
      for place = 1, 3 do group:spawn(fail_after, 1, place) end
      group:spawn(function()
        local _ <close> = closing(function() cancelled = true end)
        agather.sleep(10)
      end)
      agather.sleep(10)
    end))))
    assert.is_true(cancelled)
  end))

  it("with errors in the cleanup of others: they stand in order of completion", async(function()
    local values, err = errors_of(in_group(function(group)
      group:spawn(fail_in_cleanup, 2, "third")
      group:spawn(fail_in_cleanup, 1, "second")
      group:spawn(clean_up_for, 5)
      group:spawn(fail_after, 1, "first")
    end))
    assert.same({ "first", "second", "third" }, values)
    assert.equal("unhandled errors in a TaskGroup (3 sub-exceptions)", tostring(err))
    assert.equal(6, now())
  end))

  it("is waited for until the cleanup of all others has ended", async(function()
    assert.same({ "bad" }, (errors_of(in_group(function(group)
      group:spawn(clean_up_for, 1)
      group:spawn(clean_up_for, 3)
      group:spawn(fail_after, 1, "bad")
    end))))
    assert.equal(4, now())
  end))

  it("lets others that swallow the cancellation end", async(function()
    local sibling
    assert.same({ "bad" }, (errors_of(in_group(function(group)
      sibling = group:spawn(function()
        pcall(agather.sleep, 10)
        agather.sleep(10)
        return "ended"
      end)
      group:spawn(fail_after, 1, "bad")
    end))))
    assert.equal("ended", sibling:result())
    assert.equal(11, now())
  end))

  it("before others have started: they never run", async(function()
    local started = false
    assert.same({ "bad" }, (errors_of(in_group(function(group)
      local first = group:spawn(error, "bad", 0)
      first:add_done_callback(function() group = nil end)
      group:spawn(function()
        agather.sleep(0)
        agather.sleep(0)
        started = true
      end)
    end))))
    assert.is_false(started)
  end))

  it("has its error object in the group, with value and traceback", async(function()
    local problem = { code = 7 }
    local _, err = errors_of(in_group(function(group) group:spawn(fail_after, 1, problem) end))
    assert.equal(1, #err.exceptions)
    assert.equal(problem, err.exceptions[1].value)
    assert.is_truthy(err.exceptions[1].traceback:find("group_spec.lua", 1, true))
    assert.is_truthy(err.traceback:find("group_spec.lua", 1, true))
  end))

  it("with an error of a class of one's own stays of that class", async(function()
    local Own = agather.Error:subclass("Own")
    local own = Own("mine")
    local values = errors_of(in_group(function(group) group:spawn(fail_after, 1, own) end))
    assert.equal(own, values[1])
    assert.is_true(agather.is_error(values[1], Own))
  end))

  it("raises a group that agather.pcall catches", async(function()
    local ok, err = agather.pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "bad")
      agather.sleep(10)
    end)
    assert.is_false(ok)
    assert.same({ "bad" }, values_in(err))
  end))

  it("has its error retrieved: nobody reports it", function()
    local reports = support.capture(function()
      errors_of(in_group(function(group) group:spawn(fail_after, 1, "bad") end))
    end)
    assert.same({}, reports)
  end)

  it("after many others have ended well, is the only error", async(function()
    assert.same({ "bad" }, (errors_of(in_group(function(group)
      for seconds = 1, 20 do group:spawn(agather.sleep, seconds) end
      group:spawn(fail_after, 10.5, "bad")
    end))))
    assert.equal(10.5, now())
  end))

  it("ends tasks that add tasks without end", async(function()
    local heads = 0
    assert.same({ "enough" }, (errors_of(in_group(function(group)
      local function hydra()
        heads = heads + 1
        agather.sleep(1)
        group:spawn(hydra)
        group:spawn(hydra)
      end
      group:spawn(hydra)
      group:spawn(function()
        while heads < 10 do agather.sleep(1.5) end
        error("enough", 0)
      end)
    end))))
    assert.is_true(heads >= 10)
  end))

  it("and was started eagerly cancels nobody before the body waits", async(function()
    local reached = false
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      group:create_task(function() error("eager", 0) end, { eager_start = true })
      assert.equal(0, agather.current_task():cancelling())
      reached = true
      agather.sleep(10)
    end)
    assert.is_false(ok)
    assert.same({ "eager" }, values_in(err))
    assert.is_true(reached)
    assert.equal(0, now())
  end))

  it("when its parent is done already, is reported", function()
    local reports = support.capture(function()
      local parent = agather.spawn(function() agather.TaskGroup():spawn(fail_after, 1, "orphan") end)
      parent:await()
      agather.sleep(2)
    end)
    assert.equal(1, #reports)
    assert.is_truthy(reports[1].message:find("has failed but its parent task is done already", 1, true))
    assert.equal("orphan", reports[1].exception.value)
  end)
end)

describe("the body of a TaskGroup that fails", function()
  it("cancels all children and stands in the group", async(function()
    local first, second
    assert.same({ "body" }, (errors_of(in_group(function(group)
      first, second = group:spawn(agather.sleep, 10), group:spawn(agather.sleep, 20)
      fail_after(1, "body")
    end))))
    assert.is_true(first:cancelled())
    assert.is_true(second:cancelled())
    assert.equal(1, now())
  end))

  it("before it waits: the children never start", async(function()
    local started = false
    local first
    assert.same({ "body" }, (errors_of(in_group(function(group)
      first = group:spawn(function() started = true end)
      error("body", 0)
    end))))
    assert.is_true(first:cancelled())
    assert.is_false(started)
  end))

  it("without children raises a group too", async(function()
    local problem = {}
    local values, err = errors_of(in_group(function() error(problem, 0) end))
    assert.equal(problem, values[1])
    assert.equal(1, #err.exceptions)
    assert.is_true(agather.is_error(err.exceptions[1]))
    assert.equal(problem, err.exceptions[1].value)
  end))

  it("stands after the errors that the children's cleanup makes", async(function()
    assert.same({ "first", "second", "body" }, (errors_of(in_group(function(group)
      group:spawn(fail_in_cleanup, 2, "second")
      group:spawn(fail_in_cleanup, 1, "first")
      fail_after(1, "body")
    end))))
    assert.equal(3, now())
  end))

  it("in its cleanup, after a child failed: both stand in the group", async(function()
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "child")
      local _ <close> = closing(function() error("cleanup", 0) end)
      agather.sleep(10)
    end)
    assert.is_false(ok)
    assert.same({ "child", "cleanup" }, values_in(err))
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(0)
  end))

  it("leaves the parent as it was", async(function()
    local ok = pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(clean_up_for, 1)
      fail_after(1, "body")
    end)
    assert.is_false(ok)
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
    assert.equal(3, now())
  end))

  it("with a CancelledError of its own: the children are cancelled, it passes on", async(function()
    local child
    local own = agather.CancelledError("own")
    local task = in_group(function(group)
      child = group:spawn(clean_up_for, 2)
      agather.sleep(1)
      error(own, 0)
    end)
    ends_cancelled(task)
    assert.equal(0, task:cancelling())
    assert.is_true(child:cancelled())
    assert.equal(3, now())
  end))

  it("with KeyboardInterrupt raises just that, after the children have ended", async(function()
    local interrupt = agather.KeyboardInterrupt()
    local child
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      child = group:spawn(clean_up_for, 2)
      agather.sleep(1)
      error(interrupt, 0)
    end)
    assert.is_false(ok)
    assert.equal(interrupt, err)
    assert.is_true(child:cancelled())
    assert.equal(3, now())
  end))

  it("with KeyboardInterrupt in its cleanup raises that rather than the child's error", function()
    local interrupt = agather.KeyboardInterrupt()
    local seen
    support.capture(function()
      seen = select(2, pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(fail_after, 1, "child")
        local _ <close> = closing(function() error(interrupt, 0) end)
        agather.sleep(10)
      end))
    end)
    assert.equal(interrupt, seen)
  end)
end)

describe("a TaskGroup that is over", function()
  it("takes no task: the coro is closed", async(function()
    local group
    do
      local inner <close> = agather.TaskGroup()
      group = inner
    end
    local started = false
    local coro = agather.async(function() started = true end)()
    local err = raises("is finished", group.create_task, group, coro)
    assert.is_true(agather.is_error(err, agather.RuntimeError))
    assert.is_false((pcall(agather.await, coro)))
    raises("is finished", group.spawn, group, function() started = true end)
    raises("is finished", group.create_task, group, function() started = true end)
    agather.sleep(1)
    assert.is_false(started)
  end))

  it("that failed takes no task", async(function()
    local group
    errors_of(in_group(function(inner)
      group = inner
      group:spawn(fail_after, 1, "bad")
    end))
    raises("is finished", group.create_task, group, agather.async(print)())
    raises("is finished", group.spawn, group, print)
  end))

  it("or is being cancelled takes no task: the coro is closed", async(function()
    local refused, coro = {}, nil
    assert.same({ "bad" }, (errors_of(in_group(function(group)
      group:spawn(fail_after, 1, "bad")
      group:spawn(function()
        local _ <close> = closing(function()
          coro = agather.async(print)()
          refused[1] = select(2, pcall(group.create_task, group, coro))
          refused[2] = select(2, pcall(group.spawn, group, print))
        end)
        agather.sleep(10)
      end)
    end))))
    assert.equal("<TaskGroup tasks=1 errors=1 cancelling> is shutting down", tostring(refused[1]))
    assert.equal("<TaskGroup tasks=1 errors=1 cancelling> is shutting down", tostring(refused[2]))
    assert.is_true(agather.is_error(refused[1], agather.RuntimeError))
    assert.is_false((pcall(agather.await, coro)))
  end))

  it("by an error of the body takes no task from a cleanup", async(function()
    local refused
    assert.same({ "body" }, (errors_of(in_group(function(group)
      group:spawn(function()
        local _ <close> = closing(function()
          refused = select(2, pcall(group.create_task, group, agather.async(print)()))
        end)
        agather.sleep(10)
      end)
      fail_after(1, "body")
    end))))
    assert.is_truthy(tostring(refused):find("is shutting down", 1, true))
  end))

  it("refuses a task in the body that swallowed the cancellation", async(function()
    local refused
    pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "bad")
      pcall(agather.sleep, 10)
      refused = select(2, pcall(group.create_task, group, agather.async(print)()))
    end)
    assert.is_truthy(tostring(refused):find("is shutting down", 1, true))
  end))
end)

describe("a TaskGroup whose parent is cancelled", function()
  it("while it waits for the tasks: all are cancelled", async(function()
    local cancelled = 0
    local task = in_group(function(group)
      for _ = 1, 5 do
        group:spawn(function()
          local _ <close> = closing(function(_, err)
            if agather.is_error(err, agather.CancelledError) then cancelled = cancelled + 1 end
          end)
          agather.sleep(10)
        end)
      end
    end)
    agather.sleep(1)
    assert.is_false(task:done())
    task:cancel()
    ends_cancelled(task)
    assert.equal(5, cancelled)
    assert.equal(1, task:cancelling())
    assert.equal(1, now())
  end))

  it("while its body waits: body and tasks are cancelled", async(function()
    local count = 0
    local task = in_group(function(group)
      for _ = 1, 5 do
        group:spawn(function()
          local _ <close> = closing(function() count = count + 1 end)
          agather.sleep(10)
        end)
      end
      local _ <close> = closing(function() count = count + 10 end)
      agather.sleep(10)
    end)
    agather.sleep(1)
    task:cancel()
    ends_cancelled(task)
    assert.equal(15, count)
  end))

  it("without tasks is cancelled", async(function()
    local task = in_group(function() agather.sleep(10) end)
    agather.sleep(1)
    task:cancel()
    ends_cancelled(task)
    assert.equal(1, now())
  end))

  it("waits for the cleanup of all tasks", async(function()
    local task = in_group(function(group)
      group:spawn(clean_up_for, 1)
      group:spawn(clean_up_for, 5)
    end)
    agather.sleep(1)
    task:cancel()
    ends_cancelled(task)
    assert.equal(6, now())
  end))

  it("keeps the message of the first cancellation", async(function()
    local task = in_group(function(group) group:spawn(clean_up_for, 5) end)
    agather.sleep(1)
    task:cancel("first")
    agather.sleep(1)
    task:cancel("second")
    raises("first", task.await, task)
  end))

  it("again and again, still waits for all tasks", async(function()
    local task = in_group(function(group)
      group:spawn(clean_up_for, 5)
      group:spawn(clean_up_for, 3)
    end)
    agather.sleep(1)
    for count = 1, 4 do
      task:cancel()
      assert.equal(count, task:cancelling())
      agather.sleep(1)
      assert.is_false(task:done())
    end
    ends_cancelled(task)
    assert.equal(6, now())
    assert.equal(4, task:cancelling())
  end))

  it("does not cancel the tasks a second time", async(function()
    local interrupted = 0
    local task = in_group(function(group)
      group:spawn(function()
        for _ = 1, 3 do
          if not pcall(agather.sleep, 5) then interrupted = interrupted + 1 end
        end
      end)
    end)
    agather.sleep(1)
    task:cancel()
    agather.sleep(1)
    task:cancel()
    ends_cancelled(task)
    assert.equal(1, interrupted)
    assert.equal(11, now())
  end))

  it("and tasks fail in their cleanup: the errors have priority", async(function()
    local task = in_group(function(group)
      for place = 1, 3 do group:spawn(fail_in_cleanup, 0, place) end
      agather.sleep(10)
    end)
    agather.sleep(1)
    task:cancel()
    assert.same({ 1, 2, 3 }, (errors_of(task)))
    assert.is_false(task:cancelled())
  end))

  it("and a task fails in its cleanup: the cancellation is raised again at the next wait", async(function()
    local group_error, counts, following = nil, {}, nil
    local task = agather.spawn(function()
      local this = agather.current_task()
      local ok
      ok, group_error = pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(fail_in_cleanup, 1, "cleanup")
        agather.sleep(10)
      end)
      assert.is_false(ok)
      counts[1] = this:cancelling()
      ok, following = pcall(agather.sleep, 0)
      assert.is_false(ok)
      counts[2] = this:cancelling()
      error(following, 0)
    end)
    agather.sleep(1)
    task:cancel()
    ends_cancelled(task)
    assert.same({ "cleanup" }, values_in(group_error))
    assert.is_true(agather.is_error(following, agather.CancelledError))
    assert.same({ 1, 1 }, counts)
  end))

  it("and the body answers with an error of its own: a group of that", async(function()
    local task = in_group(function()
      local ok = pcall(agather.sleep, 10)
      assert.is_false(ok)
      error("not a good idea", 0)
    end)
    agather.sleep(1)
    task:cancel()
    assert.same({ "not a good idea" }, (errors_of(task)))
  end))

  it("and the body swallows it: the group waits for its tasks as ever", async(function()
    local child
    local task = in_group(function(group)
      child = group:spawn(agather.sleep, 5, "child")
      pcall(agather.sleep, 10)
      return "body"
    end)
    agather.sleep(1)
    task:cancel()
    assert.equal("body", task:await())
    assert.equal("child", child:result())
    assert.equal(5, now())
    assert.equal(1, task:cancelling())
  end))

  it("while its body cleans up after that, a child fails: its error is raised", async(function()
    local task = in_group(function(group)
      group:spawn(fail_after, 3, "late")
      local ok, err = pcall(agather.sleep, 10)
      assert.is_false(ok)
      agather.sleep(1)
      error(err, 0)
    end)
    agather.sleep(2.5)
    task:cancel()
    assert.same({ "late" }, (errors_of(task)))
  end))

  it("through a task that awaits the parent", async(function()
    local inner
    local task = agather.spawn(function()
      inner = in_group(function(group) group:spawn(fail_in_cleanup, 1, "cleanup") end)
      inner:await()
    end)
    agather.sleep(1)
    task:cancel()
    assert.same({ "cleanup" }, (errors_of(task)))
    assert.equal(2, now())
  end))

  it("in the tick in which a child fails, before it: the cancellation is raised", async(function()
    local gate = agather.future()
    local task = in_group(function(group)
      group:spawn(function()
        gate:await()
        error("child", 0)
      end)
      agather.sleep(10)
    end)
    agather.sleep(1)
    task:cancel()
    gate:set_result()
    ends_cancelled(task)
    assert.equal(1, task:cancelling())
  end))

  it("in the turn after a child failed: the error is raised, and the cancellation at the next wait", async(function()
    local gate = agather.future()
    local group_error, following
    local task = agather.spawn(function()
      local ok
      ok, group_error = pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(function()
          gate:await()
          error("child", 0)
        end)
        agather.sleep(10)
      end)
      assert.is_false(ok)
      assert.equal(1, agather.current_task():cancelling())
      ok, following = pcall(agather.sleep, 0)
      assert.is_false(ok)
      return "ended"
    end)
    agather.sleep(1)
    gate:set_result()
    agather.sleep(0)
    task:cancel()
    assert.equal("ended", task:await())
    assert.same({ "child" }, values_in(group_error))
    assert.is_true(agather.is_error(following, agather.CancelledError))
    assert.equal(1, task:cancelling())
  end))
end)

describe("TaskGroups in each other", function()
  it("wait from the inner to the outer", async(function()
    local log, say = support.log()
    do
      local outer <close> = agather.TaskGroup()
      outer:spawn(function()
        agather.sleep(3)
        say "outer"
      end)
      do
        local inner <close> = agather.TaskGroup()
        inner:spawn(function()
          agather.sleep(1)
          say "inner"
        end)
      end
      say "between"
    end
    assert.same({ "inner", "between", "outer" }, log)
    assert.equal(3, now())
  end))

  it("an error of the inner reaches the outer as a group, and cancels its tasks", async(function()
    local sibling
    assert.same({ { "inner" } }, (errors_of(in_group(function(outer)
      sibling = outer:spawn(agather.sleep, 10)
      local inner <close> = agather.TaskGroup()
      inner:spawn(fail_after, 1, "inner")
      agather.sleep(10)
    end))))
    assert.is_true(sibling:cancelled())
    assert.equal(1, now())
  end))

  it("an error of the outer cancels the inner, which adds nothing", async(function()
    local child
    assert.same({ "outer" }, (errors_of(in_group(function(outer)
      outer:spawn(fail_after, 1, "outer")
      local inner <close> = agather.TaskGroup()
      child = inner:spawn(agather.sleep, 10)
    end))))
    assert.is_true(child:cancelled())
    assert.equal(1, now())
  end))

  it("an error of the outer, and one in the cleanup of the inner: both are raised", async(function()
    local ok, err = pcall(function()
      local outer <close> = agather.TaskGroup()
      outer:spawn(fail_after, 1, "outer")
      local inner <close> = agather.TaskGroup()
      inner:spawn(fail_in_cleanup, 1, "cleanup")
    end)
    assert.is_false(ok)
    assert.same({ "outer", { "cleanup" } }, values_in(err))
    assert.equal(2, now())
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
  end))

  it("both fail in one tick: both errors are raised", async(function()
    local ok, err = pcall(function()
      local outer <close> = agather.TaskGroup()
      outer:spawn(fail_after, 1, "outer")
      local inner <close> = agather.TaskGroup()
      inner:spawn(fail_after, 1, "inner")
      agather.sleep(10)
    end)
    assert.is_false(ok)
    assert.same({ "outer", { "inner" } }, values_in(err))
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
  end))

  it("cancelled from outside with errors in the cleanup of the inner", async(function()
    for _, with_sibling in ipairs{ false, true } do
      local task = in_group(function(outer)
        if with_sibling then outer:spawn(agather.sleep, 100) end
        local inner <close> = agather.TaskGroup()
        for place = 1, 3 do inner:spawn(fail_in_cleanup, 0, place) end
        agather.sleep(100)
      end)
      agather.sleep(1)
      task:cancel()
      assert.same({ { 1, 2, 3 } }, (errors_of(task)))
    end
  end))

  it("cancelled from outside are both cancelled", async(function()
    local children = {}
    local task = in_group(function(outer)
      children[1] = outer:spawn(clean_up_for, 3)
      local inner <close> = agather.TaskGroup()
      children[2] = inner:spawn(clean_up_for, 2)
    end)
    agather.sleep(1)
    task:cancel()
    ends_cancelled(task)
    assert.is_true(children[1]:cancelled())
    assert.is_true(children[2]:cancelled())
    assert.equal(1, task:cancelling())
    assert.equal(6, now())
  end))

  it("in tasks of their own: the error passes up as a group of groups", async(function()
    local function nest(depth)
      local group <close> = agather.TaskGroup()
      group:spawn(depth == 0 and fail_after or nest, depth == 0 and 1 or depth - 1, "deep")
      group:spawn(agather.sleep, 10)
    end
    assert.same({ { { { "deep" } } } }, (errors_of(agather.spawn(nest, 3))))
    assert.equal(1, now())
  end))
end)

describe("a TaskGroup in a timeout", function()
  it("is cancelled when it is due: the timeout raises", async(function()
    local children = {}
    local ok, err = pcall(function()
      local _ <close> = agather.timeout(1)
      local group <close> = agather.TaskGroup()
      children[1] = group:spawn(clean_up_for, 2)
      children[2] = group:spawn(agather.sleep, 10)
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.TimeoutError))
    assert.is_true(children[1]:cancelled())
    assert.is_true(children[2]:cancelled())
    assert.equal(3, now())
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
  end))

  it("that ends in time raises nothing", async(function()
    do
      local _ <close> = agather.timeout(2)
      local group <close> = agather.TaskGroup()
      group:spawn(agather.sleep, 1)
    end
    assert.equal(1, now())
    agather.sleep(5)
  end))

  it("that fails in its cleanup raises the errors, and the timeout no more", async(function()
    local scope
    local ok, err = pcall(function()
      local inner <close> = agather.timeout(1)
      scope = inner
      local group <close> = agather.TaskGroup()
      group:spawn(fail_in_cleanup, 1, "cleanup")
      agather.sleep(10)
    end)
    assert.is_false(ok)
    assert.same({ "cleanup" }, values_in(err))
    assert.is_true(scope:expired())
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
    assert.equal(3, now())
  end))

  it("and a child failed before it is due, with a cleanup that goes on: the error is raised", async(function()
    local ok, err = pcall(function()
      local _ <close> = agather.timeout(2)
      local group <close> = agather.TaskGroup()
      group:spawn(clean_up_for, 5)
      group:spawn(fail_after, 1, "child")
      agather.sleep(10)
    end)
    assert.is_false(ok)
    assert.same({ "child" }, values_in(err))
    assert.equal(6, now())
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
  end))

  it("cancelled from outside too is cancelled", async(function()
    local task = agather.spawn(function()
      local _ <close> = agather.timeout(2)
      local group <close> = agather.TaskGroup()
      group:spawn(clean_up_for, 5)
      agather.sleep(10)
    end)
    agather.sleep(1)
    task:cancel()
    ends_cancelled(task)
    assert.equal(6, now())
    assert.equal(1, task:cancelling())
  end))
end)

describe("a timeout in a TaskGroup", function()
  it("of the body raises TimeoutError in it, and the group may catch it", async(function()
    local child
    do
      local group <close> = agather.TaskGroup()
      child = group:spawn(agather.sleep, 5, "child")
      local ok, err = pcall(function()
        local _ <close> = agather.timeout(1)
        agather.sleep(10)
      end)
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.TimeoutError))
    end
    assert.equal("child", child:result())
    assert.equal(5, now())
  end))

  it("of the body that nobody catches ends the group", async(function()
    local child
    local values = errors_of(in_group(function(group)
      child = group:spawn(agather.sleep, 5)
      local _ <close> = agather.timeout(1)
      agather.sleep(10)
    end))
    assert.is_true(agather.is_error(values[1], agather.TimeoutError))
    assert.is_true(child:cancelled())
    assert.equal(1, now())
  end))

  it("of a task is an error of that task", async(function()
    local values = errors_of(in_group(function(group)
      group:spawn(function()
        local _ <close> = agather.timeout(1)
        agather.sleep(10)
      end)
      group:spawn(agather.sleep, 10)
    end))
    assert.equal(1, #values)
    assert.is_true(agather.is_error(values[1], agather.TimeoutError))
    assert.equal(1, now())
  end))

  it("lets the group's cancellation pass, for it is not its own", async(function()
    local scope, seen
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "child")
      local inside, problem = pcall(function()
        local inner <close> = agather.timeout(5)
        scope = inner
        agather.sleep(10)
      end)
      assert.is_false(inside)
      seen = problem
      error(problem, 0)
    end)
    assert.is_false(ok)
    assert.same({ "child" }, values_in(err))
    assert.is_true(agather.is_error(seen, agather.CancelledError))
    assert.is_false(scope:expired())
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
  end))

  it("due in the tick in which a child fails: the group raises the child's error", async(function()
    local ok, err = pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "child")
      agather.sleep(0)
      local _ <close> = agather.timeout(1)
      agather.sleep(10)
    end)
    assert.is_false(ok)
    local values = values_in(err)
    assert.equal("child", values[1])
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
  end))
end)

describe("TaskGroup under the garbage collector", function()
  for _, mode in ipairs{ "incremental", "generational" } do
    it("works in " .. mode .. " mode with a step at every turn", function()
      local before = collectgarbage(mode)
      local _ <close> = closing(function() collectgarbage(before) end)
      testing.run(function()
        local sum = 0
        for round = 1, 20 do
          do
            local group <close> = agather.TaskGroup()
            for place = 1, 10 do
              group:spawn(function()
                collectgarbage("step")
                agather.sleep(place % 3)
                collectgarbage("step")
                sum = sum + place
              end)
            end
          end
          local values = errors_of(in_group(function(group)
            for place = 1, 10 do group:spawn(fail_in_cleanup, place % 2, { round }) end
            agather.sleep(1)
            collectgarbage("step")
            error({ "body" }, 0)
          end))
          assert.equal(11, #values)
          assert.same({ "body" }, values[11])
        end
        assert.equal(20 * 55, sum)
      end)
    end)
  end
end)

describe("A TaskGroup that waits for tasks at its end", function()
  it("a child that fails while the group waits at its end leaves the parent as it was", async(function()
    local ok = pcall(function()
      local group <close> = agather.TaskGroup()
      group:spawn(fail_after, 1, "bad")
      group:spawn(agather.sleep, 10)
    end)
    assert.is_false(ok)
    assert.equal(0, agather.current_task():cancelling())
    agather.sleep(1)
    assert.equal(2, now())
  end))

  it("a task that catches the group's error ends well", async(function()
    local task = agather.spawn(function()
      pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(fail_after, 1, "bad")
      end)
      return "caught"
    end)
    assert.equal("caught", task:await())
  end))

  it("a timeout around it does not take the group's cancellation for one from outside", async(function()
    local ok, err = pcall(function()
      local _ <close> = agather.timeout(3)
      pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(fail_after, 1, "bad")
      end)
      agather.sleep(10)
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.TimeoutError))
    assert.equal(3, now())
  end))

  it("cancelled from outside after a child failed: the count is 1, the next wait raises", async(function()
    local counts = {}
    local task = agather.spawn(function()
      local this = agather.current_task()
      assert.is_false((pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(function()
          local _ <close> = closing(function() agather.sleep(5) end)
          agather.sleep(100)
        end)
        group:spawn(fail_after, 1, "bad")
      end)))
      counts[1] = this:cancelling()
      assert.is_false((pcall(agather.sleep, 0)))
      counts[2] = this:cancelling()
      agather.sleep(1)
    end)
    agather.sleep(3)
    task:cancel()
    task:await()
    assert.same({ 1, 1 }, counts)
  end))
end)

describe("A TaskGroup that is interrupted", function()
  it("the errors that a KeyboardInterrupt hides are reported", function()
    local reports = support.capture(function()
      local ok, err = pcall(function()
        local group <close> = agather.TaskGroup()
        group:spawn(error, "hidden", 0)
        local _ <close> = closing(function() error(agather.KeyboardInterrupt(), 0) end)
        agather.sleep(1)
      end)
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.KeyboardInterrupt))
    end)
    assert.equal(1, #reports)
    assert.equal("hidden", reports[1].exception.value)
  end)
end)

describe("The options of a TaskGroup's task", function()
  it("are those of create_task; others are errors with the line of the script", async(function()
    local group <close> = agather.TaskGroup()
    local here = debug.getinfo(1, "S").short_src
    for text, options in pairs { ["table of options expected, got boolean"] = true, ["unknown option 'nam'"] = { nam = "x" },
      ["option 'context' must be a Context, got number"] = { context = 1 } } do
      local raised = raises("bad argument #2 to 'create_task' (" .. text, function()
        group:create_task(function() end, options)
      end)
      assert.equal(1, raised:find(here, 1, true), raised)
    end
    local options = { name = "named", context = agather.copy_context(), eager_start = true }
    assert.equal("named", group:create_task(function() end, options):get_name())
  end))

  it("that fail in a group that is never left are told", function()
    local reports = support.capture(function()
      agather.spawn(function()
        local group = agather.TaskGroup()
        group:spawn(error, "unseen", 0)
        agather.sleep(1)
      end)
      agather.sleep(2)
      collectgarbage()
      collectgarbage()
    end)
    assert.equal(1, #reports)
    assert.truthy(reports[1].message:find("was not left", 1, true))
    assert.equal("unseen", tostring(reports[1].exception))
  end)

  it("are no good without a coro: what is scheduled already is an error with the line of the script", async(function()
    local group <close> = agather.TaskGroup()
    local here = debug.getinfo(1, "S").short_src
    for _, scheduled in ipairs { agather.future(), agather.spawn(function() end) } do
      local raised = raises("bad argument #1 to 'create_task' (coroutine expected, got a future or task", function()
        group:create_task(scheduled)
      end)
      assert.equal(1, raised:find(here, 1, true), raised)
    end
  end))
end)
