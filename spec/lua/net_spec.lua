local agather = require "agather"
local net = require "spec.support.net"
local stream = require "agather.stream"
local support = require "spec.support"
local uv = require "agather.uv"

local function names_of(methods)
  local names = {}
  for name, value in pairs(methods) do
    if type(value) == "function" then names[name] = true end
  end
  return names
end

local function annotated(path, owner)
  local names = {}
  for line in io.lines(path) do
    local class, name = line:match("^function ([%w_]+)[.:]([%w_]+)%(")
    if class == owner then names[name] = true end
  end
  return names
end

describe("agather.net", function()
  it("annotates every method of what is in C, and no other", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local socket <close> = agather.net.udp()
      assert.same(names_of(getmetatable(listener).__index), annotated("lua/agather/net_meta.lua", "Listener"))
      assert.same(names_of(getmetatable(socket).__index), annotated("lua/agather/net_meta.lua", "UDP"))
    end)
  end)

  it("gives streams in C and over transports the same methods", function()
    local wrapped = stream.wrap({})
    assert.same(names_of(uv.stream_methods), names_of(getmetatable(wrapped).__index))
  end)

  it("loads nothing that needs a library before it is used", function()
    local output = support.script [[
      agather.run(agather.sleep, 0)
      for _, name in ipairs { "uv", "ssl", "curl", "jansson" } do print(package.loaded["agather." .. name]) end
    ]]
    assert.equal(("nil\n"):rep(4), output)
  end)

  it("takes nothing of the system before it is used", function()
    local before = net.descriptors()
    assert.is_function(agather.net.connect)
    assert.equal(before, net.descriptors())
  end)
end)
