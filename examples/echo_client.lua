-- Sends words to an echo server, one a line, and prints what comes back, at the same time.
-- Usage: echo_client.lua PORT [HOST [WORD]...]
local agather = require "agather"

local port, host = tonumber(arg[1]), arg[2] or "127.0.0.1"
local words = #arg > 2 and table.pack(table.unpack(arg, 3)) or { "one", "two", "three" }

agather.run(function()
  local stream <close> = agather.net.connect(host, port, { timeout = 5 })

  local sender = agather.spawn(function()
    for _, word in ipairs(words) do stream:write(word, "\n") end
    stream:shutdown() -- no more will come, says this to the server; its answer is still read
  end)

  for line in stream:lines() do print(line) end
  sender:await()
end)
