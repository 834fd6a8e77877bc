-- TLS over pairs and sockets, for torture.c: handshakes with certificates, bytes both ways, sessions, what is refused.
-- $TLS_CERTIFICATES is the folder of spec/support/certificates.lua.
local agather = require "agather"
local net, tls = agather.net, agather.tls
local folder = os.getenv "TLS_CERTIFICATES"

local function read(name)
  local file <close> = assert(io.open(folder .. "/" .. name))
  return file:read("a")
end

local ca, cert, key = read "ca.pem", read "server.pem", read "server.key"
local client_cert, client_key = read "client.pem", read "client.key"
local other_cert, other_key = read "other.pem", read "other.key"
local locked = read "locked.key"

local blob = "x"
for _ = 1, 16 do blob = blob .. blob end

local function see() end -- its arguments are what is used

local function pair(one, other)
  local sides = agather.gather(one, other, { cancel_on_error = true }):await()
  return sides[1], sides[2]
end

local function shake(options, serving)
  local over_client, over_server = net.pair()
  return pair(function() return tls.client(over_client, options) end,
    function() return tls.server(over_server, serving) end)
end

local function talk(client, server)
  local _ <close> = client
  local _ <close> = server
  see(tostring(client), client:local_address(), client:peer_address())
  client:set_write_buffer_limits { high = 10 }
  pair(function() client:write("hello\n"):flush() end, function() server:read() end)
  see(server:peer_certificate(), server:alpn(), server:cipher(), server:version(), server:server_name())
  see(client:peer_certificate(), client:resumed())
  pair(function() client:write(blob):shutdown() end, function() server:read("a") end)
  pair(function() server:shutdown() end, function() client:read("a") end)
end

-- The end of the bytes without the end that TLS has.
local function cut_off(settings)
  local over_client, over_server = net.pair()
  local _ <close>, _ = over_client, nil
  local _, server = pair(function() return tls.client(over_client, { ca = ca, server_name = "a.example" }) end,
    function() return tls.server(over_server, settings) end)
  local _ <close> = server
  over_client:shutdown()
  agather.pcall(server.read, server)
end

local function use_net(settings)
  local listener <close> = net.listen("127.0.0.1", 0, { tls = settings, on_error = function() end })
  see(tostring(listener))
  local host, port = listener:local_address()
  local server, client = pair(function() return listener:accept() end, function()
    return net.connect(host, port, { tls = { ca = ca, server_name = "a.example", handshake_timeout = 5 }, timeout = 5 })
  end)
  server:close()
  client:abort()
  listener:close()
end

return {
  run = function()
    local serving = tls.Context {
      cert = cert, key = key, alpn = { "h2" }, ca = ca, verify_client = "optional", min_version = "TLSv1.2",
      server_names = { ["c.example"] = tls.Context { cert = other_cert, key = other_key } },
    }
    local trusting = tls.Context { ca = ca, alpn = { "h2" }, cert = client_cert, key = client_key }
    for _ = 1, 2 do talk(shake({ server_name = "a.example", context = trusting }, { context = serving })) end
    talk(shake({ server_name = "c.example", context = trusting }, { context = serving }))
    agather.pcall(shake, { server_name = "x.example", context = trusting }, { context = serving })
    agather.pcall(shake, { server_name = "a.example" }, { context = serving })
    agather.pcall(tls.Context, { cert = cert, key = other_key })
    tls.Context { cert = cert, key = locked, key_password = "secret" }
    tls.Context { ca_file = folder .. "/ca.pem", ca_path = folder }
    cut_off { cert = cert, key = key }
    use_net { cert = cert, key = key, handshake_timeout = 5 }
  end,
  after = function()
    local client, server = shake({ server_name = "a.example", ca = ca }, { cert = cert, key = key })
    talk(client, server)
  end,
}
