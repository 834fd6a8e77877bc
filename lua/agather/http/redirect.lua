-- Redirects: which are followed, and what goes along. curl is not asked to: each name is looked up by us, and what is
-- secret is for us to keep.
local agather = require "agather"
local errors = require "agather.http.errors"
local Headers = require "agather.http.headers"
local hops = require "agather.http.hop"
local url = require "agather.http.url"

local redirects = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

-- Headers that are for one host alone: its name, and what another must not know, by what they are called, as scripts
-- have their own.
local function is_for_host(name)
  name = name:lower()
  return name == "host" or name:find("auth") or name:find("cookie") or name:find("token") or name:find("secret")
    or name:find("api%-?key")
end

local function without(headers, unwanted)
  local kept = Headers.new(headers)
  for name in headers:items() do
    if unwanted(name) then kept:remove(name) end
  end
  return kept
end

local function is_about_body(name)
  name = name:lower()
  return name == "content-type" or name == "content-length" or name == "content-encoding"
end

-- What a redirect does to the method: as browsers and every other client do it.
local function method_after(status, method)
  if status == 303 and method ~= "HEAD" then return "GET" end
  if (status == 301 or status == 302) and method == "POST" then return "GET" end
  return method
end

local function target_of(hop, location)
  local target, problem = url.parse(location, hop.target.url)
  if not target then errors.raise(errors.ProtocolError, hop, "redirect refused: " .. problem) end
  local follow = hop.options.follow_redirects
  if hop.target.scheme == "https" and target.scheme == "http" and not follow.allow_downgrade then
    errors.raise(errors.ProtocolError, hop, "redirect refused: from https to http")
  end
  return target
end

-- Turns [hop] into the one that follows [response].
local function follow(hop, response)
  local target = target_of(hop, response.headers.location)
  if not url.same_origin(hop.target, target) then
    hop.headers = without(hop.headers or hop.client.headers, is_for_host)
    hop.auth, hop.cookie = nil, nil
  end
  local method = method_after(response.status, hop.method)
  if method ~= hop.method then
    hop.headers = without(hop.headers or hop.client.headers, is_about_body)
    hop.method, hop.body = method, nil
  end
  if hop.body and not hop.body.text then
    if not hop.body.rewind then
      errors.raise(errors.ProtocolError, hop, "redirect refused: the body cannot be sent again")
    end
    hop.body.rewind()
  end
  hop.target, hop.url = target, target.url
end

local DRAIN_LIMIT = 65536

-- Reads the rest of a stream that is not wanted if that is short, so that its connection can be used again.
local function drain(response)
  local _ <close> = response
  if rawget(response, "_upload") then return end
  local bytes = 0
  for piece in response:chunks() do
    bytes = bytes + #piece
    if bytes > DRAIN_LIMIT then return end
  end
end

--- Makes the request and follows where it leads; returns the last response.
return function(hop, streaming)
  local history = {}
  local follows = hop.options.follow_redirects
  while true do
    local response = (streaming and hops.begun or hops.whole)(hop, table.move(history, 1, #history, 1, {}))
    local location = redirects[response.status] and follows and response.headers.location
    if not location then return response end
    if streaming then agather.pcall(drain, response) end
    history[#history + 1] = response
    if #history > follows.max then
      errors.raise(errors.TooManyRedirects, hop, ("more than %d redirects"):format(follows.max), { history = history })
    end
    follow(hop, response)
  end
end
