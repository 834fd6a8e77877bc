-- Without return_exceptions, a task that is cancelled raises CancelledError in the one who awaits the group.
local agather = require "agather"

local worker = agather.async(function(n, friend)
  print(">task " .. n .. " executing")
  if friend then friend:cancel() end
  agather.sleep(0.05)
end)

local ok, err = pcall(agather.run, function()
  print("main starting")
  local first = agather.create_task(worker(0))
  local second = agather.create_task(worker(1, first))
  agather.await(agather.gather(first, second))
  print("never reached")
end)
print(ok, err)
