-- What torture_spec runs where memory fails: a handshake of two sides with certificates, bytes both ways, one that is
-- refused. $TLS_CERTIFICATES is the folder of spec/support/certificates.lua. Text is put together with `..` alone:
-- Lua's buffers do not collect and try again.
local agather = require "agather"
local folder = os.getenv "TLS_CERTIFICATES"

local function pem(name)
  local text = ""
  for line in io.lines(folder .. "/" .. name) do text = text .. line .. "\n" end
  return text
end

agather.run(function()
  local net, tls = agather.net, agather.tls
  local ca = pem "ca.pem"
  local serving = { cert = pem "server.pem", key = pem "server.key", alpn = { "h2" }, ca = ca, verify_client = true }
  local trusting = {
    server_name = "a.example", ca = ca, alpn = { "h2" }, cert = pem "client.pem", key = pem "client.key",
  }
  local function shake(options)
    local over_client, over_server = net.pair()
    local sides = agather.gather(function() return tls.client(over_client, options) end,
      function() return tls.server(over_server, serving) end, { cancel_on_error = true }):await()
    return sides[1], sides[2]
  end
  local client, server = shake(trusting)
  client:write("hello\n")
  assert(server:read() == "hello")
  assert(server:peer_certificate().subject == "CN=some client")
  local blob = "x"
  for _ = 1, 16 do blob = blob .. blob end
  agather.gather(function() client:write(blob):shutdown() end, function() assert(server:read("a") == blob) end):await()
  server:close()
  assert(client:read("a") == "")
  client:close()

  local ok, err = pcall(shake, { server_name = "c.example", ca = ca })
  assert(not ok)
  if not tostring(err):find("mismatch") then error(err, 0) end
end)
