-- Two tasks run side by side; their results are awaited one after the other.
local agather = require "agather"

local job = agather.async(function(i)
  agather.sleep(0.02)
  return "done " .. i
end)

agather.run(function()
  local first = agather.create_task(job(1))
  local second = agather.create_task(job(2))
  print(agather.await(first))
  print(agather.await(second))
end)
