-- An echo server: what a client sends comes back, each client in a task of its own.
-- Usage: echo_server.lua [PORT [HOST]]; then talk to it with echo_client.lua, or nc.
local agather = require "agather"
local net = agather.net

local port, host = tonumber(arg[1]) or 0, arg[2] or "127.0.0.1"

local function echo(stream)
  stream:pipe(stream) -- waits while the client does not take what comes back
end

agather.run(function()
  net.serve(host, port, echo, {
    max_connections = 1000,
    on_listen = function(server)
      print(("listening on %s:%d"):format(server:local_address()))
      io.stdout:flush()
    end,
    on_error = function(err, peer) io.stderr:write(peer or "accept", ": ", tostring(err), "\n") end,
  })
end)
