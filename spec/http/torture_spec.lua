-- Lua collects at every allocation while agather.http and agather.json are used: what is not anchored is gone.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "torture")

describe("a state that collects at every allocation", function()
  it("keeps everything that a request and JSON need", function()
    local pipe = assert(io.popen(("%s collect spec/http/torture.lua 2>&1"):format(program)))
    local output = pipe:read("a")
    assert.is_true(pipe:close(), output)
    assert.equal("1 run\n", output)
  end)
end)
