-- A task runs in the background while its creator does something else, and is awaited when its result is needed.
local agather = require "agather"

local background = agather.async(function()
  print("Task 1 running")
  agather.sleep(0.05)
  return "result 1"
end)

local function do_other_work()
  print("other work started")
  agather.sleep(0.02)
  print("other work done")
end

agather.run(function()
  local task = agather.create_task(background())
  do_other_work()
  print(agather.await(task))
end)
