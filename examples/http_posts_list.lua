-- Fetches any number of posts at once. Usage: http_posts_list.lua [URL].
local agather = require "agather"
local http = agather.http

local fetch_post = agather.async(function(client, id)
  return client:get("posts/" .. id):json().title
end)

agather.run(function()
  local client <close> = http.Client { base_url = arg[1] or require("examples.posts_server").start() }
  local coros = {}
  for _, id in ipairs { 1, 2, 3, 4, 5 } do coros[#coros + 1] = fetch_post(client, id) end
  local titles = agather.await(agather.gather_list(coros))
  for _, title in ipairs(titles) do print(title) end
end)
