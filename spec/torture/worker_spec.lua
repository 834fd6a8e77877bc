-- Memory that fails, everywhere, while workers get and give data: see worker.lua and torture.c.
local torture = require "spec.support.torture"

describe("workers whose memory fails", function()
  local places = { memory = 40, malloc = 20, once = 20, libraries = not torture.sanitized and 10 }
  for _, case in ipairs(torture.cases("worker", places)) do it(case.name, case.run) end
end)
