-- A group of one: gather makes a single coroutine object into a future.
local agather = require "agather"

local worker = agather.async(function()
  print("task executing")
  agather.sleep(0.05)
end)

agather.run(function()
  print("main starting")
  local coro = worker()
  agather.await(agather.gather(coro))
  print("main done")
end)
