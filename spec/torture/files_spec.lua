-- Memory that fails, everywhere, while files, watchers and signals are used: see files.lua and torture.c.
local torture = require "spec.support.torture"

describe("files and signals whose memory fails", function()
  for _, case in ipairs(torture.cases("files", { memory = 10, malloc = 6, once = 6, libraries = 3 })) do it(case.name, case.run) end
end)
