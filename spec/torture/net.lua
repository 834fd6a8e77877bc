-- Streams, servers, datagrams and names, for torture.c. Whoever waits for somebody stands in a gather with him, so that
-- nobody waits in vain where the other lacks memory.
local agather = require "agather"
local net, dns, stream_module = agather.net, agather.dns, agather.stream

-- By concatenation: the buffers of Lua's string library do not try again where memory fails once.
local long = "xxxxxxxxxx"
for _ = 1, 8 do long = long .. long end

local too_long = ("y"):rep(100000)

local path = os.tmpname()

local function pair(one, other) agather.gather(one, other, { cancel_on_error = true }):await() end

local function text_of(...)
  for place = 1, select("#", ...) do local _ = tostring((select(place, ...))) end
end

-- What both kinds of streams can do.
local function talk(one, other)
  text_of(one, one:local_address(), one:peer_address())
  pair(function()
    one:write("a line\n", 1, "\nrest\r\n"):flush()
    one:set_write_buffer_limits { high = 10 }
    one:write(long)
    one:write("\n")
    one:write(long)
    one:shutdown()
  end, function()
    other:set_limits { line = 100000 }
    other:read()
    other:read("L")
    other:read_exactly(4)
    other:read_until("\r\n")
    for _ in other:lines(1000) do agather.sleep(0) end
    other:read("a")
  end)
  agather.pcall(other.read_exactly, other, 5)
  local reading = agather.spawn(one.read, one)
  agather.sleep(0)
  reading:cancel()
  agather.wait { reading }
  agather.pcall(agather.wait_for, function() one:read() end, 0)
  other:close()
  agather.pcall(other.read, other)
end

local function use_pairs()
  do
    local one, other = net.pair()
    local _ <close>, _ = one, nil
    local _ <close>, _ = other, nil
    talk(one, other)
  end
  local one, other = net.pair()
    local _ <close>, _ = one, nil
    local _ <close>, _ = other, nil
  local third, fourth = net.pair()
    local _ <close>, _ = third, nil
    local _ <close>, _ = fourth, nil
  pair(function()
    other:pipe(third)
  end, function()
    one:write(long):shutdown()
    fourth:read("a")
  end)
  one:abort()
  local read = { long, "end" }
  local wrapped <close> = stream_module.wrap({
    read = function() return table.remove(read) end, write = function() end, close = function() end,
  })
  wrapped:read("a")
end

local function use_datagrams()
  local one <close> = net.udp { local_address = { "127.0.0.1", 0 }, receive_buffer = 10000 }
  local other <close> = net.udp { remote_address = { one:local_address() } }
  text_of(one, other:peer_address(), one:dropped())
  other:send("datagram")
  one:recv()
  agather.pcall(other.send, other, too_long)
  local host, port = other:local_address()
  one:send("back", host, port)
  other:recv()
  agather.pcall(agather.wait_for, function() one:recv() end, 0)
  one:close()
end

local function echo(stream)
  for line in stream:lines() do stream:write(line, "\n") end
end

local function use_listener(listen, connect)
  local listener <close> = listen()
  text_of(listener, listener:local_address())
  local accepted, connected
  pair(function() accepted = listener:accept() end, function() connected = connect(listener) end)
  do
    local one <close> = accepted
    local other <close> = connected
    talk(one, other)
  end
  agather.pcall(agather.wait_for, function() listener:accept() end, 0)
  listener:close()
end

local function use_server(start, connect)
  local server <close> = start()
  text_of(server, server:local_address(), server:connections())
  pair(server.serve_forever and function()
    agather.pcall(server.serve_forever, server)
  end, function()
    local _ <close> = setmetatable({}, { __close = function() server:close() end })
    local stream <close> = connect(server)
    stream:write("a line\n")
    stream:read()
    local here <close>, there = net.pair()
    local _ <close>, _ = there, nil
    pair(function() stream:pipe(here, { limit = 7 }) end, function()
      stream:write("piped.\n")
      there:read("a")
    end)
    stream:abort()
    server:shutdown(1)
  end)
end

local function tcp(server)
  local host, port = server:local_address()
  return net.connect(host, port, { timeout = 5, local_address = "127.0.0.1", keepalive = true })
end

local function unix() return net.connect_unix(path, { timeout = 5 }) end

local function serve(f, ...)
  local arguments = table.pack(...)
  local listens = agather.future()
  arguments[#arguments].on_listen = function() listens:set_result() end
  local serving = agather.spawn(f, table.unpack(arguments))
  local _ <close> = setmetatable({}, { __close = function() serving:cancel() end })
  agather.wait({ serving, listens }, { return_when = agather.FIRST_COMPLETED })
  serving:cancel()
  agather.wait { serving }
end

local function use_names()
  dns.resolve("127.0.0.1")
  dns.resolve("localhost", { family = "ipv4", timeout = 5 })
  agather.pcall(dns.reverse, "127.0.0.1", { timeout = 5 })
  dns.clear_cache()
  local asking = agather.spawn(dns.reverse, "127.0.0.1", { cache = false })
  agather.sleep(0)
  asking:cancel()
  agather.wait { asking }
  agather.pcall(net.connect, "localhost", 1, { timeout = 5, happy_eyeballs_delay = 0 })
end

return {
  before = function() os.remove(path) end,
  run = function()
    use_pairs()
    use_datagrams()
    use_listener(function() return net.listen("127.0.0.1", 0, { backlog = 5, reuseport = true }) end, tcp)
    use_listener(function() return net.listen_unix(path, { mode = 384 }) end, unix)
    use_server(function() return net.start_server("127.0.0.1", 0, echo, { max_connections = 2 }) end, tcp)
    use_server(function() return net.start_unix_server(path, echo, { replace = true }) end, unix)
    serve(net.serve, "127.0.0.1", 0, echo, {})
    serve(net.serve_unix, path, echo, {})
    agather.pcall(net.connect, "127.0.0.1", 1)
    agather.pcall(net.connect_unix, "/no/such/socket")
    use_names()
  end,
  after = function()
    os.remove(path)
    use_listener(function() return net.listen("127.0.0.1", 0) end, tcp)
  end,
}
