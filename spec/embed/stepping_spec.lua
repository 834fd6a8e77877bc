-- A host that waits for nothing but what ag_timeout and ag_fd say misses nothing, and does not only look.
local core = assert(package.searchpath("agather.core", package.cpath))

local function stepped(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write("local agather = require 'agather'\n", text)
  file:close()
  local pipe = assert(io.popen("timeout 20 " .. core:gsub("agather/core%.so$", "stepping") .. " " .. path .. " 2>&1"))
  local output = pipe:read("a")
  local ok = pipe:close()
  os.remove(path)
  return output, ok
end

describe("a host that steps", function()
  it("hears of deadlines that the poller alone knows", function()
    local output, ok = stepped [[
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local _, port = listener:local_address()
      local silent <close> = agather.net.listen("127.0.0.3", port, { backlog = 1 }) -- connecting to it takes for ever
      local held = {}
      repeat
        local connecting = agather.spawn(function() held[#held + 1] = agather.net.connect("127.0.0.3", port) end)
        agather.wait({ connecting }, { timeout = 0.1 })
        local done = connecting:done()
        connecting:cancel()
      until not done
      -- the second address is tried when a timer of libuv ends the wait for the first
      local stream <close> = require("agather.uv").connect({ "127.0.0.3", "127.0.0.1" }, port, "race", 0.02, true)
      print((stream:peer_address()))
      for _, other in ipairs(held) do other:close() end
    ]]
    assert.equal("127.0.0.1\n", output)
    assert.is_true(ok)
  end)

  it("sees closed handles to their end", function()
    local output, ok = stepped [[
      local listener = agather.net.listen("127.0.0.1", 0)
      listener:close()
      print("closed")
    ]]
    assert.equal("closed\n", output)
    assert.is_true(ok)
  end)

  it("is told when a file is read", function()
    local output, ok = stepped [[ print(#agather.fs.read_file("/dev/null")) ]]
    assert.equal("0\n", output)
    assert.is_true(ok)
  end)
end)
