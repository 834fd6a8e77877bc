-- The hosts of examples/embed print what they promise.
local hosts = require "spec.embed.hosts"

local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("agather/core%.so$", "")

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read("a")
  return text, pipe:close()
end

-- Runs a host of the build tree, or says what is missing; what it must print stands in hosts.lua.
local function check(name)
  local host = assert(hosts.named(name))
  local program = build .. "embed_" .. name
  local file = io.open(program)
  if not file then return pending(name .. " was not built: pkg-config lacks one of " .. host.packages) end
  file:close()
  assert.same(host.prints, hosts.run(program, host))
end

describe("a host", function()
  it("needs no more than to open the library and to run a script", function() check "smallest" end)

  it("gives scripts a share of each frame of a game", function() check "game" end)

  it("runs tasks as a source of a GLib main loop", function() check "glib" end)

  it("shares its libuv loop with tasks and with Lua's luv", function() check "luv" end)

  it("runs tasks beside its own poll loop", function()
    local text, ok = output_of("echo hello | " .. build .. "embed_poll")
    assert.is_true(ok, text)
    local lines = {}
    for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
    table.sort(lines)
    assert.same({ "input of 6 bytes", "task\t1", "task\t2", "task\t3" }, lines)
  end)
end)
