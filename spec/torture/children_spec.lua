-- Memory that fails, everywhere, while children are started, fed and ended: see children.lua and torture.c.
local torture = require "spec.support.torture"

describe("children whose memory fails", function()
  for _, case in ipairs(torture.cases("children", { memory = 15, malloc = 10, once = 10 })) do it(case.name, case.run) end
end)
