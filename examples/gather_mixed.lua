-- Tasks are scheduled when they are made, coroutine objects when they are gathered.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
  return n
end)

agather.run(function()
  print("main starting")
  local mix = {
    worker(0), agather.create_task(worker(1)), worker(2), agather.create_task(worker(3)), worker(4),
  }
  agather.gather_list(mix)
  agather.sleep(0.1)
  print("main done")
end)
