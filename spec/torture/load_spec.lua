-- Memory that fails, everywhere, while modules load and are first used: see load.lua and torture.c.
local torture = require "spec.support.torture"

describe("loading what memory does not suffice for", function()
  for _, case in ipairs(torture.cases("load", { memory = 40, malloc = 10, once = 10 })) do it(case.name, case.run) end
end)
