-- lua-luv with coroutines: a coroutine per connection; reading yields until libuv's callback resumes it with data.
-- HTTP is the least that answers: the head is read up to the empty line, and not looked at.
local uv = require "luv"

local handlers = {}

function handlers.echo(client, read)
  local data = read()
  while data do
    client:write(data)
    data = read()
  end
end

local response = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"

function handlers.http(client, read)
  local buffer = ""
  while true do
    local _, last = buffer:find("\r\n\r\n", 1, true)
    if last then
      buffer = buffer:sub(last + 1)
      client:write(response)
    else
      local data = read()
      if not data then return end
      buffer = buffer .. data
    end
  end
end

local function serve_one(client, handler)
  client:nodelay(true)
  local thread
  thread = coroutine.create(function()
    handler(client, coroutine.yield)
    client:close()
  end)
  coroutine.resume(thread)
  client:read_start(function(_, data) assert(coroutine.resume(thread, data)) end)
end

local server = uv.new_tcp()
server:bind("127.0.0.1", 0)
server:listen(511, function(failure)
  assert(not failure, failure)
  local client = uv.new_tcp()
  server:accept(client)
  serve_one(client, handlers[arg[1]])
end)
print(server:getsockname().port)
io.stdout:flush()
uv.run()
