-- gather returns the results in the order of its arguments.
local agather = require "agather"

local square = agather.async(function(i)
  agather.sleep(0.01)
  return i * i
end)

agather.run(function()
  local jobs = {}
  for i = 0, 9 do jobs[#jobs + 1] = square(i) end
  print(table.concat(agather.await(agather.gather_list(jobs)), " "))
end)
