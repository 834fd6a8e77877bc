-- Memory that fails, everywhere, while requests are made and answered: see http.lua and torture.c.
local torture = require "spec.support.torture"

describe("requests whose memory fails", function()
  for _, case in ipairs(torture.cases("http", { memory = 10, malloc = 6, once = 6, libraries = 10 })) do it(case.name, case.run) end
end)
