-- Memory that fails, everywhere, while tasks and futures are used: see core.lua and torture.c.
local torture = require "spec.support.torture"

describe("tasks whose memory fails", function()
  for _, case in ipairs(torture.cases("core", { memory = 100, malloc = 30, once = 30 })) do it(case.name, case.run) end
end)
