local agather = require "agather"
local support = require "spec.support"
local testing = require "agather.testing"

local closing, raises = support.closing, support.raises

local function now() return agather.get_running_loop():time() end

-- testing.run(body, options) must raise an error that lists as many lines as given and holds the text; returns it.
local function leaves(count, text, body, options)
  local err = tostring(raises(text, testing.run, body, options))
  assert.equal("the spec left something behind:", err:match("^[^\n]*"))
  assert.equal(count, select(2, err:gsub("\n", "\n")))
  return err
end

describe("testing.run", function()
  it("runs the body as a task and gives its results", function()
    assert.same({ "a", nil, "c", n = 3 }, table.pack(testing.run(function()
      assert(agather.current_task())
      return "a", nil, "c"
    end)))
    assert.equal(0, select("#", testing.run(function() end)))
  end)

  it("passes arguments to the body", function()
    assert.same({ 3, 1, nil, 3 }, { testing.run(function(...) return select("#", ...), ... end, nil, 1, nil, 3) })
  end)

  it("stands on the virtual clock, which begins anew each time", function()
    for _ = 1, 2 do
      testing.run(function()
        assert.equal(0, now())
        agather.sleep(3600)
        assert.equal(3600, now())
      end)
    end
  end)

  it("refuses a clock that there is not", function()
    local ok, err = pcall(testing.run, now, { clock = "sun" })
    assert.is_false(ok)
    assert.matches("testing_spec%.lua:%d+: bad argument #2 to 'run' %(option 'clock' must be .virtual. or .real., got sun", err)
  end)

  it("stands on the real clock when told to", function()
    local before = testing.run(now, { clock = "real" })
    assert.is_true(before > 0)
    assert.is_true(testing.run(now, { clock = "real" }) >= before)
    raises("option 'clock' must be", testing.run, function() end, { clock = "wall" })
  end)

  it("raises the very error that the body raised", function()
    local failure = {}
    assert.equal(failure, select(2, pcall(testing.run, function()
      agather.sleep(1)
      error(failure)
    end)))
  end)

  it("raises the body's text with its traceback", function()
    local err = raises("oops", testing.run, function()
      agather.sleep(1)
      error("oops")
    end)
    assert.truthy(err:match("^%S*testing_spec.lua:%d+: oops\nstack traceback:\n"))
  end)

  it("raises the failure of an assertion as it is", function()
    local ok, err = pcall(testing.run, function()
      agather.sleep(1)
      assert.equal(1, 2)
    end)
    assert.is_false(ok)
    assert.truthy(tostring(err):find("Expected objects to be equal", 1, true))
  end)

  it("raises the error that a task of the body raised, when the body asks for it", function()
    local failure = {}
    assert.equal(failure, select(2, pcall(testing.run, function() agather.spawn(error, failure):await() end)))
  end)

  it("raises the body's own error rather than what it left behind", function()
    local err = raises("mine", testing.run, function()
      agather.spawn(agather.sleep, 100)
      error("mine", 0)
    end)
    assert.is_nil(err:find("left", 1, true))
  end)

  it("raises a cancellation of the body", function()
    local ok, err = pcall(testing.run, function()
      agather.current_task():cancel()
      agather.sleep(1)
    end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.CancelledError))
  end)

  it("raises a deadlock instead of waiting for ever", function()
    local ok, err = pcall(testing.run, function() agather.Event():wait() end)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.DeadlockError))
    assert.truthy(tostring(err):find("wait_for=<Event>", 1, true))
  end)

  it("has nothing against tasks that have ended", function()
    testing.run(function()
      agather.spawn(agather.sleep, 1):await()
      local task = agather.spawn(agather.sleep, 100)
      agather.sleep(0)
      task:cancel()
      pcall(task.await, task)
      pcall(agather.await, agather.spawn(error, "asked for"))
    end)
  end)

  it("has nothing against tasks that are about to end", function()
    testing.run(function() agather.spawn(function() end) end)
    testing.run(function()
      local task = agather.spawn(agather.sleep, 100)
      agather.sleep(0)
      task:cancel()
    end)
  end)

  it("has nothing against timers, handles and pending futures", function()
    testing.run(function()
      agather.get_running_loop():call_later(100, error, "never")
      agather.future()
    end)
  end)

  it("lists the tasks that the body left", function()
    local err = leaves(2, "task left behind: ", function()
      agather.spawn(agather.sleep, 100):set_name("sleeper")
      agather.spawn(function() agather.Event():wait() end):set_name("waiter")
    end)
    assert.truthy(err:find("\n  task left behind: <Task pending name='sleeper'", 1, true))
    assert.truthy(err:find("\n  task left behind: <Task pending name='waiter'", 1, true))
    assert.truthy(err:find("wait_for=<Event>", 1, true))
  end)

  it("lists tasks that tasks of the body left", function()
    leaves(1, "task left behind: <Task pending name='inner'", function()
      agather.spawn(function() agather.spawn(agather.sleep, 5):set_name("inner") end):await()
    end)
  end)

  it("cancels the tasks that were left, so that they clean up", function()
    local log = {}
    leaves(1, "task left behind", function()
      agather.spawn(function()
        local _ <close> = closing(function(_, err) log[#log + 1] = tostring(err) end)
        agather.sleep(100)
      end)
      agather.sleep(0)
    end)
    assert.same({ "CancelledError" }, log)
  end)

  it("lists the error of a task that nobody asked for", function()
    leaves(1, "Task exception was never retrieved: <Task failed name='loser'", function()
      agather.spawn(error, "lost", 0):set_name("loser")
      agather.sleep(1)
    end)
    leaves(1, ": lost", function() agather.spawn(error, "lost", 0) end)
  end)

  it("lists the error of a task that the body still holds", function()
    local task
    leaves(1, "Task exception was never retrieved", function() task = agather.spawn(error, "lost", 0) end)
    assert.is_true(task:done())
  end)

  it("lists the error of a future that nobody asked for", function()
    leaves(1, "Future exception was never retrieved: <Future failed>: lost", function()
      agather.future():set_exception("lost")
    end)
  end)

  it("lists the error of a cleanup that was cancelled at the end", function()
    local err = leaves(2, "task left behind", function()
      agather.spawn(function()
        local _ <close> = closing(function() error("in cleanup", 0) end)
        agather.sleep(100)
      end)
      agather.sleep(0)
    end)
    assert.truthy(err:find(": in cleanup", 1, true))
  end)

  it("lists a task that goes on when it is cancelled", function()
    leaves(2, "Task was destroyed but it is pending", function()
      agather.spawn(function() while true do pcall(agather.sleep, 100) end end)
      agather.sleep(0)
    end)
  end)

  it("lists an error of a callback", function()
    leaves(1, "Exception in callback", function()
      agather.get_running_loop():call_soon(error, "in callback", 0)
      agather.sleep(1)
    end)
  end)

  it("lists a coro that was never awaited", function()
    local function forgotten() end
    leaves(1, "was never awaited", function() agather.async(forgotten)() end)
    leaves(2, "was never awaited", function()
      agather.async(forgotten)()
      agather.async(forgotten)()
    end)
  end)

  it("says where a coro was made that was never awaited, when it debugs", function()
    leaves(1, "testing_spec.lua", function() agather.async(function() end)() end, { debug = true })
  end)

  it("keeps what one run left out of the next", function()
    for _ = 1, 2 do
      leaves(1, "task left behind", function() agather.spawn(agather.sleep, 100) end)
      testing.run(function() assert.equal(1, #agather.all_tasks()) end)
    end
  end)
end)

describe("testing.async", function()
  it("makes a function that runs the body, each time anew", function()
    local f = testing.async(function(...)
      assert.equal(0, now())
      agather.sleep(5)
      return now(), ...
    end)
    assert.same({ 5, "a", "b" }, { f("a", "b") })
    assert.same({ 5 }, { f() })
  end)

  it("takes the options of run", function()
    assert.is_true(testing.async(now, { clock = "real" })() > 0)
  end)

  describe("in a busted hook", function()
    local value
    before_each(testing.async(function()
      agather.sleep(3)
      value = now()
    end))

    it("has run before the spec", function() assert.equal(3, value) end)
    it("has run in a loop of its own", testing.async(function()
      assert.equal(3, value)
      assert.equal(0, now())
    end))
  end)

  it("fails what leaves a task behind", function()
    raises("task left behind", testing.async(function() agather.spawn(agather.sleep, 1) end))
  end)
end)

describe("testing.it", function()
  local count = 0

  testing.it("runs its body in a task", function()
    count = count + 1
    agather.sleep(10)
    assert.equal(10, now())
  end)

  testing.it("takes options", function() assert.is_true(now() > 0) end, { clock = "real" })

  it("has run once", function() assert.equal(1, count) end)

  testing.it("knows finally", function()
    finally(function() count = count + 1 end)
    agather.sleep(1)
    assert.equal(1, count)
  end)

  it("has run what finally was given", function() assert.equal(2, count) end)

  -- Runs busted on a spec of its own; returns its TAP output and whether it succeeded.
  local function busted(text)
    local path = os.tmpname()
    local spec = path .. "_spec.lua"
    local file = assert(io.open(spec, "w"))
    file:write('local agather = require "agather"\nlocal it = require("agather.testing").it\n', text)
    file:close()
    local pipe = assert(io.popen("timeout 20 lua5.4 /usr/bin/busted --ignore-lua -o TAP " .. spec .. " 2>&1"))
    local output = "\n" .. pipe:read("a")
    local ok = pipe:close()
    os.remove(path)
    os.remove(spec)
    return output, ok == true
  end

  it("makes specs of busted that pass and fail for their reasons", function()
    local output, ok = busted [[
      describe("group", function()
        it("passes", function() agather.sleep(1) end)
        it("asserts", function()
          agather.sleep(1)
          assert.equal(1, 2)
        end)
        it("raises", function() error("oops", 0) end)
        it("leaves a task", function() agather.spawn(agather.sleep, 100) end)
        it("leaves an error", function() agather.spawn(error, "lost", 0) end)
        it("forgets a coro", function() agather.async(function() end)() end)
        it("is put off", function() pending("later") end)
        it("passes again", function() assert.equal(1, #agather.all_tasks()) end)
      end)
    ]]
    assert.is_false(ok)
    assert.truthy(output:find("\n1..8\n", 1, true), output)
    assert.truthy(output:find("\nok 1 - group passes\n", 1, true), output)
    for _, name in ipairs { "asserts", "raises", "leaves a task", "leaves an error", "forgets a coro" } do
      assert.truthy(output:find("\nnot ok %d %- group " .. name .. "\n"), output)
    end
    assert.truthy(output:find("\nok 7 %- # SKIP [^\n]*later\n"), output)
    assert.truthy(output:find("\nok %d %- group passes again\n"), output)
    assert.truthy(output:find("Expected objects to be equal", 1, true), output)
    assert.truthy(output:find("task left behind: <Task pending", 1, true), output)
    assert.truthy(output:find("Task exception was never retrieved", 1, true), output)
    assert.truthy(output:find("was never awaited", 1, true), output)
  end)

  it("tells busted the line of the assertion that failed", function()
    local output = busted 'it("asserts", function()\n  agather.sleep(1)\n  assert.is_true(false)\nend)\n'
    assert.truthy(output:find("_spec.lua:5: Expected objects to be the same", 1, true), output)
  end)

  it("tells busted the file of the spec", function()
    local output = busted 'it("fails", function() agather.spawn(agather.sleep, 100) end)\n'
    assert.truthy(output:find("_spec.lua @ 3", 1, true), output)
  end)

  it("lets a file of passing specs succeed", function()
    local output, ok = busted 'it("passes", function() agather.sleep(1e6) end)\n'
    assert.is_true(ok, output)
    assert.truthy(output:find("ok 1 - passes", 1, true), output)
  end)
end)

local plain_it = _ENV.it

describe("testing, used oddly,", function()
  plain_it("it without a body is pending", function()
    local path = os.tmpname()
    local file = assert(io.open(path .. "_spec.lua", "w"))
    file:write('require("agather.testing").it("later")\n')
    file:close()
    local output = io.popen("lua5.4 /usr/bin/busted --ignore-lua -o TAP " .. path .. "_spec.lua 2>&1"):read("a")
    os.remove(path)
    os.remove(path .. "_spec.lua")
    assert.truthy(output:find("SKIP", 1, true), output)
  end)
  it("run inside a loop says so", testing.async(function()
    support.raises("testing.run: a loop runs already", testing.run, print)
  end))
end)
