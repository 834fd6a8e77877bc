-- agather.tls: TLS over any stream, by OpenSSL. A stream is anything that has read(n), write(bytes) and close(): a
-- socket after STARTTLS, a proxy's tunnel, a pipe in memory, another TLS stream. What comes back is a whole stream.
local agather = require "agather"
local check = require "agather.check"
local new_filter = require "agather.tls_filter"
local ssl = require "agather.ssl"
local stream = require "agather.stream"

local tls = {}

local HANDSHAKE_TIMEOUT = 60

local context_options = {
  verify = true, verify_client = true, ca = true, ca_file = true, ca_path = true, cert = true, key = true,
  key_password = true, alpn = true, min_version = true, max_version = true,
}

---@class agather.tls.ContextOptions
---@field verify? boolean a client verifies the server's certificate and name (true)
---@field verify_client? boolean|"optional" a server wants a certificate of clients, or verifies one that comes
---@field ca? string PEM text of the authorities to trust, instead of the system's
---@field ca_file? string the same in a file
---@field ca_path? string a directory of them, by hash
---@field cert? string own certificate and those above it: PEM text, or the path of a file
---@field key? string its private key: PEM text, or a path; without it, it stands with the certificate
---@field key_password? string of the private key
---@field alpn? string[] protocols, the one that is liked best first
---@field min_version? "TLSv1.2"|"TLSv1.3"
---@field max_version? "TLSv1.2"|"TLSv1.3"

-- ---- options ----

local function option_fails(place, name, option, text)
  check.fail(place, name, ("option '%s' %s"):format(option, text))
end

local function check_string(options, option, place, name)
  local value = options[option]
  if value == nil then return end
  if type(value) ~= "string" then option_fails(place, name, option, "must be a string, got " .. check.type_name(value)) end
  if value == "" then option_fails(place, name, option, "must not be empty") end
  if option ~= "key_password" and value:find("\0", 1, true) then
    option_fails(place, name, option, "contains a zero byte")
  end
  return value
end

local versions = { ["TLSv1.2"] = 1, ["TLSv1.3"] = 2 }

local function check_version(options, option, place, name)
  local value = options[option]
  if value ~= nil and not versions[value] then
    option_fails(place, name, option, "must be \"TLSv1.2\" or \"TLSv1.3\", got " .. tostring(value))
  end
  return value
end

local function check_alpn(list, place, name)
  if type(list) ~= "table" or #list == 0 then option_fails(place, name, "alpn", "must be a list of protocols") end
  for _, protocol in ipairs(list) do
    if type(protocol) ~= "string" or #protocol == 0 or #protocol > 255 then
      option_fails(place, name, "alpn", "must be a list of strings of 1 to 255 bytes")
    end
  end
end

local function check_context(options, place, name)
  for _, option in ipairs { "ca", "ca_file", "ca_path", "cert", "key", "key_password" } do
    check_string(options, option, place, name)
  end
  if options.verify ~= nil and type(options.verify) ~= "boolean" then
    option_fails(place, name, "verify", "must be a boolean, got " .. check.type_name(options.verify))
  end
  local of_clients = options.verify_client
  if of_clients ~= nil and type(of_clients) ~= "boolean" and of_clients ~= "optional" then
    option_fails(place, name, "verify_client", "must be a boolean or \"optional\", got " .. tostring(of_clients))
  end
  if of_clients and not (options.ca or options.ca_file or options.ca_path) then
    option_fails(place, name, "verify_client", "needs 'ca', 'ca_file' or 'ca_path': whose clients are welcome")
  end
  if options.key and not options.cert then option_fails(place, name, "key", "needs 'cert'") end
  if options.alpn ~= nil then check_alpn(options.alpn, place, name) end
  local lowest = check_version(options, "min_version", place, name)
  local highest = check_version(options, "max_version", place, name)
  if lowest and highest and versions[lowest] > versions[highest] then
    option_fails(place, name, "max_version", "must not be lower than 'min_version'")
  end
end

-- ---- contexts ----

local function raise_tls(operation, address, code, text)
  error(agather.TLSError(("%s: %s (%s)"):format(address and operation .. " " .. address or operation, text, code), {
    code = code, reason = text, operation = operation, address = address,
  }), 0)
end

local codes = { [2] = "ENOENT", [13] = "EACCES", [21] = "EISDIR", [23] = "ENFILE", [24] = "EMFILE" }

local function read_file(path)
  local file, text, number = io.open(path, "rb")
  local content
  if file then
    content, text, number = file:read("a")
    file:close()
  end
  if content then return content end
  local code = codes[number] or "EIO"
  text = text:gsub("^" .. path:gsub("%p", "%%%0") .. ": ", "")
  error(agather.OSError(("open %s: %s (%s)"):format(path, text, code), {
    code = code, errno = number, operation = "open", address = path,
  }), 0)
end

-- The PEM text that is meant, and the path where it was a file's.
local function pem_of(value)
  if value:find("-----BEGIN", 1, true) then return value end
  return read_file(value), value
end

local function trust(inner, options)
  local function done(address, ok, code, text)
    if not ok then raise_tls("trust", address, code, text) end
  end
  if options.ca then done(nil, inner:trust(options.ca)) end
  if options.ca_file then done(options.ca_file, inner:trust(read_file(options.ca_file))) end
  if options.ca_path then done(options.ca_path, inner:trust_path(options.ca_path)) end
  if not (options.ca or options.ca_file or options.ca_path) and options.verify ~= false then
    done(nil, inner:trust_system())
  end
end

local function use_certificate(inner, options)
  local cert, path = pem_of(options.cert)
  local key, key_path = cert, path
  if options.key then key, key_path = pem_of(options.key) end
  local ok, code, text = inner:use_certificate(cert, key, options.key_password)
  if not ok then raise_tls("certificate", code:find("KEY") and key_path or path, code, text) end
end

---@class agather.tls.Context
---@field inner userdata
---@field has_certificate boolean
---@field verify boolean
local Context = { __name = "agather.tls.Context" }
Context.__index = Context

local function new_context(options)
  local inner, code, text = ssl.context()
  if not inner then raise_tls("context", nil, code, text) end
  trust(inner, options)
  inner:verify(options.verify ~= false)
  local of_clients = options.verify_client
  inner:verify_client(of_clients == "optional" and "optional" or of_clients and "required" or "none")
  if options.cert then use_certificate(inner, options) end
  if options.alpn then inner:alpn(options.alpn) end
  inner:versions(options.min_version, options.max_version)
  return setmetatable({
    inner = inner,
    has_certificate = options.cert ~= nil,
    verify = options.verify ~= false,
  }, Context)
end

--- Settings that many connections share: files are read and keys are decrypted once, and clients go on with earlier
--- sessions. Give it to client and server as option `context`. Raises TLSError, and OSError for files.
---@param options agather.tls.ContextOptions
---@return agather.tls.Context
function tls.Context(options)
  options = check.options(options, context_options, 1, "Context")
  check_context(options, 1, "Context")
  return new_context(options)
end

local default_context -- of clients that say nothing else

-- The context that the options name or describe.
local function context_of(options, place, name)
  local own = false
  for option in pairs(options) do
    if context_options[option] then
      own = true
      if options.context then option_fails(place, name, option, "belongs to the context that is given") end
    end
  end
  if options.context then
    if getmetatable(options.context) ~= Context then
      option_fails(place, name, "context", "must be an agather.tls.Context, got " .. check.type_name(options.context))
    end
    return options.context
  end
  if own then
    check_context(options, place, name)
    return new_context(options)
  end
  default_context = default_context or new_context {}
  return default_context
end

-- ---- names ----

-- A host name without the dot that ends it, or an address without its zone, checked.
local function check_server_name(options, verify, place, name)
  local value = check_string(options, "server_name", place, name)
  if not value then
    if verify then
      option_fails(place, name, "server_name", "is missing: whose certificate is expected? (or set verify = false)")
    end
    return
  end
  if value:find(":", 1, true) then value = value:gsub("%%.*", ""):gsub("^%[(.*)%]$", "%1") end
  value = value:gsub("%.$", "")
  if #value == 0 or #value > 253 then option_fails(place, name, "server_name", "must have 1 to 253 bytes") end
  if value:find("[^%w%-_.:]") then
    option_fails(place, name, "server_name", "must be a host name in ASCII, or an address, got " .. options.server_name)
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

local function check_timeout(options, name)
  local seconds = options.handshake_timeout
  if seconds == nil then return HANDSHAKE_TIMEOUT end
  if seconds ~= false and (type(seconds) ~= "number" or seconds ~= seconds or seconds <= 0) then
    option_fails(2, name, "handshake_timeout", "must be a positive number of seconds or false, got " .. tostring(seconds))
  end
  return seconds
end

local function start(inner, make_engine, context, server_name, seconds)
  local address = address_of(inner, server_name)
  local engine, code, text = make_engine(context.inner, server_name)
  if not engine then raise_tls("handshake", address, code, text) end
  local filter = new_filter(engine, inner, address)
  filter:handshake(seconds)
  return stream.wrap(filter, methods)
end

local function with_own(names)
  local known = { context = true, handshake_timeout = true }
  for option in pairs(context_options) do known[option] = true end
  for _, option in ipairs(names) do known[option] = true end
  return known
end

local client_options = with_own { "server_name" }
local server_options = with_own {}

--- Speaks TLS as a client over a stream, and gives a stream. Verifies the certificate, and that it is for server_name, a
--- host name or an address. From then on, and also when it fails or is cancelled, the stream below belongs to the new
--- one: failing closes it. Raises TLSError, with .code such as "CERT_HAS_EXPIRED", and TimeoutError.
---@async
---@param inner any
---@param options? table server_name, context or what makes one, handshake_timeout (60 seconds; false: none)
---@return agather.Stream
function tls.client(inner, options)
  check_stream(inner, "client")
  options = check.options(options, client_options, 2, "client")
  local seconds = check_timeout(options, "client")
  local verify = options.verify ~= false
  if getmetatable(options.context) == Context then verify = options.context.verify end
  local server_name = check_server_name(options, verify, 2, "client")
  return start(inner, ssl.client, context_of(options, 2, "client"), server_name, seconds)
end

--- Speaks TLS as a server over a stream, and gives a stream; as tls.client otherwise.
---@async
---@param inner any
---@param options table context or what makes one (cert and key at least), handshake_timeout
---@return agather.Stream
function tls.server(inner, options)
  check_stream(inner, "server")
  options = check.options(options, server_options, 2, "server")
  local seconds = check_timeout(options, "server")
  local context = context_of(options, 2, "server")
  if not context.has_certificate then option_fails(2, "server", "cert", "is missing") end
  return start(inner, ssl.server, context, nil, seconds)
end

return tls
