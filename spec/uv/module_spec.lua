-- src/uv/module.c
local agather = require "agather"

describe("agather.uv", function()
  it("is one table however often it is opened, so that streams keep the methods that are in Lua", function()
    local uv = require "agather.uv"
    local name = "luaopen_agather_uv"
    local open = assert(package.loadlib(assert(package.searchpath("agather.uv", package.cpath)), name))
    assert.equal(agather.net and uv, open())
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local stream <close> = agather.net.connect("127.0.0.1", (select(2, listener:local_address())))
      assert.equal("function", type(stream.pipe))
    end)
  end)
end)
