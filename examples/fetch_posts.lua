-- Fetches many posts at once over real TCP connections: gather keeps their order, and with return_exceptions
-- a post that fails stands as an error object in its place.
-- Usage: fetch_posts.lua [HOST PORT [COUNT]]; without arguments it starts a small server of its own.
local agather = require "agather"
local net = agather.net

local function fetch_post(host, port, id)
  local stream <close> = net.connect(host, port)
  stream:write("GET /posts/", id, ".json HTTP/1.0\r\nHost: ", host, "\r\n\r\n")
  local status = stream:read() or error("post " .. id .. ": the server closed the connection", 0)
  local code = tonumber(status:match("^HTTP/%d%.%d (%d+)"))
  for line in stream:lines() do
    if line == "\r" or line == "" then break end
  end
  local body = stream:read("a")
  if code ~= 200 then error(("post %d: status %s"):format(id, code), 0) end
  return body:match('"title":%s*"([^"]*)"')
end

-- A server with posts 1 to 5; any other is not found.
local function answer(stream)
  local id = tonumber((stream:read() or ""):match("^GET /posts/(%d+)%.json"))
  for line in stream:lines() do
    if line == "\r" then break end
  end
  agather.sleep(0.01 * (6 - (id or 0) % 6)) -- later posts answer sooner
  if id and id <= 5 then
    stream:write("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n",
      ('{"id": %d, "title": "title of post %d"}'):format(id, id))
  else
    stream:write("HTTP/1.0 404 Not Found\r\n\r\n")
  end
end

local function main(host, port, count)
  if not host then
    local bound = agather.future()
    agather.spawn(net.serve, "127.0.0.1", 0, answer, {
      on_listen = function(listener) bound:set_result(listener:local_address()) end,
    })
    host, port = agather.await(bound)
  end
  local jobs = {}
  for id = 1, tonumber(count) or 5 do
    jobs[id] = function() return fetch_post(host, port, id) end
  end
  jobs[#jobs + 1] = function() return fetch_post(host, port, 99999) end
  local titles = agather.await(agather.gather_list(jobs, { return_exceptions = true }))
  for i = 1, titles.n do
    if agather.is_error(titles[i]) then
      print(("Post %d failed: %s"):format(i, titles[i]))
    else
      print(("Post %d: %s"):format(i, titles[i]))
    end
  end
end

agather.run(main, arg[1], tonumber(arg[2]), arg[3])
