-- Two ends of a TLS connection in memory, for specs.
local agather = require "agather"

local support = {}

local function with(options, more)
  local all = {}
  for name, value in pairs(options) do all[name] = value end
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

--- What a client needs to trust the server of the certificates.
function support.client_options(certificates, more)
  return with(more and more.context and { server_name = "a.example" }
    or { server_name = "a.example", ca = certificates.ca_pem }, more)
end

function support.server_options(certificates, more)
  return with(more and more.context and {} or { cert = certificates.server_pem, key = certificates.server_key }, more)
end

--- Shakes hands over two joined streams; what a side raises stands in its place.
function support.shake(certificates, client_options, server_options, over_client, over_server)
  if not over_client then over_client, over_server = agather.net.pair() end
  local results = agather.gather(function()
    return agather.tls.client(over_client, support.client_options(certificates, client_options))
  end, function()
    return agather.tls.server(over_server, support.server_options(certificates, server_options))
  end, { return_exceptions = true }):await()
  return results[1], results[2]
end

--- The same; raises what a side raises.
function support.pair(...)
  local client, server = support.shake(...)
  for _, side in ipairs { client, server } do
    if agather.is_error(side) then error(side, 0) end
  end
  return client, server
end

return support
