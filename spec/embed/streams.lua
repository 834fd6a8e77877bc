-- Uses streams, servers and datagrams, for torture.c: what lacks memory fails here or there, and a guard ends what waits
-- for it in vain.
local agather = require "agather"
local net = agather.net

-- By concatenation: the buffers of Lua's string library do not try again where memory fails once.
local long = "xxxxxxxxxx"
for _ = 1, 8 do long = long .. long end

local function echo(stream)
  for line in stream:lines() do stream:write(line, "\n") end
end

local function use_pair()
  local one <close>, other = net.pair()
  one:write("a line\n", 1)
  one:shutdown()
  other:read()
  other:read("a")
end

local function use_datagrams()
  local one <close> = net.udp { local_address = { "127.0.0.1", 0 } }
  local other <close> = net.udp { remote_address = { one:local_address() } }
  other:send("datagram")
  one:recv()
end

local function use_server(path)
  if path then os.remove(path) end
  local server <close> = path and net.start_unix_server(path, echo, { replace = true })
    or net.start_server("127.0.0.1", 0, echo, { max_connections = 2 })
  local serving = agather.spawn(server.serve_forever, server)
  local host, port = server:local_address()
  local stream <close> = path and net.connect_unix(path) or net.connect(host, port, { timeout = 5 })
  stream:write("a line\n", long, "\n")
  stream:read()
  stream:read_exactly(1000)
  stream:read_until("x\n")
  pcall(agather.wait_for, function() stream:read() end, 0)
  local reading = agather.spawn(stream.read, stream)
  agather.sleep(0)
  reading:cancel()
  pcall(reading.await, reading)
  stream:set_write_buffer_limits { high = 10 }
  stream:write(long, "\n")
  stream:flush()
  stream:shutdown()
  stream:read("a")
  server:shutdown(1)
  serving:await()
end

local runner <close> = agather.Runner()
runner:get_loop():set_exception_handler(function() end)
runner:run(function()
  local me = agather.current_task()
  local guard = agather.get_running_loop():call_later(0.2, function() me:cancel() end)
  use_pair()
  use_datagrams()
  use_server()
  use_server(os.tmpname())
  pcall(net.connect, "127.0.0.1", 1)
  pcall(net.connect_unix, "/no/such/socket")
  guard:cancel()
end)
