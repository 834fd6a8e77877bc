-- Memory that fails at every allocation, and a collection at every allocation, while a script uses every builtin of
-- the core: see torture.c, and torture_host.c for a host that drives the loop.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "torture")

local function torture(mode, script)
  local pipe = assert(io.popen(("%s %s spec/embed/%s 2>&1"):format(program, mode, script or "builtins.lua")))
  local output = pipe:read("a")
  return pipe:close(), output
end

describe("a state whose memory fails", function()
  it("goes on or closes, whichever allocation was the first to fail", function()
    local ok, output = torture("memory")
    assert.is_true(ok, output)
    assert.is_true(tonumber(output:match("(%d+) runs\n$")) > 500, output)
  end)

  it("keeps everything that it still needs when Lua collects at every allocation", function()
    local ok, output = torture("collect")
    assert.is_true(ok, output)
    assert.equal("1 run\n", output:match("[^\n]*\n$"))
  end)

  it("goes on or closes while streams are used", function()
    local ok, output = torture("memory", "streams.lua 1 agather.net")
    assert.is_true(ok, output)
    assert.is_true(tonumber(output:match("(%d+) runs\n$")) > 200, output)
  end)

  it("keeps what streams still need when Lua collects at every allocation", function()
    local ok, output = torture("collect", "streams.lua 1 agather.net")
    assert.is_true(ok, output)
    assert.equal("1 run\n", output:match("[^\n]*\n$"))
  end)
end)

describe("a host whose memory fails", function()
  -- AGATHER_TORTURE=full tries every allocation, which takes a minute.
  local step = os.getenv("AGATHER_TORTURE") == "full" and 1 or 17

  for mode, what in pairs {
    plain = "goes on with other tasks, whichever allocation was the first to fail",
    restricted = "goes on with other tasks where it also sets limits and restricts",
  } do
    it(what, function()
      local log = os.tmpname()
      local pipe = assert(io.popen(("ASAN_OPTIONS=log_path=%s timeout 300 %s_host %s spec/embed/builtins.lua %d")
        :format(log, program, mode, step)))
      local output = pipe:read("a")
      local ok = pipe:close()
      os.execute("cat " .. log .. "*; rm -f " .. log .. "*")
      assert.is_true(ok, output)
      assert.is_true(tonumber(output:match("(%d+) runs\n$")) > 4000 / step, output)
    end)
  end
end)
