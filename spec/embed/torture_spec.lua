-- Memory that fails at every allocation, and a collection at every allocation, while a script uses every builtin of
-- the core: see torture.c.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "torture")

local function torture(mode)
  local pipe = assert(io.popen(("%s %s spec/embed/builtins.lua 2>&1"):format(program, mode)))
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
end)
