-- Memory that fails, everywhere, while JSON is read and written: see json.lua and torture.c.
local torture = require "spec.support.torture"

describe("JSON whose memory fails", function()
  for _, case in ipairs(torture.cases("json", { memory = 50, malloc = 20, once = 20, libraries = 50 })) do it(case.name, case.run) end
end)
