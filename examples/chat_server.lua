-- A chat server: the first line of a client is its name, each further one goes to all others. A client that does not
-- read misses lines, and holds up nobody.
-- Usage: chat_server.lua [PORT [HOST]]; then: nc 127.0.0.1 PORT
local agather = require "agather"
local net = agather.net

local port, host = tonumber(arg[1]) or 0, arg[2] or "127.0.0.1"
local LONGEST_LINE, MOST_WAITING = 1000, 100

local queues = {} -- client -> lines that are to be sent to it

local function tell_all(line, except)
  for client, queue in pairs(queues) do
    if client ~= except and not queue:full() then queue:put_nowait(line) end
  end
end

local function send_lines(stream, queue)
  for line in queue:items() do stream:write(line, "\n") end
end

local function chat(stream)
  stream:set_limits { line = LONGEST_LINE }
  stream:write("your name?\n")
  local name = stream:read()
  if not name then return end

  local queue = agather.Queue(MOST_WAITING)
  queues[stream] = queue
  local _ <close> = setmetatable({}, { __close = function()
    queues[stream] = nil
    tell_all(name .. " left")
  end })
  tell_all(name .. " came", stream)
  queue:put_nowait("welcome, " .. name)

  local tasks <close> = agather.TaskGroup()
  local sender = tasks:spawn(send_lines, stream, queue)
  for line in stream:lines() do tell_all(name .. ": " .. line, stream) end
  sender:cancel()
end

agather.run(function()
  net.serve(host, port, chat, {
    on_listen = function(server)
      print(("listening on %s:%d"):format(server:local_address()))
      io.stdout:flush()
    end,
    on_error = function(err, peer) io.stderr:write(peer or "accept", ": ", tostring(err), "\n") end,
  })
end)
