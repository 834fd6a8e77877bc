-- A task that is cancelled counts as an error; return_exceptions keeps it as a value.
local agather = require "agather"

local worker = agather.async(function(n, friend)
  print(">task " .. n .. " executing")
  if friend then friend:cancel() end
  agather.sleep(0.05)
end)

agather.run(function()
  print("main starting")
  local first = agather.create_task(worker(0))
  local second = agather.create_task(worker(1, first))
  local results = agather.await(agather.gather(first, second, { return_exceptions = true }))
  print(results[1], results[2])
  print("main done")
end)
