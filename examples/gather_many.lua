-- The usual way to call gather: one function, several arguments, all at the same time.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
end)

agather.run(function()
  print("main starting")
  agather.await(agather.gather(worker(0), worker(1), worker(2)))
  print("main done")
end)
