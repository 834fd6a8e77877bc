-- Cancelling the group cancels each of its tasks.
local agather = require "agather"

local group

local worker = agather.async(function(n)
  print(">task " .. n .. " executing")
  if n == 0 then group:cancel() end
  agather.sleep(0.05)
end)

local ok, err = pcall(agather.run, function()
  print("main starting")
  local jobs = {}
  for i = 0, 9 do jobs[#jobs + 1] = worker(i) end
  group = agather.gather_list(jobs)
  agather.await(group)
  print("never reached")
end)
print(ok, err)
