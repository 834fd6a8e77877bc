-- Client: requests that share connections, cookies and defaults.
local agather = require "agather"
local body = require "agather.http.body"
local check = require "agather.check"
local curl = require "agather.curl"
local Headers = require "agather.http.headers"
local options_of = require "agather.http.options"
local places_for = require "agather.http.places"
local proxy = require "agather.http.proxy"
local request_and_follow = require "agather.http.redirect"
local url = require "agather.http.url"

---@class agather.http.Client
local methods = {}
local metatable = { __name = "agather.http.Client", __index = methods }

local open_clients = 0

local function check_method(method, position, name)
  if type(method) ~= "string" then
    check.fail(position, name, "method expected, got " .. check.type_name(method))
  end
  if not method:find("^[%w!#$%%&'*+%-.^_`|~]+$") then
    check.fail(position, name, ("%q is no method"):format(method))
  end
  method = method:upper()
  if method == "CONNECT" then check.fail(position, name, "CONNECT is for proxies: see option 'proxy'") end
  return method
end

local wants_length = { POST = true, PUT = true, PATCH = true }

-- The headers of a request; nil: those of the client as they are.
local function headers_of(client, options, made, position, name)
  local given = options.headers and Headers.new(options.headers, position, name)
  if given and given["Transfer-Encoding"] then
    check.fail(position, name, "header 'Transfer-Encoding' is set by the client itself")
  end
  if given and given["Content-Length"] then
    local length = math.tointeger(tonumber(given["Content-Length"]))
    if not made or made.text or not length or length < 0 or made.size and made.size ~= length then
      check.fail(position, name, "header 'Content-Length' is for a body that is read from a function or file")
    end
    made.size = length
    given:remove("Content-Length")
  end
  local auth = options.auth
  local other_auth = auth ~= client.settings.whole.auth and client.headers.Authorization or auth and auth.bearer
  if not given and not made and not other_auth then return nil end
  local headers = given and Headers.merge(client.headers, given) or Headers.new(client.headers)
  if other_auth and not (given and given.Authorization) then
    headers.Authorization = auth and auth.bearer and "Bearer " .. auth.bearer or nil
  end
  if made and made.content_type and not headers["Content-Type"] then headers:set("Content-Type", made.content_type) end
  return headers
end

-- The request as its first hop (see hop.lua).
local function first_hop(client, method, text, options, position, name, streaming)
  method = check_method(method, position - 1, name)
  local target = url.check(text, client.settings.base_url, position, name)
  options = options_of.request(client.settings, options, position + 1, name, streaming)
  if options.params then
    target.url = url.with_query(target.url, url.encode(options.params, false, position + 1, name, "params"))
  end
  if options.has_body and method == "HEAD" then check.fail(position + 1, name, "HEAD has no body") end
  local made = options.has_body and body.of(options, position + 1, name) or nil
  local hop = {
    client = client, method = method, target = target, url = target.url, options = options, body = made,
    limits = options.limits_of_request,
    auth = options.auth and options.auth.user and options.auth,
    cookie = options.cookie_line,
    headers = headers_of(client, options, made, position + 1, name),
  }
  if target.user then
    hop.auth = { user = target.user, password = target.password or "" }
  end
  if not made and wants_length[method] then hop.body = { text = "" } end
  if hop.body then -- curl would add headers of its own
    hop.headers = hop.headers or Headers.new(client.headers)
  end
  return hop
end

local function begin(hop)
  hop.started = agather.get_running_loop():time()
  local total = hop.limits.timeout_total
  hop.ends_at = total and hop.started + total
end

local function check_open(client, name)
  if client.closed then error(("bad self for '%s' (the client is closed)"):format(name), 3) end
  if not agather.current_task() then error(agather.RuntimeError(name .. ": use it inside a task"), 0) end
end

local closing_body = { __close = function(made) if made.body.close then made.body.close() end end }

-- What closes the files of a body; nothing for most.
local function closer_of(hop)
  return hop.body and hop.body.close and setmetatable({ body = hop.body }, closing_body) or nil
end

local function run_whole(client, hop)
  begin(hop)
  local _ <close> = closer_of(hop)
  local places <close> = places_for(client, hop)
  places:take(hop)
  return request_and_follow(hop, false)
end

-- The response holds the places until it is closed.
local function run_stream(client, hop)
  begin(hop)
  local closer <close> = closer_of(hop)
  local places = places_for(client, hop)
  local kept = false
  local _ <close> = setmetatable({}, { __close = function() if not kept then places:give_back() end end })
  places:take(hop)
  local response = request_and_follow(hop, true)
  response._done = places
  kept = true
  if closer and rawget(response, "_upload") then response._close_body, closer.body = hop.body.close, {} end
  return response
end

--- Makes a request and returns its response with the whole body.
---@async
---@param method string
---@param text string URL, absolute or relative to base_url
---@param options? table
---@return agather.http.Response
function methods:request(method, text, options)
  check_open(self, "request")
  return run_whole(self, first_hop(self, method, text, options, 2, "request"))
end

for name in ("get post put patch delete head options"):gmatch("%a+") do
  local method = name:upper()
  methods[name] = function(self, text, options)
    check_open(self, name)
    return run_whole(self, first_hop(self, method, text, options, 1, name))
  end
end

--- Makes a request and returns its response as soon as the head has come; the body is read from it. Close it:
--- `local response <close> = client:stream("GET", url)`.
---@async
---@return agather.http.Response
function methods:stream(method, text, options)
  check_open(self, "stream")
  return run_stream(self, first_hop(self, method, text, options, 2, "stream", true))
end

--- Fetches a URL into a file, which appears at [path] when all has come. progress: true for a line on the terminal, or
--- a function of the bytes so far and in total (nil where the server does not say), which may end the download by an
--- error: that is raised, and no file is left.
---@async
---@param text string
---@param path string
---@param options? table those of a request, and progress
---@return agather.http.Response
function methods:download(text, path, options)
  check_open(self, "download")
  return require("agather.http.download")(self, text, path, options)
end

--- The cookies that the client keeps: a list of { name, value, domain, path, secure, expires }.
function methods:cookies()
  local list = {}
  if self.closed then return list end
  for place, line in ipairs(self.share:cookies()) do
    local domain, _, path, secure, expires, name, value = line:match(
      "^#?H?t?t?p?O?n?l?y?_?([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local seconds = math.tointeger(tonumber(expires))
    list[place] = {
      name = name, value = value, domain = domain, path = path, secure = secure == "TRUE",
      expires = seconds ~= 0 and seconds or nil,
    }
  end
  return list
end

--- Refuses requests from now on and forgets cookies. Streams that are open go on. The last client that is closed
--- closes the idle connections. Again is harmless.
function methods:close()
  if self.closed then return end
  self.closed = true
  self.share:close()
  open_clients = open_clients - 1
  if open_clients == 0 and agather.current_task() then curl.trim() end
end

metatable.__close = methods.close
metatable.__gc = function(self)
  if not self.closed and not self.shared then open_clients = open_clients - 1 end
end
metatable.__tostring = function(self)
  return ("Client: %s%s"):format(self.settings.base_url or "any host", self.closed and ", closed" or "")
end

--- Makes a client. One that is [shared] by all is never closed and does not count as open.
---@param options? table
---@param shared? boolean
---@return agather.http.Client
local function Client(options, shared)
  options = options_of.client(options, 1, "Client")
  local headers = Headers.merge(options_of.default_headers(), Headers.new(options.headers, 1, "Client"))
  for _, name in ipairs { "Transfer-Encoding", "Content-Length" } do
    if headers[name] then check.fail(1, "Client", ("header '%s' is not one for all requests"):format(name)) end
  end
  if options.auth and options.auth.bearer and not headers.Authorization then
    headers:set("Authorization", "Bearer " .. options.auth.bearer)
  end
  local share = curl.share(options.keeps_cookies)
  local limits = options.limits
  local self = setmetatable({
    settings = options, headers = headers, plain_lines = Headers.lines(headers), share = share, hosts = {},
    gate = limits.max_connections and agather.Semaphore(limits.max_connections),
    keepalive = limits.keepalive_expiry, surroundings = proxy.environment(),
    shared = shared,
  }, metatable)
  if not shared then open_clients = open_clients + 1 end
  for _, cookie in ipairs(options.first_cookies) do share:set_cookie(cookie) end
  return self
end

return Client
