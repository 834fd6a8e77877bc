-- Client: requests that share connections, cookies and defaults. A request is one transfer of curl for each hop:
-- redirects are followed here, so that each name is looked up off curl and nothing secret goes to another host.
local agather = require "agather"
local body = require "agather.http.body"
local check = require "agather.check"
local curl = require "agather.curl"
local errors = require "agather.http.errors"
local Headers = require "agather.http.headers"
local options_of = require "agather.http.options"
local proxy = require "agather.http.proxy"
local Response = require "agather.http.response"
local url = require "agather.http.url"

---@class agather.http.Client
local methods = {}
local metatable = { __name = "agather.http.Client", __index = methods }

local open_clients = 0

-- ---- one hop ----

local function time_left(hop)
  if not hop.ends_at then return nil end
  local left = hop.ends_at - agather.get_running_loop():time()
  if left <= 0 then errors.timed_out(hop, "total", hop.limits.timeout_total) end
  return left
end

-- Runs f(...), which waits for something other than curl, within what is left of the time to connect and in total.
local function in_time(hop, f, ...)
  local left, connect = time_left(hop), hop.limits.timeout_connect
  if not left and not connect then return f(...) end
  local first = connect and (not left or connect < left)
  local scope = agather.timeout(first and connect or left)
  local results
  local ok, err = pcall(function(...)
    local _ <close> = scope
    results = table.pack(f(...))
  end, ...)
  if not ok then
    if scope:expired() and agather.is_error(err, agather.TimeoutError) then
      local phase = first and "connect" or "total"
      errors.timed_out(hop, phase, hop.limits["timeout_" .. phase])
    end
    error(err, 0)
  end
  return table.unpack(results, 1, results.n)
end

-- A line for CURLOPT_RESOLVE; "+": it is not kept longer than any other answer.
local function lookup_line(hop, host, port)
  local ok, found = agather.pcall(in_time, hop, agather.dns.resolve, host)
  if not ok then
    if not agather.is_error(found, agather.OSError) then error(found, 0) end
    errors.raise(errors.ConnectError, hop, "cannot " .. tostring(found), { code = found.code, host = host })
  end
  local addresses = {}
  for place, entry in ipairs(found) do
    addresses[place] = entry.family == "ipv6" and "[" .. entry.address .. "]" or entry.address
  end
  return ("+%s:%s:%s"):format(host, port, table.concat(addresses, ","))
end

-- The name that curl would look up is that of the proxy where there is one.
local function look_up(hop, fields)
  local via, problem = proxy.of(hop.options.proxy, hop.target, hop.client.surroundings)
  if problem then errors.raise(errors.ConnectError, hop, "proxy of the environment: " .. problem) end
  local host, port = hop.target.host, hop.target.port
  if via then
    fields.proxy = via.url
    host, port = via.host, via.port
  end
  if not url.is_address(host) then fields.resolve = { lookup_line(hop, host, port) } end
end

local function lines_of(hop)
  local headers = hop.headers
  if not headers then return hop.client.plain_lines end
  local lines = Headers.lines(headers)
  if hop.body then -- a name without value keeps curl from a header of its own
    lines[#lines + 1] = "Expect:"
    if not headers["Content-Type"] then lines[#lines + 1] = "Content-Type:" end
  end
  return lines
end

local function fields_of(hop, streaming)
  local limits, options, client = hop.limits, hop.options, hop.client
  local fields = {
    url = hop.target.url,
    method = hop.method,
    headers = lines_of(hop),
    share = client.share,
    stream = streaming,
    decompress = true,
    max_body = limits.max_body,
    timeout_connect = limits.timeout_connect,
    timeout_read = limits.timeout_read,
    timeout_total = time_left(hop),
    http_version = options.http2 and (options.http2 == "prior" and "2-prior" or "2") or nil,
    keepalive = client.keepalive,
    cookie = hop.cookie,
  }
  if options.verify == false then
    fields.insecure = true
  elseif options.verify ~= true then
    fields.ca_file = options.verify
  end
  if options.cert then
    fields.cert_file, fields.key_file = options.cert.cert, options.cert.key
    fields.key_password = options.cert.password
  end
  if hop.auth then
    fields.user, fields.password, fields.digest = hop.auth.user, hop.auth.password, hop.auth.digest
  end
  local sent = hop.body
  if sent and sent.text then
    fields.body = sent.text
  elseif sent then
    fields.upload, fields.upload_size = true, sent.size
  end
  look_up(hop, fields)
  return fields
end

-- Gives curl the next pieces of the body when it asks for them. Returns what else happened.
local function feed(hop, transfer, event)
  local sent, bytes = hop.body, 0
  while event == "upload" do
    local piece = sent.read()
    if piece ~= nil and type(piece) ~= "string" then
      errors.raise(errors.Error, hop, "the body's reader must return a string or nil, got " .. check.type_name(piece))
    end
    if piece == nil or piece ~= "" then
      bytes = bytes + (piece and #piece or 0)
      if sent.size and (bytes > sent.size or piece == nil and bytes < sent.size) then
        errors.raise(errors.Error, hop, ("the body is not %d bytes long, as was said"):format(sent.size))
      end
      transfer:feed(piece)
    end
    event = transfer:wait()
  end
  return event
end

local function check_failure(hop, transfer)
  local kind, cause, code, number = transfer:failure()
  if kind then errors.raise_failure(hop, hop.limits, kind, cause, code, number) end
end

local function response_fields(hop, history)
  return {
    url = hop.target.url,
    history = history,
    request = { method = hop.method, url = hop.target.url },
    elapsed = agather.get_running_loop():time() - hop.started,
  }
end

local incomplete = "the connection ended within the head of the response"

local function response_of(hop, history, transfer)
  local response = Response.new(response_fields(hop, history), transfer:head())
  if not response then errors.raise(errors.ProtocolError, hop, incomplete) end
  return response
end

-- One transfer whose body is kept.
local function whole(hop, history)
  local transfer <close> = curl.start(fields_of(hop, false))
  local event = transfer:wait()
  if event == "upload" then feed(hop, transfer, event) end
  check_failure(hop, transfer)
  local response = response_of(hop, history, transfer)
  response._body = transfer:body()
  return response
end

local guard_metatable = {
  __close = function(guard)
    if guard.transfer then guard.transfer:close() end
  end,
}

-- One transfer whose response is given as soon as its head has come; it holds the transfer.
local function begun(hop, history)
  local guard <close> = setmetatable({}, guard_metatable)
  local transfer = curl.start(fields_of(hop, true))
  guard.transfer = transfer
  local event = transfer:wait()
  if event == "upload" then event = feed(hop, transfer, event) end
  local head = transfer:head()
  if event == "ended" and not head then check_failure(hop, transfer) end -- a later failure is found by who reads
  local fields = response_fields(hop, history)
  fields._transfer, fields._limits = transfer, hop.limits
  local response = Response.new(fields, head)
  if not response then errors.raise(errors.ProtocolError, hop, incomplete) end
  guard.transfer = nil
  return response
end

-- ---- redirects ----

local redirects = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

-- Headers that are for one host alone: its name, and what another must not know, by what they are called, as scripts
-- have their own.
local function is_for_host(name)
  name = name:lower()
  return name == "host" or name:find("auth") or name:find("cookie") or name:find("token") or name:find("secret") or name:find("api%-?key")
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
  local bytes = 0
  for piece in response:chunks() do
    bytes = bytes + #piece
    if bytes > DRAIN_LIMIT then return end
  end
end

local function hops(hop, streaming)
  local history = {}
  local follows = hop.options.follow_redirects
  while true do
    local response = (streaming and begun or whole)(hop, table.move(history, 1, #history, 1, {}))
    local location = redirects[response.status] and follows and response.headers.location
    if not location then return response end
    if streaming then drain(response) end
    history[#history + 1] = response
    if #history > follows.max then
      errors.raise(errors.TooManyRedirects, hop, ("more than %d redirects"):format(follows.max), { history = history })
    end
    follow(hop, response)
  end
end

-- ---- requests ----

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
  local bearer = options.auth and options.auth.bearer
  if not given and not made and not bearer then return nil end
  local headers = given and Headers.merge(client.headers, given) or Headers.new(client.headers)
  if bearer and not (given and given.Authorization) then headers:set("Authorization", "Bearer " .. bearer) end
  if made and made.content_type and not headers["Content-Type"] then headers:set("Content-Type", made.content_type) end
  return headers
end

-- A hop is a request at one of its stations: what is sent, where to, and within which limits.
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

local function acquire(client, hop)
  local gate = client.gate
  if not gate then return end
  if gate:locked() then
    in_time({ limits = { timeout_total = hop.limits.timeout_total }, ends_at = hop.ends_at, method = hop.method,
      url = hop.url }, gate.acquire, gate)
  else
    gate:acquire()
  end
end

-- The gate of a host: few requests at a time to each.
local function gate_of(client, hop)
  local per_host = client.settings.limits.max_per_host
  if not per_host then return nil end
  local key = hop.target.host .. ":" .. hop.target.port
  local entry = client.hosts[key]
  if not entry then
    entry = { gate = agather.Semaphore(per_host), users = 0 }
    client.hosts[key] = entry
  end
  entry.users = entry.users + 1
  return entry, key
end

-- The places in the client's gates that a request holds.
local Places = {}
Places.__index = Places

function Places:give_back()
  if self.held then self.client.gate:release() end
  if self.host_held then self.entry.gate:release() end
  self.held, self.host_held = false, false
  local entry = self.entry
  if entry then
    entry.users = entry.users - 1
    if entry.users == 0 then self.client.hosts[self.key] = nil end
    self.entry = nil
  end
end

Places.__close = Places.give_back

-- Waits for the places that the client's limits ask for.
function Places:take(hop)
  if self.entry then
    acquire(self.entry, hop)
    self.host_held = true
  end
  acquire(self.client, hop)
  self.held = self.client.gate ~= nil
end

local function places_for(client, hop)
  local entry, key = gate_of(client, hop)
  return setmetatable({ client = client, entry = entry, key = key }, Places)
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
  return hops(hop, false)
end

-- The response holds the places until it is closed.
local function run_stream(client, hop)
  begin(hop)
  local _ <close> = closer_of(hop)
  local places = places_for(client, hop)
  local kept = false
  local _ <close> = setmetatable({}, { __close = function() if not kept then places:give_back() end end })
  places:take(hop)
  local response = hops(hop, true)
  response._done = places
  kept = true
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
--- a function of the bytes so far and in total (nil where the server does not say).
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
