-- Coroutine objects prepared in a list start together; table.unpack makes arguments of a short list.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
end)

agather.run(function()
  print("main starting")
  local jobs = {}
  for i = 0, 9 do jobs[#jobs + 1] = worker(i) end
  agather.await(agather.gather(table.unpack(jobs)))
  print("main done")
end)
