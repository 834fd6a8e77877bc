local agather = require "agather"

local function job(value, delay)
  return agather.async(function()
    agather.sleep(delay or 0)
    return value
  end)()
end

local function virtual(main)
  local runner <close> = agather.Runner{ clock = "virtual" }
  return runner:run(main)
end

describe("gather", function()
  it("keeps the order of its arguments", function()
    local r = virtual(function()
      return agather.await(agather.gather(job("a", 3), job("b", 1), job("c", 2)))
    end)
    assert.same({ "a", "b", "c", n = 3 }, r)
  end)

  it("is done at once and empty without arguments", function()
    virtual(function()
      local group = agather.gather()
      assert.is_true(group:done())
      assert.same({ n = 0 }, group:await())
    end)
  end)

  it("runs the same awaitable once and fills both places", function()
    local runs = 0
    local r = virtual(function()
      local task = agather.spawn(function() runs = runs + 1 return 7 end)
      local coro = job(8)
      return agather.gather(task, task, coro, coro):await()
    end)
    assert.equal(1, runs)
    assert.same({ 7, 7, 8, 8, n = 4 }, r)
  end)

  it("gives the very error to the awaiter and lets the others run on", function()
    local log = {}
    virtual(function()
      local failure = { code = 42 }
      local ok, err = pcall(agather.await, agather.gather(
        function() error(failure) end,
        function() agather.sleep(1) log[#log + 1] = "ran on" end))
      assert.is_false(ok)
      assert.equal(failure, err)
      agather.sleep(2)
    end)
    assert.same({ "ran on" }, log)
  end)

  it("cancels the siblings first with cancel_on_error", function()
    local log = {}
    virtual(function()
      local ok, err = pcall(agather.await, agather.gather(
        function() error("boom", 0) end,
        function()
          local _ <close> = setmetatable({}, { __close = function() agather.sleep(1) log[#log + 1] = "cleaned" end })
          agather.sleep(10)
        end,
        { cancel_on_error = true }))
      log[#log + 1] = tostring(err)
      assert.is_false(ok)
    end)
    assert.same({ "cleaned", "boom" }, log)
  end)

  it("returns error objects with return_exceptions", function()
    virtual(function()
      local r = agather.gather(job(1), function() error("boom", 0) end, { return_exceptions = true }):await()
      assert.equal(1, r[1])
      assert.is_true(agather.is_error(r[2]))
      assert.equal("boom", r[2].value)
      assert.equal("boom", tostring(r[2]))
      assert.truthy(r[2].traceback:find("gather_spec", 1, true))
    end)
  end)

  it("cancels every child when it is cancelled", function()
    virtual(function()
      local tasks = {}
      for i = 1, 3 do tasks[i] = agather.create_task(job(i, 10)) end
      local group = agather.gather_list(tasks)
      agather.sleep(0)
      assert.is_true(group:cancel("why"))
      local ok, err = pcall(group.await, group)
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.CancelledError))
      assert.equal("why", tostring(err))
      agather.sleep(0)
      for i = 1, 3 do assert.is_true(tasks[i]:cancelled()) end
    end)
  end)

  it("points to gather_list when it is given a list", function()
    virtual(function()
      assert.error_matches(function() agather.gather({ job(1) }) end, "gather_list")
      assert.error_matches(function() agather.gather(42) end, "awaitable expected, got number")
    end)
  end)

  it("takes a hundred thousand children", function()
    local r = virtual(function()
      local list = {}
      for i = 1, 100000 do list[i] = job(i) end
      return agather.gather_list(list):await()
    end)
    assert.equal(100000, r.n)
    assert.equal(77777, r[77777])
  end)
end)
