-- Fetches three posts at once and prints their titles in order. Usage: http_posts.lua [URL]; without one it starts a
-- server of its own.
local agather = require "agather"
local http = agather.http

local function fetch_post(client, id)
  local response = client:get("posts/" .. id)
  return response:json().title
end

agather.run(function()
  local client <close> = http.Client { base_url = arg[1] or require("examples.posts_server").start() }
  local titles = agather.await(agather.gather(
    function() return fetch_post(client, 1) end,
    function() return fetch_post(client, 2) end,
    function() return fetch_post(client, 3) end
  ))
  for index, title in ipairs(titles) do print(("Post %d: %s"):format(index, title)) end
end)
