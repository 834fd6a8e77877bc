-- Tasks get their turn when main ends without awaiting its group, and are cancelled then.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
  return n
end)

agather.run(function()
  print("main starting")
  local jobs = {}
  for i = 0, 9 do jobs[#jobs + 1] = worker(i) end
  agather.gather_list(jobs)
  print("main done")
end)
