-- Loads everything, for torture.c: what could not be loaded for want of memory is loaded later, and works.
local agather = require "agather"

local names = { "dns", "fs", "http", "json", "luv", "net", "process", "signal", "stream", "testing", "tls", "worker",
  "tls_listener", "http.client", "progress" }

local function use()
  agather.json.decode(agather.json.encode { 1 })
  local one <close>, other = agather.net.pair()
  one:write("x"):shutdown()
  other:read("a")
  do
    local listener <close> = agather.net.listen("127.0.0.1", 0)
    local host, port = listener:local_address()
    local stream <close> = agather.net.connect(host, port)
    stream:write("x")
    local accepted <close> = listener:accept()
    accepted:read(1)
  end
  local client <close> = agather.http.Client { timeout = 5 }
  agather.pcall(client.get, client, "http://127.0.0.1:1/")
  client:cookies()
  agather.tls.Context {}
  agather.process.run { "true" }
  agather.worker.run(math.sqrt, 4)
  agather.fs.stat("/")
end

return {
  run = function()
    for _, name in ipairs(names) do require("agather." .. name) end
    use()
  end,
  after = use,
}
