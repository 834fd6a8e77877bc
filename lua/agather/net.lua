-- agather.net: TCP streams and servers. The streams are in C (src/uv); serving is a loop over accept.
local agather = require "agather"
local uv = require "agather.uv"

require "agather.stream" -- gives streams the methods that are written in Lua

local net = {
  pair = require "agather.memory_pair",
}

function net.connect(host, port)
  return uv.connect(uv.lookup(host), port, ("%s:%d"):format(host, port), 0.25, true)
end

function net.listen(host, port)
  return uv.listen(host == "localhost" and "127.0.0.1" or host, port, 511, true)
end

local function serve_one(handler, stream)
  local _ <close> = stream
  handler(stream)
end

--- Accepts connections for ever, a task per connection; each stream is closed when its handler returns.
--- Cancel the calling task, or close the listener, to stop.
---@async
---@param host string
---@param port integer 0 for any free one
---@param handler fun(stream: any)
---@param opts? { on_listen: fun(listener: any) }
function net.serve(host, port, handler, opts)
  if type(handler) ~= "function" then
    error("bad argument #3 to 'serve' (function expected, got " .. type(handler) .. ")", 2)
  end
  local listener <close> = net.listen(host, port)
  if opts and opts.on_listen then opts.on_listen(listener) end
  while true do
    agather.spawn(serve_one, handler, listener:accept())
  end
end

return net
