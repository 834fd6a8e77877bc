-- agather.tls: TLS over any stream, by OpenSSL. A stream is anything that has read(n), write(bytes) and close(): a
-- socket after STARTTLS, a proxy's tunnel, a pipe in memory, another TLS stream. What comes back is a whole stream.
local agather = require "agather"
local check = require "agather.check"
local context = require "agather.tls_context"
local new_filter = require "agather.tls_filter"
local ssl = require "agather.ssl"
local stream = require "agather.stream"

local tls = { Context = context.Context }

local HANDSHAKE_TIMEOUT = 60

-- ---- names ----

-- A host name without the dot that ends it, or an address without its zone, checked.
local function check_server_name(options, verify, at)
  local value = context.check_string(options, "server_name", at)
  if not value then
    if verify then
      context.option_fails(at, "server_name", "is missing: whose certificate is expected? (or set verify = false)")
    end
    return
  end
  if value:find(":", 1, true) then value = value:gsub("%%.*", ""):gsub("^%[(.*)%]$", "%1") end
  value = value:gsub("%.$", "")
  if #value == 0 or #value > 253 then context.option_fails(at, "server_name", "must have 1 to 253 bytes") end
  if value:find("[^%w%-_.:]") then
    context.option_fails(at, "server_name", "must be a host name in ASCII, or an address, got " .. options.server_name)
  end
  return value
end

-- The other side for errors: "a.example (127.0.0.1:443)".
local function address_of(inner, server_name)
  local ok, host, port
  if inner.peer_address then ok, host, port = pcall(inner.peer_address, inner) end
  if not ok or not host then return server_name end
  local address = port and ("%s:%s"):format(tostring(host):find(":", 1, true) and "[" .. host .. "]" or host, port) or host
  if not server_name or server_name == host then return address end
  return ("%s (%s)"):format(server_name, address)
end

-- ---- streams ----

-- What a TLS stream has beside the methods of every stream.
---@class agather.tls.Stream: agather.Stream
local methods = {}

local function engine_of(self, operation)
  local engine = not self.closed and self.transport.engine
  if not engine then
    error(agather.OSError(operation .. ": the stream is closed (EBADF)", {
      code = "EBADF", errno = 9, operation = operation,
    }))
  end
  return engine
end

--- "TLSv1.2" or "TLSv1.3".
---@return string
function methods:version() return engine_of(self, "version"):version() end

--- Such as "TLS_AES_256_GCM_SHA384".
---@return string
function methods:cipher() return engine_of(self, "cipher"):cipher() end

--- The protocol that was agreed on, or nil.
---@return string?
function methods:alpn() return engine_of(self, "alpn"):alpn() end

--- The name that the client asked for, or nil.
---@return string?
function methods:server_name() return engine_of(self, "server_name"):server_name() end

--- Whether an earlier session went on.
---@return boolean
function methods:resumed() return engine_of(self, "resumed"):resumed() end

--- The peer's certificate, or nil where it sent none: subject and issuer ("O=Org, CN=name"), san (a list: "DNS:name",
--- "IP:address"), not_before and not_after (as of os.time), serial and sha256 (hexadecimal), pem.
---@return { subject: string, issuer: string, san: string[], not_before: integer, not_after: integer, serial: string,
---  sha256: string, pem: string }?
function methods:peer_certificate() return engine_of(self, "peer_certificate"):peer_certificate() end

local function check_stream(inner, name)
  local kind = type(inner)
  if kind ~= "table" and kind ~= "userdata" then
    check.fail(1, name, "stream expected, got " .. check.type_name(inner))
  end
  for _, method in ipairs { "read", "write", "close" } do
    local ok, value = pcall(function() return inner[method] end)
    if not ok or value == nil then
      check.fail(1, name, ("stream expected, got %s, which has no method '%s'"):format(check.type_name(inner), method))
    end
  end
end

local function check_timeout(options, at)
  local seconds = options.handshake_timeout
  if seconds == nil then return HANDSHAKE_TIMEOUT end
  if seconds ~= false and (type(seconds) ~= "number" or seconds ~= seconds or seconds <= 0) then
    context.option_fails(at, "handshake_timeout",
      "must be a positive number of seconds or false, got " .. tostring(seconds))
  end
  return seconds
end

local function check_known(options, known, at)
  for option in pairs(options) do
    if not known[option] then check.fail(at.position, at.name, ("unknown option '%s%s'"):format(at.prefix, option)) end
  end
end

local function start(inner, make_engine, settings, server_name, seconds)
  local address = address_of(inner, server_name)
  local engine, code, text = make_engine(settings.inner, server_name)
  if not engine then context.raise("handshake", address, code, text) end
  local filter = new_filter(engine, inner, address)
  filter:handshake(seconds, make_engine == ssl.client)
  return stream.wrap(filter, methods)
end

local server_options = { context = true, handshake_timeout = true }
for option in pairs(context.options) do server_options[option] = true end

local client_options = { server_name = true }
for option in pairs(server_options) do client_options[option] = true end

--- Checks a client's options, and gives what makes a TLS stream of a stream; agather.net uses it.
---@param options table
---@param at table whose argument they are, as in tls_context.lua
---@param host? string the server's name unless the options have one
---@return fun(inner: any): agather.tls.Stream
function tls.prepare_client(options, at, host)
  check_known(options, client_options, at)
  local seconds = check_timeout(options, at)
  local settings = context.of(options, at)
  local named = options.server_name ~= nil and options or { server_name = host }
  local server_name = check_server_name(named, settings.verify, at)
  return function(inner) return start(inner, ssl.client, settings, server_name, seconds) end
end

--- The same for a server.
---@param options table
---@param at table
---@return fun(inner: any): agather.tls.Stream
function tls.prepare_server(options, at)
  check_known(options, server_options, at)
  local seconds = check_timeout(options, at)
  local settings = context.of(options, at)
  if not settings.has_certificate then context.option_fails(at, "cert", "is missing") end
  return function(inner) return start(inner, ssl.server, settings, nil, seconds) end
end

--- Speaks TLS as a client over a stream, and gives a stream. Verifies the certificate, and that it is for server_name, a
--- host name or an address. From then on, and also when it fails or is cancelled, the stream below belongs to the new
--- one: failing closes it. Raises TLSError, with .code such as "CERT_HAS_EXPIRED", and TimeoutError.
---@async
---@param inner any
---@param options? table server_name, context or what makes one, handshake_timeout (60 seconds; false: none)
---@return agather.tls.Stream
function tls.client(inner, options)
  check_stream(inner, "client")
  options = check.options(options, client_options, 2, "client")
  return tls.prepare_client(options, { position = 2, name = "client", prefix = "" })(inner)
end

--- Speaks TLS as a server over a stream, and gives a stream; as tls.client otherwise.
---@async
---@param inner any
---@param options table context or what makes one (cert and key at least), handshake_timeout
---@return agather.tls.Stream
function tls.server(inner, options)
  check_stream(inner, "server")
  options = check.options(options, server_options, 2, "server")
  return tls.prepare_server(options, { position = 2, name = "server", prefix = "" })(inner)
end

return tls
