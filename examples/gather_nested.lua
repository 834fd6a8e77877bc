-- A gather is an awaitable itself, so gathers nest.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
  return n
end)

agather.run(function()
  print("main starting")
  local left = agather.gather(worker(0), worker(1), worker(2))
  local right = agather.gather(worker(3), worker(4), worker(5))
  agather.await(agather.gather(left, right))
  print("main done")
end)
