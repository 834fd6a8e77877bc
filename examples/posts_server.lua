-- A small server of posts for the examples of agather.http: /posts/1 to /posts/100 are JSON, any other is an empty
-- object. start() runs it beside the calling task and returns its URL.
local agather = require "agather"

local posts_server = {}

local function answer(stream)
  while true do
    local request = stream:read("l")
    if not request then return end
    repeat local line = stream:read("l") until line == "\r" or line == "" or line == nil
    local id = math.tointeger(tonumber(request:match("^GET /posts/(%d+) ")))
    local post = {}
    if id and id <= 100 then post = { id = id, title = "title of post " .. id } end
    local body = agather.json.encode(post)
    if id then agather.sleep(0.001 * (7 - id % 7)) end -- some answer sooner
    stream:write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ", #body, "\r\n\r\n", body)
  end
end

--- Starts the server; returns the URL before /posts.
---@return string
function posts_server.start()
  local bound = agather.future()
  agather.spawn(agather.net.serve, "127.0.0.1", 0, answer, {
    on_listen = function(listener) bound:set_result(listener:local_address()) end,
  })
  local host, port = bound:await()
  return ("http://%s:%d"):format(host, port)
end

return posts_server
