-- Memory that fails, everywhere, while locks, queues and groups are used: see sync.lua and torture.c.
local torture = require "spec.support.torture"

describe("locks and queues whose memory fails", function()
  for _, case in ipairs(torture.cases("sync", { memory = 100, malloc = 20, once = 20, libraries = 5 })) do it(case.name, case.run) end
end)
