-- Memory that fails, everywhere, while TLS is spoken: see tls.lua and torture.c.
local torture = require "spec.support.torture"
local certificates = require("spec.support.certificates").make()

-- OpenSSL trusts what the variables say in place of the system's authorities, which would take long to read.
local function environment()
  return ("TLS_CERTIFICATES=%s SSL_CERT_FILE=%s/ca.pem SSL_CERT_DIR=/nowhere"):format(certificates.folder,
    certificates.folder)
end

describe("TLS whose memory fails", function()
  teardown(function() certificates.remove() end)
  local places = { memory = 6, malloc = 3, once = 3, libraries = 5 }
  for _, case in ipairs(torture.cases("tls", places, environment)) do it(case.name, case.run) end
end)
