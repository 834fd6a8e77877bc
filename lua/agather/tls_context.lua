-- Contexts of agather.tls: the options that many connections share, checked, and what OpenSSL made of them.
--
-- [at] says whose argument the options are: { position =, name =, prefix = }, the prefix being "tls." where they stand
-- in an option of that name.
local agather = require "agather"
local check = require "agather.check"
local ssl = require "agather.ssl"

local context = {}

--- Names of the options that make a context.
context.options = {
  verify = true, verify_client = true, ca = true, ca_file = true, ca_path = true, cert = true, key = true,
  key_password = true, alpn = true, min_version = true, max_version = true, server_names = true,
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
---@field server_names? table<string, agather.tls.Context> a server's for clients that ask for the name, such as
---  "b.example" or "*.c.example": certificate, verify_client, authorities, alpn; other clients get what this one has
---@field alpn? string[] protocols, the one that is liked best first
---@field min_version? "TLSv1.2"|"TLSv1.3"
---@field max_version? "TLSv1.2"|"TLSv1.3"

-- ---- options ----

--- Blames an option.
function context.option_fails(at, option, text)
  check.fail(at.position, at.name, ("option '%s%s' %s"):format(at.prefix, option, text))
end

local option_fails = context.option_fails

--- A string option, or nil.
function context.check_string(options, option, at)
  local value = options[option]
  if value == nil then return end
  if type(value) ~= "string" then option_fails(at, option, "must be a string, got " .. check.type_name(value)) end
  if value == "" then option_fails(at, option, "must not be empty") end
  if option ~= "key_password" and value:find("\0", 1, true) then
    option_fails(at, option, "contains a zero byte")
  end
  return value
end

local check_string = context.check_string

local versions = { ["TLSv1.2"] = 1, ["TLSv1.3"] = 2 }

local function check_version(options, option, at)
  local value = options[option]
  if value ~= nil and not versions[value] then
    option_fails(at, option, "must be \"TLSv1.2\" or \"TLSv1.3\", got " .. tostring(value))
  end
  return value
end

local function check_alpn(list, at)
  if type(list) ~= "table" or #list == 0 then option_fails(at, "alpn", "must be a list of protocols") end
  for _, protocol in ipairs(list) do
    if type(protocol) ~= "string" or #protocol == 0 or #protocol > 255 then
      option_fails(at, "alpn", "must be a list of strings of 1 to 255 bytes")
    end
  end
end

-- Context is further down.
local is_context

local function check_server_names(names, at)
  if type(names) ~= "table" then option_fails(at, "server_names", "must be a table of names and contexts") end
  for name, value in pairs(names) do
    if type(name) ~= "string" or not name:gsub("^%*%.", ""):find("^[%w%-_.]+$") or #name > 253 then
      option_fails(at, "server_names", ("has a key that is not a host name: %s"):format(tostring(name)))
    end
    if not is_context(value) or not value.has_certificate then
      option_fails(at, "server_names", ("must have an agather.tls.Context with a certificate for %s"):format(name))
    end
  end
end

local function check_context(options, at)
  for _, option in ipairs { "ca", "ca_file", "ca_path", "cert", "key", "key_password" } do
    check_string(options, option, at)
  end
  if options.verify ~= nil and type(options.verify) ~= "boolean" then
    option_fails(at, "verify", "must be a boolean, got " .. check.type_name(options.verify))
  end
  local of_clients = options.verify_client
  if of_clients ~= nil and type(of_clients) ~= "boolean" and of_clients ~= "optional" then
    option_fails(at, "verify_client", "must be a boolean or \"optional\", got " .. tostring(of_clients))
  end
  if of_clients and not (options.ca or options.ca_file or options.ca_path) then
    option_fails(at, "verify_client", "needs 'ca', 'ca_file' or 'ca_path': whose clients are welcome")
  end
  if options.key and not options.cert then option_fails(at, "key", "needs 'cert'") end
  if options.alpn ~= nil then check_alpn(options.alpn, at) end
  if options.server_names ~= nil then check_server_names(options.server_names, at) end
  local lowest = check_version(options, "min_version", at)
  local highest = check_version(options, "max_version", at)
  if lowest and highest and versions[lowest] > versions[highest] then
    option_fails(at, "max_version", "must not be lower than 'min_version'")
  end
end

-- ---- contexts ----

--- Raises a TLSError of what an engine or a context gave.
function context.raise(operation, address, code, text)
  error(agather.TLSError(("%s: %s (%s)"):format(address and operation .. " " .. address or operation, text, code), {
    code = code, reason = text, operation = operation, address = address,
  }), 0)
end

local raise_tls = context.raise

local codes = {
  [1] = "EPERM", [2] = "ENOENT", [5] = "EIO", [6] = "ENXIO", [12] = "ENOMEM", [13] = "EACCES", [20] = "ENOTDIR",
  [21] = "EISDIR", [23] = "ENFILE", [24] = "EMFILE", [36] = "ENAMETOOLONG", [40] = "ELOOP",
}

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
---@field verify_client? boolean|"optional"
local Context = { __name = "agather.tls.Context" }
Context.__index = Context

function is_context(value) return getmetatable(value) == Context end

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
  local any_verifies = of_clients
  for name, other in pairs(options.server_names or {}) do
    inner:add_name(name, other.inner)
    any_verifies = any_verifies or other.verify_client
  end
  -- Whom one name lets in would go on with the session under another name, which would not have.
  if options.server_names and any_verifies then inner:no_sessions() end
  return setmetatable({
    inner = inner,
    has_certificate = options.cert ~= nil,
    verify = options.verify ~= false,
    verify_client = of_clients,
  }, Context)
end

--- Settings that many connections share: files are read and keys are decrypted once, and clients go on with earlier
--- sessions. Give it to client and server as option `context`. Raises TLSError, and OSError for files.
---@param options agather.tls.ContextOptions
---@return agather.tls.Context
function context.Context(options)
  options = check.options(options, context.options, 1, "Context")
  check_context(options, { position = 1, name = "Context", prefix = "" })
  return new_context(options)
end

local default_context -- of clients that say nothing else

--- The context that the options name or describe.
function context.of(options, at)
  local own = false
  for option in pairs(options) do
    if context.options[option] then
      own = true
      if options.context then option_fails(at, option, "belongs to the context that is given") end
    end
  end
  if options.context then
    if not is_context(options.context) then
      option_fails(at, "context", "must be an agather.tls.Context, got " .. check.type_name(options.context))
    end
    return options.context
  end
  if own then
    check_context(options, at)
    return new_context(options)
  end
  default_context = default_context or new_context {}
  return default_context
end

return context
