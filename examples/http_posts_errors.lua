-- Fetches posts of which one is not there: with return_exceptions its error stands in its place.
-- Usage: http_posts_errors.lua [URL].
local agather = require "agather"
local http = agather.http

local function fetch_post(client, id)
  local post = client:get("posts/" .. id):json()
  if next(post) == nil then error(agather.Error("No data for post " .. id)) end
  return post.title
end

agather.run(function()
  local client <close> = http.Client { base_url = arg[1] or require("examples.posts_server").start() }
  local results = agather.await(agather.gather(
    function() return fetch_post(client, 1) end,
    function() return fetch_post(client, 99999) end, -- an empty object
    function() return fetch_post(client, 3) end,
    { return_exceptions = true }
  ))
  for index, result in ipairs(results) do
    if agather.is_error(result) then
      print(("Post %d failed: %s"):format(index, result))
    else
      print(("Post %d: %s"):format(index, result))
    end
  end
end)
