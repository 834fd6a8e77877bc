-- A host with a libuv loop attaches agather's loop to it: include/agather_uv.h.
local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("agather/core%.so$", "")

local output

local function says(line)
  assert.truthy(("\n" .. output):find("\n" .. line .. "\n", 1, true), output)
end

describe("the libuv loop of a host", function()
  setup(function()
    local pipe = assert(io.popen("timeout 60 " .. build .. "uv_host 2>&1"))
    output = pipe:read("a")
    assert.is_true(pipe:close(), output)
  end)

  it("ends when no task is left", function() says("an idle loop: 0") end)

  it("runs tasks that were spawned while it did not run", function() says("spawned while idle") end)

  it("runs tasks that its callbacks spawn", function() says("spawned from a callback of the host") end)

  it("never waits in a turn that must not", function()
    says("without waiting")
    says("turns without waiting")
  end)

  it("follows the loop to another descriptor", function() says("net: echo!") end)

  it("has no handle of a script, and those of agather can be told", function() says("known: true") end)

  it("is kept alive by a task that sleeps", function() says("a sleeper keeps it alive: yes") end)

  it("is free of all handles after detaching, with tasks left", function() says("detached: 0 handles") end)

  it("ends when the attached loop is destroyed under it", function() says("a loop that was closed: 0") end)

  it("can be closed in the end", function() says("closing: 0") end)
end)
