-- The first failure goes to the awaiter; the program ends with it.
local agather = require "agather"

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  agather.sleep(0.05)
  if n == 0 then error("Something bad happened", 0) end
end)

local ok, err = pcall(agather.run, function()
  print("main starting")
  local jobs = {}
  for i = 0, 9 do jobs[#jobs + 1] = worker(i) end
  agather.await(agather.gather_list(jobs))
  print("never reached")
end)
print(ok, tostring(err):match("[^\n]*"))
