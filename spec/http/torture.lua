-- Uses agather.http and agather.json, for the program torture: see spec/embed/torture.c and torture_spec.lua.
local agather = require "agather"
local http, json = agather.http, agather.json

local function answer(stream)
  while true do
    local line
    repeat line = stream:read("L") until not line or line == "\r\n"
    if not line then return end
    stream:write("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\nhello")
  end
end

local function accept(bound)
  local listener <close> = agather.net.listen("127.0.0.1", 0)
  bound:set_result((select(2, listener:local_address())))
  while true do
    local stream = listener:accept()
    agather.spawn(function()
      local _ <close> = stream
      agather.pcall(answer, stream)
    end)
  end
end

agather.run(function()
  local bound = agather.future()
  agather.spawn(accept, bound)
  local base = "http://127.0.0.1:" .. bound:await()
  local client <close> = http.Client { timeout = 5 }
  assert(client:get(base):text() == "hello")
  client:post(base, { json = { 1 }, params = { a = 1 }, headers = { x = "y" }, cookies = { q = "z" } })
  assert(#client:cookies() == 1)
  local left = 2
  client:put(base, { headers = { ["Content-Length"] = 2 }, body = function()
    left = left - 1
    return left >= 0 and "\r\n" or nil
  end })
  do
    local response <close> = client:stream("GET", base)
    for piece in response:chunks() do assert(#piece > 0) end
  end
  local cancelled = agather.spawn(client.get, client, base)
  agather.sleep(0)
  cancelled:cancel()
  pcall(client.get, client, "http://127.0.0.1:1/")
  pcall(client.get, client, "no URL")
  json.decode(json.encode({ a = { 1, 2.5, "x", json.null, {} }, b = json.array {} }, { sort = true, indent = 1 }))
  pcall(json.decode, "[1,")
  pcall(json.encode, { 1, { a = print } })
end)
