-- SECURITY.md: the specs that it names are there, and its server stands what peers do to it.
local agather = require "agather"
local net = require "spec.support.net"
local system = require "spec.support.system"

local text = system.slurp("SECURITY.md")

describe("SECURITY.md", function()
  it("names specs that are there", function()
    local count = 0
    for file, sentence in text:gmatch('%]%((spec/[%w_/]+%.lua)%)%s+"([^"]+)"') do
      count = count + 1
      assert.is_truthy(system.slurp(file):find('it("' .. sentence, 1, true), file .. ": " .. sentence)
    end
    assert.is_true(count >= 35)
    assert.are.equal(count, select(2, text:gsub("_spec%.lua%) ", "")))
  end)
end)

describe("the server of SECURITY.md", function()
  local seen

  -- Runs attack(connect) against it, with times that are a tenth of what they are there.
  local function attacked(attack)
    seen = {}
    local code, found = text:match("(local MOST_LINES.-)\n```"):gsub("timeout%(10%)", "timeout(0.2)")
    assert.are.equal(1, found)
    local environment = setmetatable({ agather = agather, log = function(_, what) seen[#seen + 1] = what end },
      { __index = _G })
    local handler, options = load(code .. "\nreturn answer, options", "SECURITY.md", "t", environment)()
    net.with_server(handler, function(port) attack(function() return agather.net.connect("127.0.0.1", port) end) end,
      options)
    return seen
  end

  -- All that the server has for a peer that says this, and then waits.
  local function said(connect, ...)
    local stream <close> = connect()
    local ok, err = pcall(stream.write, stream, ...)
    local _ <close> = agather.timeout(60)
    local got
    if ok then
      ok, got = pcall(stream.read, stream, "a")
    end
    return ok and got or "", err
  end

  it("answers", function()
    attacked(function(connect)
      assert.are.equal("you asked: GET /\n", said(connect, "GET /\nHost: here\n\n"))
    end)
    assert.are.same({}, seen)
  end)

  it("leaves peers that are silent, and those that go on without an end", function()
    attacked(function(connect)
      assert.are.equal("", said(connect, "GET /"))
      local stream <close> = connect()
      local ended = pcall(function()
        for _ = 1, 1000 do
          stream:write("x\n")
          agather.sleep(0.02)
        end
      end)
      assert.is_false(ended)
    end)
    assert.are.equal(2, #seen)
    for _, what in ipairs(seen) do assert.is_truthy(what:find("TimeoutError", 1, true) or what:find("time", 1, true)) end
  end)

  it("reads no long line, and not too many lines", function()
    attacked(function(connect)
      assert.are.equal("", said(connect, ("x"):rep(100000)))
      assert.are.equal("", said(connect, ("x: y\n"):rep(1000)))
    end)
    assert.are.equal(1, #seen)
    assert.is_truthy(seen[1]:find("8192", 1, true))
  end)

  it("serves others beside a hundred that are silent, when their time is over", function()
    attacked(function(connect)
      local streams = {}
      for place = 1, 120 do streams[place] = connect() end
      assert.are.equal("you asked: hello\n", said(connect, "hello\n\n"))
      for _, stream in ipairs(streams) do stream:abort() end
    end)
  end)
end)
