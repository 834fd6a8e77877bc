-- Servers by TCP, TLS and on a Unix socket, and clients that behave, hang, break off and are cancelled.
local agather = require "agather"
local engine = require "spec.soak.engine"

local equal, raises, bytes = engine.equal, engine.raises, engine.bytes

-- What a client asks for: an echo of a frame; nothing, for long; to be broken off; an error in the handler.
local ECHO, HANG, BREAK, FAIL = "e", "h", "b", "f"

local function frame(kind, payload) return kind .. string.pack("<s4", payload) end

local function serve_frames(stream)
  while true do
    local kind = stream:read(1)
    if not kind then return end
    if kind == HANG then return agather.sleep(0.3) end -- it does not see that its peer leaves
    if kind == BREAK then return stream:abort() end
    if kind == FAIL then error(agather.Error("on purpose: a handler")) end
    local length = string.unpack("<I4", stream:read_exactly(4))
    stream:write(string.pack("<s4", stream:read_exactly(length)))
  end
end

-- What may happen to a handler: its peer has gone.
local function handler(stream)
  local ok, err = agather.pcall(serve_frames, stream)
  if ok or agather.is_error(err, agather.OSError) or agather.is_error(err, agather.IncompleteReadError)
    or agather.is_error(err, agather.TLSError) then
    return
  end
  error(err, 0)
end

local function exchange(stream, payload)
  stream:write(frame(ECHO, payload))
  local length = string.unpack("<I4", stream:read_exactly(4))
  equal(payload, stream:read_exactly(length))
end

-- The operations of the clients of one server.
local function clients(soak, name, rate, connect, server, failures)
  local random = engine.random(#name)
  soak:every(3 * rate, name .. " gives back what it was sent", function()
    local stream <close> = connect()
    for _ = 1, random(5) do exchange(stream, bytes(random, random(random(4) == 1 and 200000 or 2000))) end
    stream:shutdown()
    equal(nil, stream:read(1))
  end)
  soak:every(2 * rate, name .. ": peers that hang are left after a time", function()
    local stream <close> = connect()
    stream:write(random(2) == 1 and HANG or ECHO .. "\200")
    raises(agather.TimeoutError, function()
      local _ <close> = agather.timeout(0.01 + random() * 0.02)
      stream:read(1)
    end)
  end)
  soak:every(2 * rate, name .. ": peers that do not read hold writers back", function()
    local stream <close> = connect()
    stream:write(HANG)
    raises(agather.TimeoutError, function()
      local _ <close> = agather.timeout(0.03)
      for _ = 1, 1000 do stream:write(("x"):rep(65536)) end
    end)
    stream:abort()
  end)
  soak:every(2 * rate, name .. ": clients break off", function()
    local stream = connect()
    stream:write(frame(ECHO, bytes(random, 100000)))
    if random(2) == 1 then stream:read(100) end
    stream:abort()
  end)
  soak:every(2 * rate, name .. ": the server breaks off", function()
    local stream <close> = connect()
    stream:write(BREAK)
    local ok, got = pcall(stream.read, stream, 1)
    if ok then equal(nil, got) else assert(not agather.is_error(got, agather.CancelledError)) end
  end)
  soak:every(2 * rate, name .. ": clients are cancelled anywhere", function()
    engine.cancelled(random() * 0.02, function()
      local stream <close> = connect()
      while true do exchange(stream, bytes(random, 5000)) end
    end)
  end)
  soak:every(rate, name .. ": handlers that fail end one connection", function()
    local before = failures.count
    local stream <close> = connect()
    stream:write(FAIL)
    pcall(stream.read, stream, 1)
    for _ = 1, 4000 do
      if failures.count > before then return end
      agather.sleep(0.005)
    end
    error("the handler's error was not reported")
  end)
  soak:settles(name .. " has no connections", function() return server:connections() == 0 end)
end

-- Runs the server until the end of the soak.
local function run(soak, server)
  local serving = agather.create_task(function() server:serve_forever() end, { name = "server" })
  soak:at_end(function()
    server:shutdown(0)
    serving:await()
  end)
end

local function options(failures, more)
  more.max_connections = 50
  more.on_error = function(err)
    if tostring(err):find("on purpose", 1, true) then
      failures.count = failures.count + 1
    elseif not (failures.handshakes and (agather.is_error(err, agather.TLSError) or agather.is_error(err, agather.OSError))) then
      error(err, 0)
    end
  end
  return more
end

local function tcp(soak)
  local failures = { count = 0 }
  local server = agather.net.start_server("127.0.0.1", 0, handler, options(failures, {}))
  local _, port = server:local_address()
  run(soak, server)
  clients(soak, "tcp", 1, function() return agather.net.connect("127.0.0.1", port, { timeout = engine.PATIENCE }) end, server, failures)
end

local function unix(soak)
  local failures, path = { count = 0 }, soak.folder .. "/socket"
  local server = agather.net.start_unix_server(path, handler, options(failures, {}))
  run(soak, server)
  clients(soak, "unix", 1, function() return agather.net.connect_unix(path, { timeout = engine.PATIENCE }) end, server, failures)
end

local function tls(soak)
  local certificates = soak.certificates
  local failures = { count = 0, handshakes = true }
  local server = agather.net.start_server("127.0.0.1", 0, handler, options(failures, {
    tls = { cert = certificates.server_pem, key = certificates.server_key, handshake_timeout = engine.PATIENCE },
  }))
  local _, port = server:local_address()
  run(soak, server)
  local trust = { ca = certificates.ca_pem, server_name = "a.example" }
  clients(soak, "tls", 0.7, function()
    return agather.net.connect("127.0.0.1", port, { timeout = engine.PATIENCE, tls = trust })
  end, server, failures)
  soak:every(1, "tls: whom nobody knows is refused", function()
    raises(agather.TLSError, agather.net.connect, "127.0.0.1", port, { tls = { server_name = "a.example" } })
    raises(agather.TLSError, agather.net.connect, "127.0.0.1", port, { tls = { server_name = "evil.example", ca = certificates.ca_pem } })
  end)
  soak:every(1, "tls: peers that do not speak it, or nothing at all", function()
    local stream <close> = agather.net.connect("127.0.0.1", port)
    local silent <close> = agather.net.connect("127.0.0.1", port)
    stream:write("GET / HTTP/1.0\r\n\r\n")
    pcall(stream.read, stream, "a")
    pcall(agather.wait_for, agather.async(silent.read)(silent, 1), 0.01)
  end)
end

local function others(soak)
  local random = engine.random(5)
  soak:every(5, "udp gives what was sent, whole", function()
    local here <close> = agather.net.udp { local_address = { "127.0.0.1", 0 } }
    local host, port = here:local_address()
    local there <close> = agather.net.udp { remote_address = { host, port } }
    local sent = bytes(random, random(1000))
    there:send(sent)
    local _ <close> = agather.timeout(engine.PATIENCE)
    equal(sent, (here:recv()))
  end)
  soak:every(5, "a pair in memory", function()
    local here, there = agather.net.pair()
    local sent = bytes(random, random(100000))
    local results = agather.gather(function()
      here:write(sent)
      here:close()
    end, function() return there:read("a") end):await()
    there:close()
    equal(sent, results[2])
  end)
  soak:every(1, "a server is shut down under its clients", function()
    local server = agather.net.start_server("127.0.0.1", 0, handler, { on_error = function() end })
    local serving = agather.spawn(server.serve_forever, server)
    local _, port = server:local_address()
    local streams = {}
    for place = 1, 5 do streams[place] = agather.net.connect("127.0.0.1", port) end
    for place = 1, 3 do exchange(streams[place], bytes(random, 1000)) end
    server:shutdown(0)
    serving:await()
    for _, stream in ipairs(streams) do
      pcall(stream.read, stream, "a")
      stream:close()
    end
    raises(agather.OSError, agather.net.connect, "127.0.0.1", port)
  end)
  soak:every(2, "names", function()
    local found = agather.dns.resolve("localhost")
    assert(#found >= 1)
    engine.cancelled(0, agather.dns.resolve, "localhost")
  end)
end

return {
  name = "net",
  start = function(soak)
    tcp(soak)
    unix(soak)
    tls(soak)
    others(soak)
  end,
}
