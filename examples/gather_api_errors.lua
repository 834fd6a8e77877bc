-- Three requests to a simulated API, one of which fails: with return_exceptions the other two are not lost.
local agather = require "agather"

local fetch = agather.async(function(endpoint, delay, should_fail)
  print("Fetching from " .. endpoint .. "...")
  agather.sleep(delay)
  if should_fail then error("Failed to fetch from " .. endpoint, 0) end
  return { endpoint = endpoint, status = "success" }
end)

agather.run(function()
  print("Running tasks with potential errors...")
  local results = agather.await(agather.gather(
    fetch("users", 0.05),
    fetch("products", 0.1, true),
    fetch("orders", 0.07),
    { return_exceptions = true }))

  print("\n--- All tasks complete ---")
  for i = 1, results.n do
    local result = results[i]
    if agather.is_error(result) then
      print("A task failed: " .. tostring(result))
    else
      print("A task succeeded: " .. result.endpoint .. " " .. result.status)
    end
  end
end)
