local agather = require "agather"
local progress = require "agather.progress"
local support = require "spec.support"
local testing = require "agather.testing"

local async, closing, raises = testing.async, support.closing, support.raises

local function sleeper(seconds, ...)
  local results = table.pack(...)
  return function() return agather.sleep(seconds, table.unpack(results, 1, results.n)) end
end

local function failing(seconds, problem)
  return function()
    agather.sleep(seconds)
    error(problem, 0)
  end
end

-- A function that is told, and the list of what it was told.
local function listener()
  local told = {}
  return told, function(done, total, failed) told[#told + 1] = ("%s/%s %s"):format(done, total, failed) end
end

-- luacheck: push ignore 122
-- Runs body on the virtual clock with a stderr that is a terminal or not; returns what was written there.
local function drawn(is_terminal, body, environment)
  local written = {}
  local isatty, stderr, getenv = agather.isatty, io.stderr, os.getenv
  local _ <close> = closing(function() agather.isatty, io.stderr, os.getenv = isatty, stderr, getenv end)
  agather.isatty = function(descriptor) return descriptor == 2 and is_terminal end
  io.stderr = {
    write = function(self, ...)
      for _, text in ipairs{ ... } do written[#written + 1] = text end
      return self
    end,
    flush = function() end,
  }
  os.getenv = function(name)
    if name == "NO_COLOR" then return environment end
    return getenv(name)
  end
  testing.run(body)
  return table.concat(written)
end
-- luacheck: pop

-- The drawings on a terminal, without what clears the line.
local function drawings(text)
  local list = {}
  for drawing in text:gmatch("\r\27%[K([^\r]*)") do list[#list + 1] = drawing end
  return list
end

describe("progress told to a function", function()
  it("by gather_list: done, total and failed, after each", async(function()
    local told, tell = listener()
    agather.gather_list({ sleeper(1), sleeper(3), sleeper(2) }, { progress = tell }):await()
    assert.same({ "1/3 0", "2/3 0", "3/3 0" }, told)
  end))

  it("by gather_list with a limit", async(function()
    local told, tell = listener()
    agather.gather_list({ sleeper(1), sleeper(1), sleeper(1) }, { limit = 1, progress = tell }):await()
    assert.same({ "1/3 0", "2/3 0", "3/3 0" }, told)
  end))

  it("by gather_list with duplicates: each counts once, the results stand in all places", async(function()
    local told, tell = listener()
    local twice = agather.async(agather.sleep)(1, "twice")
    local list = { twice, sleeper(2, "once"), twice }
    local results = agather.gather_list(list, { limit = 2, progress = tell }):await()
    assert.equal("twice once twice", table.concat(results, " "))
    assert.same({ "1/2 0", "2/2 0" }, told)
  end))

  it("by map over a list", async(function()
    for _, limit in ipairs{ 1, 2, 10, false } do
      local told, tell = listener()
      agather.map(function(item) agather.sleep(item) end, { 1, 2, 3 }, { limit = limit or nil, progress = tell })
      assert.same({ "1/3 0", "2/3 0", "3/3 0" }, told)
    end
  end))

  it("by map over an iterator: there is no total", async(function()
    local told, tell = listener()
    agather.map(function() agather.sleep(1) end, ("a b c"):gmatch("%a"), { limit = 2, progress = tell })
    assert.same({ "1/nil 0", "2/nil 0", "3/nil 0" }, told)
  end))

  it("counts failures among the done where they are returned", async(function()
    for _, limit in ipairs{ 1, 3, false } do
      local told, tell = listener()
      agather.map(function(item)
        agather.sleep(item)
        if item == 2 then error("bad", 0) end
      end, { 1, 2, 3 }, { limit = limit or nil, return_exceptions = true, progress = tell })
      assert.same({ "1/3 0", "2/3 1", "3/3 1" }, told)
    end
  end))

  it("counts the failure that ends it", async(function()
    for _, limit in ipairs{ 1, 3 } do
      local told, tell = listener()
      raises("bad", agather.await,
        agather.gather_list({ sleeper(1), failing(2, "bad") }, { limit = limit, progress = tell }))
      assert.same({ "1/2 0", "2/2 1" }, told)
    end
  end))

  it("is told nothing where there is nothing to do", async(function()
    local told, tell = listener()
    agather.gather_list({}, { progress = tell }):await()
    agather.map(print, {}, { progress = tell })
    assert.same({}, told)
  end))

  it("may raise errors: they go to the exception handler, and the work goes on", async(function()
    local reports = {}
    agather.get_running_loop():set_exception_handler(function(context) reports[#reports + 1] = context end)
    local results = agather.gather_list({ sleeper(1, "a"), sleeper(2, "b") }, {
      limit = 1,
      progress = function(done) error("telling " .. done, 0) end,
    }):await()
    assert.equal("a b", table.concat(results, " "))
    assert.equal(2, #reports)
    assert.equal("Exception in progress function", reports[1].message)
    assert.equal("telling 1", reports[1].exception.value)
    assert.equal("telling 2", reports[2].exception.value)
  end))

  it("that raises in map without a limit, too", async(function()
    local reports = {}
    agather.get_running_loop():set_exception_handler(function(context) reports[#reports + 1] = context end)
    local function tell() error("x", 0) end
    local results = agather.map(function(item) return item end, { 1, 2, 3 }, { progress = tell })
    assert.equal(3, results.n)
    assert.equal(3, #reports)
  end))

  it("writes nothing to stderr", function()
    for _, is_terminal in ipairs{ true, false } do
      assert.equal("", drawn(is_terminal, function()
        agather.gather_list({ sleeper(1) }, { progress = function() end }):await()
      end))
    end
  end)
end)

describe("progress off", function()
  it("writes nothing", function()
    assert.equal("", drawn(true, function()
      agather.gather_list({ sleeper(1) }, { limit = 1, progress = false }):await()
      agather.gather_list({ sleeper(1) }, { limit = 1 }):await()
      agather.map(function() end, { 1, 2 })
    end))
  end)

  it("alone gives what a plain gather_list gives", async(function()
    assert.same({ "a", n = 1 }, agather.gather_list({ sleeper(1, "a") }, { progress = false }):await())
  end))
end)

describe("progress where stderr is no terminal", function()
  it("is one line at the end", function()
    assert.equal("3/3  100%  1.0/s  0:03\n", drawn(false, function()
      agather.gather_list({ sleeper(1), sleeper(1), sleeper(1) }, { limit = 1, progress = true }):await()
    end))
  end)

  it("is one line of map, too", function()
    for _, limit in ipairs{ 1, false } do
      local text = drawn(false, function()
        agather.map(function() end, { 1, 2 }, { limit = limit or nil, progress = true })
      end)
      assert.equal("2/2  100%  0.0/s  0:00\n", text)
    end
  end)

  it("has no total where the number of items is not known", function()
    assert.equal("3  3.0/s  0:01\n", drawn(false, function()
      agather.map(function() agather.sleep(1) end, ("a b c"):gmatch("%a"), { limit = 3, progress = true })
    end))
  end)

  it("has the number of failures, without colour", function()
    assert.equal("2/2  100%  1.0/s  0:02  failed 1\n", drawn(false, function()
      agather.gather_list({ sleeper(1), failing(1, "bad") }, { limit = 1, return_exceptions = true, progress = true })
        :await()
    end))
  end)

  it("is one line when an error ends it", function()
    assert.equal("1/3  33%  1.0/s  0:01  failed 1\n", drawn(false, function()
      raises("bad", agather.await,
        agather.gather_list({ failing(1, "bad"), sleeper(1), sleeper(1) }, { limit = 1, progress = true }))
    end))
  end)

  it("is one line when it is cancelled", function()
    local text = drawn(false, function()
      local group = agather.gather_list({ sleeper(1), sleeper(1), sleeper(1) }, { limit = 1, progress = true })
      agather.sleep(1.5)
      group:cancel()
      assert.is_false((pcall(group.await, group)))
    end)
    assert.is_truthy(text:match("^%d/3  %d+%%[^\n]*\n$"), text)
  end)

  it("of nothing to do is a line that says so", function()
    assert.equal("0/0  100%  0.0/s  0:00\n", drawn(false, function()
      agather.gather_list({}, { progress = true }):await()
    end))
  end)

  it("of as_completed is one line", function()
    assert.equal(1, select(2, drawn(false, function()
      for task in agather.as_completed({ sleeper(1), sleeper(2) }, { progress = true }) do task:await() end
    end):gsub("\n", "\n")))
  end)

  it("goes to stderr, and stdout is left to the script", function()
    local output = support.script([[
      agather.run(function()
        print(agather.gather_list({ function() return "out" end }, { progress = true }):await()[1])
      end)
    ]])
    assert.is_truthy(output:match("^out\n1/1  100%%  [%d.]+/s  0:00\n$"), output)
  end)
end)

describe("progress on a terminal", function()
  it("draws over its line, and ends it", function()
    local text = drawn(true, function()
      agather.gather_list({ sleeper(1), sleeper(1), sleeper(1), sleeper(1) }, { limit = 1, progress = true }):await()
    end)
    assert.same({
      "1/4  25%  1.0/s  0:01  left 0:03",
      "2/4  50%  1.0/s  0:02  left 0:02",
      "3/4  75%  1.0/s  0:03  left 0:01",
      "4/4  100%  1.0/s  0:04  left 0:00",
      "4/4  100%  1.0/s  0:04\n",
    }, drawings(text))
    assert.equal(1, select(2, text:gsub("\n", "\n")))
  end)

  it("is drawn at most ten times a second", function()
    local text = drawn(true, function()
      agather.map(function() agather.sleep(1 / 1024) end, ("x"):rep(1024):gmatch("x"), { limit = 1, progress = true })
    end)
    local count = #drawings(text)
    assert.is_true(count >= 8 and count <= 12, "drawn " .. count .. " times")
  end)

  it("shows failures in red", function()
    local function body()
      agather.gather_list({ failing(1, "bad") }, { return_exceptions = true, progress = true }):await()
    end
    assert.is_truthy(drawn(true, body):find("\27[31mfailed 1\27[0m\n", 1, true))
    assert.is_truthy(drawn(true, body, ""):find("\27[31mfailed 1\27[0m\n", 1, true))
  end)

  it("has no colours where NO_COLOR is set", function()
    local text = drawn(true, function()
      agather.gather_list({ failing(1, "bad") }, { return_exceptions = true, progress = true }):await()
    end, "1")
    assert.is_truthy(text:find("failed 1\n", 1, true))
    assert.is_nil(text:find("\27[31m", 1, true))
  end)
end)

describe("a line of progress", function()
  it("shows minutes, and hours where there are some", function()
    assert.equal("1/2  50%  0.0/s  1:01  left 1:01", progress.line(1, 2, 0, 61, false, false))
    assert.equal("1/2  50%  0.0/s  1:01:01", progress.line(1, 2, 0, 3661, false, true))
  end)

  it("rounds the percentage down: 100% is all", function()
    assert.equal("999/1000  99%  9.9/s  1:41", progress.line(999, 1000, 0, 101, false, true))
  end)

  it("needs no time to have passed", function()
    assert.equal("0/5  0%  0.0/s  0:00", progress.line(0, 5, 0, 0, false, false))
    assert.equal("5/5  100%  0.0/s  0:00", progress.line(5, 5, 0, 0, false, false))
  end)

  it("needs no total", function()
    assert.equal("7  3.5/s  0:02  failed 2", progress.line(7, nil, 2, 2, false, false))
  end)

  it("shows failures only where there are some", function()
    assert.is_nil(progress.line(1, 2, 0, 1, true, true):find("failed", 1, true))
    assert.is_truthy(progress.line(1, 2, 3, 1, true, true):find("\27[31mfailed 3\27[0m", 1, true))
    assert.is_truthy(progress.line(1, 2, 3, 1, false, true):find("  failed 3", 1, true))
  end)
end)

describe("progress under the garbage collector", function()
  for _, mode in ipairs{ "incremental", "generational" } do
    it("works in " .. mode .. " mode with a step at every turn", function()
      local before = collectgarbage(mode)
      local _ <close> = closing(function() collectgarbage(before) end)
      local calls = 0
      local text = drawn(false, function()
        local list = {}
        for place = 1, 100 do
          list[place] = function()
            collectgarbage("step")
            agather.sleep(place % 2)
          end
        end
        agather.gather_list(list, {
          limit = 7,
          progress = function()
            collectgarbage("step")
            calls = calls + 1
          end,
        }):await()
        agather.gather_list(list, { limit = 7, progress = true }):await()
      end)
      assert.equal(100, calls)
      assert.equal("100/100  100%", text:match("^%S+  %S+"))
    end)
  end
end)

describe("progress on a terminal", function()
  local function draw_all(body)
    local written = {}
    local isatty, stderr = agather.isatty, io.stderr
    local _ <close> = closing(function() agather.isatty, io.stderr = isatty, stderr end)
    agather.isatty = function() return true end
    io.stderr = {
      write = function(self, ...)
        for _, text in ipairs{ ... } do written[#written + 1] = text end
        return self
      end,
      flush = function() end,
    }
    testing.run(body)
    return table.concat(written)
  end
  for name, limit in pairs{ ["without a limit"] = false, ["with a limit"] = 3 } do
    it("draws nothing after its last line, " .. name, function()
      local text = draw_all(function()
        pcall(agather.map, function(item)
          agather.sleep(item)
          if item == 1 then error("bad", 0) end
        end, { 1, 2, 3 }, { progress = true, limit = limit or nil })
        agather.sleep(10)
      end)
      assert.equal("\n", text:sub(-1))
    end)
    it("is told nothing of items that were not started, " .. name, async(function()
      local most = 0
      local task = agather.spawn(agather.map, print, function() agather.sleep(100) end,
        { limit = limit or nil, progress = function(done) most = math.max(most, done) end })
      agather.sleep(1)
      task:cancel()
      pcall(task.await, task)
      assert.equal(0, most)
    end))
  end
end)
