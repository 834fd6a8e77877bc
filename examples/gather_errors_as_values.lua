-- With return_exceptions a failure stands among the results as an error object.
local agather = require "agather"

agather.run(function()
  local results = agather.await(agather.gather(
    function() return 1 end,
    function() error("boom", 0) end,
    { return_exceptions = true }))
  print(results[1], results[2], agather.is_error(results[2]))
end)
