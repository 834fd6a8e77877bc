-- One of ten tasks fails: its error object comes first in the list, and nil stands for each that returned nothing.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
  if n == 0 then error("Something bad happened", 0) end
end)

agather.run(function()
  print("main starting")
  local jobs = {}
  for i = 0, 9 do jobs[#jobs + 1] = worker(i) end
  local results = agather.await(agather.gather_list(jobs, { return_exceptions = true }))
  print(table.unpack(results, 1, results.n))
  print("main done")
end)
