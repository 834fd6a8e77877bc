local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

describe("handle", function()
  it("of call_soon runs its function with all arguments, in the next iteration", function()
    virtual(function()
      local got
      agather.get_running_loop():call_soon(function(...) got = table.pack(...) end, 1, nil, 3, nil)
      assert.is_nil(got)
      agather.sleep(0)
      assert.same({ 1, nil, 3, nil, n = 4 }, got)
    end)
  end)

  it("runs in the order of the calls", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      for i = 1, 5 do loop:call_soon(say, i) end
      agather.sleep(0)
    end)
    assert.same({ 1, 2, 3, 4, 5 }, log)
  end)

  it("runs in the iteration after the one that scheduled it", function()
    local log, say = support.log()
    virtual(function()
      local loop = agather.get_running_loop()
      loop:call_soon(function()
        say("one")
        loop:call_soon(say, "three")
      end)
      loop:call_soon(say, "two")
      agather.sleep(0)
      say("main")
      agather.sleep(0)
    end)
    assert.same({ "one", "two", "main", "three" }, log)
  end)

  it("of call_later and call_at runs when it is due", function()
    local times = {}
    virtual(function()
      local loop = agather.get_running_loop()
      local start = loop:time()
      local function note() times[#times + 1] = loop:time() - start end
      loop:call_later(2, note)
      loop:call_at(start + 1, note)
      loop:call_later(-1, note)
      loop:call_at(start - 100, note)
      agather.sleep(3)
    end)
    assert.same({ 0, 0, 1, 2 }, times)
  end)

  it("knows when it is due", function()
    virtual(function()
      local loop = agather.get_running_loop()
      assert.equal(loop:time() + 3, loop:call_later(3, print):when())
      assert.equal(7.5, loop:call_at(7.5, print):when())
      local soon = loop:call_soon(function() end)
      assert.is_nil(soon:when())
    end)
  end)

  it("does not run when it is cancelled", function()
    virtual(function()
      local loop, ran = agather.get_running_loop(), false
      local function run() ran = true end
      for _, handle in ipairs{ loop:call_soon(run), loop:call_later(1, run), loop:call_at(1, run) } do
        assert.is_false(handle:cancelled())
        handle:cancel()
        handle:cancel()
        assert.is_true(handle:cancelled())
      end
      agather.sleep(2)
      assert.is_false(ran)
    end)
  end)

  it("may be cancelled by one that runs in the same iteration", function()
    local reports = support.capture(function()
      local loop, ran, second = agather.get_running_loop(), false, nil
      loop:call_soon(function() second:cancel() end)
      second = loop:call_soon(function() ran = true end)
      agather.sleep(0)
      assert.is_false(ran)
    end)
    assert.same({}, reports)
  end)

  it("may be cancelled after it has run", function()
    virtual(function()
      local handle = agather.get_running_loop():call_soon(function() end)
      agather.sleep(0)
      assert.is_false(handle:cancelled())
      handle:cancel()
      assert.is_true(handle:cancelled())
    end)
  end)

  it("keeps its function alive until it has run", function()
    virtual(function()
      local held, ran = setmetatable({}, { __mode = "v" }), false
      do
        local function f() ran = true end
        held[1] = f
        agather.get_running_loop():call_later(5, f)
      end
      collectgarbage()
      assert.truthy(held[1])
      agather.sleep(6)
      assert.is_true(ran)
      collectgarbage()
      assert.is_nil(held[1])
    end)
  end)

  it("shows its function in its string", function()
    virtual(function()
      local function callback() end
      local handle = agather.get_running_loop():call_later(1, callback)
      local line = debug.getinfo(callback, "S").linedefined
      assert.equal("<Handle function <spec/core/handle_spec.lua:" .. line .. ">>", tostring(handle))
      handle:cancel()
      assert.equal("<Handle function <spec/core/handle_spec.lua:" .. line .. "> cancelled>", tostring(handle))
    end)
  end)

  it("that fails is reported with its function, and the loop goes on", function()
    local failure, ran = { code = 1 }, false
    local reports = support.capture(function()
      local loop = agather.get_running_loop()
      loop:call_soon(function() error(failure) end)
      loop:call_soon(function() error("text", 0) end)
      loop:call_soon(function() ran = true end)
      agather.sleep(0)
    end)
    assert.is_true(ran)
    assert.equal(2, #reports)
    assert.truthy(reports[1].message:find("^Exception in callback function <spec/core/handle_spec.lua:%d+>$"))
    assert.equal(failure, reports[1].exception.value)
    assert.equal("text", tostring(reports[2].exception))
  end)

  it("runs in no task", function()
    virtual(function()
      local tasks = {}
      agather.get_running_loop():call_soon(function() tasks[1] = tostring(agather.current_task()) end)
      agather.sleep(0)
      assert.same({ "nil" }, tasks)
    end)
  end)

  it("may be made before the loop runs", function()
    local runner <close> = agather.Runner{ clock = "virtual" }
    local ran = false
    runner:get_loop():call_soon(function() ran = true end)
    assert.is_false(ran)
    runner:run(function() agather.sleep(0) end)
    assert.is_true(ran)
  end)

  it("says what call_soon, call_later and call_at need", function()
    virtual(function()
      local loop = agather.get_running_loop()
      raises("bad argument #1 to 'call_soon' (function expected, got no value)", function() loop:call_soon() end)
      raises("bad argument #1 to 'call_soon' (function expected, got number)", function() loop:call_soon(5) end)
      raises("bad argument #1 to 'call_later' (number expected, got function)", function() loop:call_later(print) end)
      raises("bad argument #1 to 'call_later' (number expected, got nan)", function()
        loop:call_later(0 / 0, print)
      end)
      raises("bad argument #2 to 'call_later' (function expected, got no value)", function() loop:call_later(1) end)
      raises("bad argument #1 to 'call_at' (number expected, got string)", function() loop:call_at("noon", print) end)
      raises("bad argument #1 to 'call_at' (number expected, got nan)", function() loop:call_at(0 / 0, print) end)
      raises("bad argument #2 to 'call_at' (function expected, got nil)", function() loop:call_at(1, nil) end)
      raises("too many arguments for a callback", function()
        loop:call_soon(function() end, table.unpack({}, 1, 300))
      end)
    end)
  end)

  it("may be collected while its loop closes with a deadline left", function()
    local weak = setmetatable({}, { __mode = "v" })
    support.capture(function()
      local function stay() -- does not end when it is cancelled: it is closed with the loop
        local _ <close> = support.closing(function() collectgarbage() end)
        while true do pcall(agather.sleep, 1e9) end
      end
      for _ = 1, 5 do agather.spawn(stay) end
      weak[1] = agather.get_running_loop():call_later(1e9, function() end)
      for _ = 1, 5 do agather.spawn(stay) end
    end)
    collectgarbage()
    assert.is_nil(weak[1])
  end)

  it("says that a method was called on something else", function()
    virtual(function()
      local handle = agather.get_running_loop():call_soon(function() end)
      for _, name in ipairs{ "cancel", "cancelled", "when" } do
        raises("(Handle expected, got number)", handle[name], 5)
        raises("(Handle expected, got FILE*)", handle[name], io.stdout)
        raises("(Handle expected, got Future)", handle[name], agather.future())
      end
    end)
  end)
end)
