-- Memory that fails, everywhere, while streams, servers and names are used: see net.lua and torture.c.
local torture = require "spec.support.torture"

describe("streams and servers whose memory fails", function()
  for _, case in ipairs(torture.cases("net", { memory = 20, malloc = 15, once = 15, libraries = 5 })) do it(case.name, case.run) end
end)
