-- Three requests to a simulated API at once: they take as long as the slowest, and the results keep their order.
local agather = require "agather"

local fetch = agather.async(function(endpoint, delay)
  print("Fetching from " .. endpoint .. "...")
  agather.sleep(delay)
  print("Finished fetching from " .. endpoint)
  return { endpoint = endpoint, status = "success" }
end)

agather.run(function()
  local loop = agather.get_running_loop()
  local start = loop:time()
  local results = agather.await(agather.gather(fetch("users", 0.2), fetch("products", 0.4), fetch("orders", 0.3)))
  local elapsed = loop:time() - start
  -- One after the other they would take 0.9 seconds.
  print("\nAll tasks ran concurrently: " .. tostring(elapsed >= 0.39 and elapsed < 0.9))
  print("--- Results ---")
  for i = 1, results.n do print(results[i].endpoint, results[i].status) end
end)
