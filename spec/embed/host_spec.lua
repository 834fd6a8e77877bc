-- The hosts of examples/embed print what they promise.
local hosts = require "spec.embed.hosts"

local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("agather/core%.so$", "")

local by_name = {}
for _, host in ipairs(hosts.list()) do by_name[host.name] = host end

-- Runs the host of the build tree, or says what is missing.
local function check(name)
  local program = build .. "embed_" .. name
  local file = io.open(program)
  if not file then return pending(name .. " was not built: pkg-config lacks one of " .. by_name[name].packages) end
  file:close()
  assert.same(by_name[name].prints, hosts.run(program, by_name[name]))
end

describe("a host", function()
  it("needs no more than to open the library and to run a script", function() check "smallest" end)

  it("runs tasks beside its own poll loop", function() check "poll" end)

  it("gives scripts a share of each frame of a game", function() check "game" end)

  it("runs tasks as a source of a GLib main loop", function() check "glib" end)

  it("shares its libuv loop with tasks and with Lua's luv", function() check "luv" end)
end)
