-- agather: a task per connection that reads and writes plainly. HTTP is the least that answers: the head is read up to
-- the empty line, and not looked at.
local agather = require "agather"
local net = require "agather.net"

local handlers = {}

function handlers.echo(stream)
  local data = stream:read(65536)
  while data do
    stream:write(data)
    data = stream:read(65536)
  end
end

local response = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"

function handlers.http(stream)
  while true do
    stream:read_until("\r\n\r\n")
    stream:write(response)
  end
end

agather.run(function()
  local handler = handlers[arg[1]]
  net.serve("127.0.0.1", 0, function(stream)
    agather.pcall(handler, stream) -- a client that goes away is no failure
  end, {
    on_listen = function(listener)
      print(select(2, listener:local_address()))
      io.stdout:flush()
    end,
  })
end)
