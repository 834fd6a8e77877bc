-- Leaks made on purpose, to see the soak fail: 60 of a kind, from the beginning to the end.
local agather = require "agather"

local kept = {}

local function keep(value) kept[#kept + 1] = value end

return {
  tasks = function() agather.spawn(agather.sleep, 1e6) end,
  descriptors = function() keep(assert(io.open("/dev/null"))) end,
  memory = function() keep(("x"):rep(20000) .. #kept) end,
  children = function()
    keep(agather.process.spawn { "sleep", "1000", stdin = "null", stdout = "null", stderr = "null" })
  end,
}
