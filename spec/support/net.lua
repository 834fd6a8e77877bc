-- Helpers of the specs of streams: a server with a client, programs as peers, descriptors and sockets of this process.
local agather = require "agather"

local net = {}

--- Runs client(port, server) against a server on 127.0.0.1 that calls handler(stream), and returns its results.
---@param handler fun(stream: any)
---@param client fun(port: integer, server: any)
---@param options? table for start_server
function net.with_server(handler, client, options)
  return agather.run(function()
    local server = agather.net.start_server("127.0.0.1", 0, handler, options)
    local serving = agather.spawn(server.serve_forever, server)
    local _, port = server:local_address()
    local results = table.pack(client(port, server))
    server:shutdown(0)
    serving:await()
    return table.unpack(results, 1, results.n)
  end)
end

--- A connection: client(one, other), both ends of it TCP streams.
---@param client fun(one: any, other: any)
function net.with_connection(client)
  return agather.run(function()
    local listener <close> = agather.net.listen("127.0.0.1", 0)
    local _, port = listener:local_address()
    local one <close> = agather.net.connect("127.0.0.1", port)
    local other <close> = listener:accept()
    return client(one, other)
  end)
end

--- Copies what comes back to where it came from.
function net.echo(stream)
  local bytes = stream:read(65536)
  while bytes do
    stream:write(bytes)
    bytes = stream:read(65536)
  end
end

--- A path in the directory of temporary files that nothing has.
---@return string
function net.path()
  local path = os.tmpname()
  os.remove(path)
  return path
end

--- How many descriptors this process has open.
---@return integer
function net.descriptors()
  local path = net.path()
  os.execute("ls /proc/$PPID/fd >" .. path) -- no pipe: its ends would count or not
  local count = 0
  for _ in io.lines(path) do count = count + 1 end
  os.remove(path)
  return count
end

--- Waits until condition() is true, at most 15 seconds.
---@param condition fun(): any
---@param what string what is waited for
function net.eventually(condition, what)
  local deadline = agather.get_running_loop():time() + 15
  while not condition() do
    if agather.get_running_loop():time() > deadline then error("waited in vain until " .. what, 2) end
    agather.sleep(0.002)
  end
end

--- Calls f(...), which must raise an OSError with this code; returns the error.
---@param code string
---@param f function
function net.fails(code, f, ...)
  local ok, err = pcall(f, ...)
  if ok then error("no error was raised, expected " .. code, 2) end
  if not agather.is_error(err, agather.OSError) then error("expected an OSError, got: " .. tostring(err), 2) end
  if err.code ~= code then error("expected " .. code .. ", got: " .. tostring(err), 2) end
  return err
end

return net
