-- Tells which TCP ports of a host are open: many attempts at once, and no more than a limit.
-- Usage: port_scanner.lua [HOST FIRST LAST [LIMIT]]; without arguments it scans ports of its own.
local agather = require "agather"
local net = agather.net

local function is_open(host, port)
  local ok, result = agather.pcall(net.connect, host, port, { timeout = 0.5 })
  if ok then
    result:close()
    return true
  end
  if agather.is_error(result, agather.TimeoutError) or agather.is_error(result, agather.OSError) then return false end
  error(result, 0)
end

local function scan(host, ports, limit)
  local open = {}
  local answers = agather.map(function(port) return is_open(host, port) end, ports, { limit = limit })
  for place, port in ipairs(ports) do
    if answers[place] then open[#open + 1] = port end
  end
  return open
end

agather.run(function()
  if arg[1] then
    local ports = {}
    for port = tonumber(arg[2]), tonumber(arg[3]) do ports[#ports + 1] = port end
    for _, port in ipairs(scan(arg[1], ports, tonumber(arg[4]) or 100)) do print(port, "open") end
    return
  end

  local listeners, ports = {}, {}
  for i = 1, 20 do
    listeners[i] = net.listen("127.0.0.1", 0)
    ports[i] = select(2, listeners[i]:local_address())
  end
  for i = 1, 20 do
    if i % 3 ~= 0 then listeners[i]:close() end
  end
  local open = scan("127.0.0.1", ports, 5)
  print(("%d of %d ports are open"):format(#open, #ports))
  for i, port in ipairs(open) do assert(port == ports[3 * i]) end
end)
