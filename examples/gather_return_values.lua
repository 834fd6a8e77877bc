-- gather_list gives one list of everything that the gathered functions returned.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
  return n * 10
end)

agather.run(function()
  print("main starting")
  local jobs = {}
  for i = 0, 9 do jobs[#jobs + 1] = worker(i) end
  local values = agather.await(agather.gather_list(jobs))
  print(table.concat(values, " "))
  print("main done")
end)
