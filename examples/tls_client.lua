-- A TLS client that trusts one certificate, and a server that has it: both in this script. The client also meets a
-- server that it has no reason to trust, and says why not.
local agather = require "agather"
local net, tls = agather.net, agather.tls

-- A certificate for localhost, by the openssl command; returns its text and its key's.
local function make_certificate()
  local path = os.tmpname()
  assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
    .. "-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout %s.key -out %s 2>/dev/null"):format(path, path)))
  local function take(name)
    local file <close> = assert(io.open(name))
    os.remove(name)
    return file:read("a")
  end
  return take(path), take(path .. ".key")
end

local function handle(stream)
  for line in stream:lines() do stream:write("you said ", line, "\n") end
end

agather.run(function()
  local certificate, key = make_certificate()
  local ready = agather.future()
  agather.spawn(net.serve, "127.0.0.1", 0, handle, {
    tls = { cert = certificate, key = key, alpn = { "chat" } },
    on_listen = function(server) ready:set_result(select(2, server:local_address())) end,
    on_error = function() end, -- of clients that do not trust it
  })
  local port = ready:await()

  local context = tls.Context { ca = certificate, alpn = { "chat" } }
  do
    local stream <close> = net.connect("localhost", port, { tls = { context = context } })
    print(stream:version(), stream:alpn(), stream:peer_certificate().subject)
    stream:write("hello\n")
    print(stream:read())
  end

  local ok, err = pcall(net.connect, "localhost", port, { tls = true }) -- trusts the system's authorities only
  print(ok, err.code, err.reason)
end)
