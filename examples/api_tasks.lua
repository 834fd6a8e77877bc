-- Three requests to a simulated API as tasks made and awaited one by one: what gather does in one call.
local agather = require "agather"

local fetch = agather.async(function(endpoint, delay)
  print("Fetching from " .. endpoint .. "...")
  agather.sleep(delay)
  print("Finished fetching from " .. endpoint)
  return { endpoint = endpoint, status = "success" }
end)

agather.run(function()
  local first = agather.create_task(fetch("endpoint1", 0.03))
  local second = agather.create_task(fetch("endpoint2", 0.06))
  local third = agather.create_task(fetch("endpoint3", 0.09))
  for _, task in ipairs({ first, second, third }) do
    local result = agather.await(task)
    print(result.endpoint, result.status)
  end
end)
