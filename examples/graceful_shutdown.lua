-- A server that ends well: on SIGTERM or SIGINT it accepts no more, lets the requests that run finish, for at most five
-- seconds, and exits.
-- Usage: graceful_shutdown.lua [PORT]; then: kill PID
local agather = require "agather"
local net, signal = agather.net, agather.signal

local GRACE_SECONDS = 5

local function answer(stream)
  local request = stream:read()
  if not request then return end
  agather.sleep(0.2) -- work
  stream:write("answer to ", request, "\n")
end

agather.run(function()
  local server = net.start_server("127.0.0.1", tonumber(arg[1]) or 0, answer)
  local serving = agather.spawn(server.serve_forever, server)
  print(("listening on %s:%d"):format(server:local_address()))
  io.stdout:flush()

  local name = signal.wait("SIGTERM", "SIGINT")
  print(("%s: %d running"):format(name, server:connections()))
  local cancelled = server:shutdown(GRACE_SECONDS)
  serving:await()
  print(("done, %d cancelled"):format(cancelled))
end)
