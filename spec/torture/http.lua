-- HTTP requests of every kind, to a server in the same state, for torture.c.
local agather = require "agather"
local http = agather.http
require "agather.http.client"
require "agather.progress"

local path = os.tmpname()
-- What is put together by the buffers of Lua's libraries is short: they do not try again where memory fails once.
local body = ("0123456789"):rep(90) .. "\n"
local long = ("0123456789"):rep(20000)

local function see() end -- its arguments are what is used

-- Reads requests and answers them, until the end.
local function answer(stream)
  local _ <close> = stream
  while true do
    local first, length = stream:read(), 0
    if not first then return end
    repeat
      local line = stream:read()
      length = tonumber(line and line:match("^[Cc]ontent%-[Ll]ength: (%d+)")) or length
    until not line or line == "\r"
    if length > 0 then stream:read_exactly(length) end
    local head = "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: "
    local text = first:find("/json") and "[1,2]" or first:find("/long") and long or body
    if first:find("/redirect") then
      head, text = "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: ", "-"
    elseif first:find("/missing") then
      head, text = "HTTP/1.1 404 Not Found\r\nContent-Length: ", "-"
    end
    stream:write(head .. #text .. "\r\n\r\n")
    if not first:find("^HEAD") then stream:write(text) end
  end
end

-- Ends, and with it who waits for an answer, when a connection or its task cannot be had.
local function serve(listener)
  while true do
    local stream = listener:accept()
    local ok, err = agather.pcall(agather.spawn, function() agather.pcall(answer, stream) end)
    if not ok then
      stream:close()
      error(err, 0)
    end
  end
end

local function use_client(client, base)
  see(tostring(client))
  local response = client:get(base .. "/redirect?a", { params = { a = 1 } })
  see(tostring(response), response:text(), response.headers["content-length"], #response.history)
  for _ in response:lines() do break end
  do
    local whole <close> = client:get(base .. "/json")
    whole:json()
  end
  agather.pcall(function() client:get(base .. "/missing"):raise_for_status() end)
  client:post(base, { json = { 1 }, headers = { x = "y" }, cookies = { q = "z" } })
  local left = 2
  client:put(base, { headers = { ["Content-Length"] = 2 }, body = function()
    left = left - 1
    return left >= 0 and "\r\n" or nil
  end })
  client:patch(base, { form = { a = "b" } })
  client:delete(base)
  client:head(base)
  client:options(base)
  client:request("POST", base, { multipart = { a = "b" } })
  client:download(base .. "/long", path, { progress = function() end })
  for _, size in ipairs { false, 100 } do
    local streamed <close> = client:stream("GET", size and base or base .. "/long")
    see(tostring(streamed))
    for _ in streamed:chunks(size or nil) do agather.sleep(0) end
  end
  do
    local streamed <close> = client:stream("GET", base)
    see(streamed.status)
    streamed:close()
  end
  client:stream("GET", base) -- left to the collector
  see(client.cookies and client:cookies())
  local cancelled = agather.spawn(client.get, client, base)
  agather.sleep(0)
  cancelled:cancel()
  agather.wait { cancelled }
  agather.pcall(client.get, client, "http://127.0.0.1:1/")
  agather.pcall(client.get, client, "no URL")
  agather.pcall(client.get, client, base, { max_body = 10 })
  agather.pcall(client.get, client, base, { timeout = 0.001 })
end

local function headers()
  local list = http.Headers { { "A", "1" }, { "b", "2" } }
  list:add("a", "3")
  list:set("c", "4")
  list:remove("b")
  see(list:get("a"), list:get_all("a"), tostring(list), list:items())
  for _ in pairs(list) do break end
end

local function with_server(use)
  local listener <close> = agather.net.listen("127.0.0.1", 0)
  local _, port = listener:local_address()
  local done = {}
  local ok, err = agather.pcall(agather.await, agather.gather(function() serve(listener) end, function()
    use("http://127.0.0.1:" .. port)
    error(done, 0)
  end, { cancel_on_error = true }))
  if not ok and err ~= done then error(err, 0) end
end


return {
  before = function() os.remove(path) end,
  run = function()
    headers()
    with_server(function(base)
      do
        local client <close> = http.Client {
          timeout = 5, limits = { max_connections = 3 }, headers = { a = "b" }, base_url = base, cookies = { c = "d" },
        }
        use_client(client, base)
        client:close()
      end
      http.get(base)
      for _, name in ipairs { "post", "put", "patch", "delete", "head", "options" } do http[name](base) end
      http.request("GET", base)
      http.stream("GET", base):text()
      http.download(base, path)
    end)
  end,
  after = function()
    os.remove(path)
    with_server(function(base) assert(http.get(base):text() == body) end)
  end,
}
