-- A hop is a request at one of its stations: what is sent, where to, within which limits. Here it becomes a transfer of
-- curl, and that a response; names are looked up before curl sees them.
--
-- Fields: client, method, target (the URL's parts), url (for errors), options, limits, headers (nil: the client's), body
-- (see body.lua), auth, cookie; started and ends_at on the loop's clock.
local agather = require "agather"
local check = require "agather.check"
local curl = require "agather.curl"
local errors = require "agather.http.errors"
local Headers = require "agather.http.headers"
local proxy = require "agather.http.proxy"
local Response = require "agather.http.response"
local url = require "agather.http.url"

local hops = {}

local function time_left(hop)
  if not hop.ends_at then return nil end
  local left = hop.ends_at - agather.get_running_loop():time()
  if left <= 0 then errors.timed_out(hop, "total", hop.limits.timeout_total) end
  return left
end

--- Runs f(...), which waits for something other than curl, within what is left of the time to connect and in total.
function hops.in_time(hop, f, ...)
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
  local ok, found = agather.pcall(hops.in_time, hop, agather.dns.resolve, host)
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
  fields.timeout_total = time_left(hop)
  return fields
end

-- What gives curl the next pieces of the body when it asks for them: feed(event) goes on until it does not, and returns
-- what else happened; is_over() tells whether all was given.
local function feeder(hop, transfer)
  local sent, bytes, over = hop.body, 0, false
  local function feed(event)
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
        over = piece == nil
        transfer:feed(piece)
      end
      event = transfer:wait()
    end
    return event
  end
  return feed, function() return over end
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

--- One transfer whose body is kept.
function hops.whole(hop, history)
  local transfer <close> = curl.start(fields_of(hop, false))
  local event = transfer:wait()
  if event == "upload" then feeder(hop, transfer)(event) end
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

--- One transfer whose response is given as soon as its head has come; it holds the transfer.
function hops.begun(hop, history)
  local guard <close> = setmetatable({}, guard_metatable)
  local transfer = curl.start(fields_of(hop, true))
  guard.transfer = transfer
  local feed, is_over = feeder(hop, transfer)
  local event = feed(transfer:wait())
  local head = transfer:head()
  if event == "ended" and not head then check_failure(hop, transfer) end -- a later failure is found by who reads
  local fields = response_fields(hop, history)
  fields._transfer, fields._limits = transfer, hop.limits
  -- An answer that came before all was sent: who reads it sends the rest.
  if hop.body and not hop.body.text and event == "head" and not is_over() then fields._upload = feed end
  local response = Response.new(fields, head)
  if not response then errors.raise(errors.ProtocolError, hop, incomplete) end
  guard.transfer = nil
  return response
end

return hops
