-- Memory that fails, everywhere, while modules load and are first used: see load.lua and torture.c.
local torture = require "spec.support.torture"

-- What OpenSSL would trust takes long to read.
local function environment() return "SSL_CERT_FILE=/dev/null SSL_CERT_DIR=/nowhere" end

describe("loading what memory does not suffice for", function()
  local places = { memory = 12, malloc = 5, once = 5 }
  for _, case in ipairs(torture.cases("load", places, environment)) do it(case.name, case.run) end
end)
