-- gather wants its awaitables one by one; the error points to gather_list.
local agather = require "agather"

local ok, err = pcall(agather.run, function()
  print("main starting")
  agather.await(agather.gather({ function() return 1 end }))
end)
print(ok, tostring(err):match("use agather.gather_list"))
