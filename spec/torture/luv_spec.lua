-- Memory that fails, everywhere, while luv has its turns with the loop: see luv.lua and torture.c.
local torture = require "spec.support.torture"

describe("luv beside a loop whose memory fails", function()
  for _, case in ipairs(torture.cases("luv", { memory = 20, malloc = 10, once = 10 })) do it(case.name, case.run) end
end)
