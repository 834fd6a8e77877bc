-- Two tasks of different length run side by side; gather waits for both and lists what they returned.
local agather = require "agather"

local first = agather.async(function()
  print("Task 1 running")
  agather.sleep(0.05)
  return "result 1"
end)

local second = agather.async(function()
  print("Task 2 running")
  agather.sleep(0.1)
  return "result 2"
end)

agather.run(function()
  local results = agather.await(agather.gather(first(), second()))
  print(table.concat(results, " "))
end)
