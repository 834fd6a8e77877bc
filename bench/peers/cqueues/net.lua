-- lua-cqueues: a coroutine per connection on its buffered sockets, in binary mode for echo. HTTP is the least that
-- answers: lines are read up to the empty one, and not looked at.
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local handlers = {}

function handlers.echo(connection)
  connection:setmode("bn", "bn")
  local data = connection:read(-65536)
  while data do
    connection:write(data)
    data = connection:read(-65536)
  end
end

local response = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"

function handlers.http(connection)
  connection:setmode("bn", "bn")
  for line in connection:lines("*L") do
    if line == "\r\n" then connection:write(response) end
  end
end

local handler = handlers[arg[1]]
local controller = cqueues.new()
local listener = socket.listen({ host = "127.0.0.1", port = 0, nodelay = true })

controller:wrap(function()
  assert(listener:listen())
  print(select(3, listener:localname()))
  io.stdout:flush()
  for connection in listener:clients() do
    controller:wrap(function()
      connection:onerror(function(_, _, code) return code end) -- a client that goes away is no failure
      handler(connection)
      connection:close()
    end)
  end
end)
assert(controller:loop())
