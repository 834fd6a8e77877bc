-- agather: asyncio's tasks and gather for Lua. The core is in C; this file is its front: what is written in Lua, and
-- the submodules, load with their first use.
local agather = require "agather.core"
package.loaded["agather.core"] = nil -- so that tracebacks have one name for each function: agather.sleep

-- Submodules: agather.net is require "agather.net".
local submodules = {
  dns = true,
  fs = true,
  http = true,
  json = true,
  net = true,
  process = true,
  signal = true,
  stream = true,
  testing = true,
  tls = true,
  worker = true,
}

-- Builtins written in Lua: name -> file that returns a table with it.
local builtins = {
  timeout = "timeout", timeout_at = "timeout", wait_for = "timeout",
  wait = "wait", as_completed = "wait", shield = "wait",
  TaskGroup = "group",
  Barrier = "barrier",
  map = "map",
  from_callback = "callback",
}

-- Where a script has loaded Lua's luv, its loop has its turns while ours waits.
agather.companion("luv", function() require("agather.luv").join() end)

agather.FIRST_COMPLETED = "FIRST_COMPLETED"
agather.FIRST_EXCEPTION = "FIRST_EXCEPTION"
agather.ALL_COMPLETED = "ALL_COMPLETED"

return setmetatable(agather, {
  __index = function(module, name)
    local value
    if submodules[name] then
      value = require("agather." .. name)
    elseif builtins[name] then
      value = require("agather." .. builtins[name])[name]
    end
    rawset(module, name, value)
    return value
  end,
})
