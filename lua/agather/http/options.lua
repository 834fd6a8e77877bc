-- The options of clients and requests: what they may be, what they are when they are not given, and what of a client
-- holds for its requests.
local agather = require "agather"
local check = require "agather.check"
local Headers = require "agather.http.headers"
local proxy = require "agather.http.proxy"
local url = require "agather.http.url"

local options_of = {}

-- Seconds and bytes. A whole response has them all; a stream may take as long and be as long as it likes.
local DEFAULT_TIMEOUT = { connect = 10, read = 30, total = 300 }
local DEFAULT_MAX_BODY = 64 << 20
local DEFAULT_MAX_CONNECTIONS = 100
local DEFAULT_MAX_REDIRECTS = 10

local client_keys = {
  base_url = true, headers = true, timeout = true, limits = true, auth = true, proxy = true, verify = true,
  cert = true, http2 = true, cookies = true, follow_redirects = true, max_body = true,
}

local request_keys = {
  params = true, headers = true, json = true, form = true, multipart = true, body = true, timeout = true,
  follow_redirects = true, max_body = true, auth = true, cookies = true, proxy = true, verify = true, cert = true,
  http2 = true,
}

-- Raises an argument error about option [key].
local function wrong(where, key, expected, value)
  check.fail(where.position, where.name,
    ("option '%s' must be %s, got %s"):format(key, expected, type(value) == "table" and "table" or tostring(value)))
end

local function check_keys(value, known, where, key)
  for name in pairs(value) do
    if not known[name] then
      check.fail(where.position, where.name, ("option '%s': unknown key '%s'"):format(key, tostring(name)))
    end
  end
end

local function check_text(value, where, key)
  if type(value) ~= "string" then wrong(where, key, "a string", value) end
  if not Headers.is_plain(value) then
    check.fail(where.position, where.name, ("option '%s' must not hold CR, LF or NUL"):format(key))
  end
  return value
end

local timeout_keys = { connect = true, read = true, total = true }

-- A number is the time for all of it; false: none. A table sets some of them.
local function timeout(value, where)
  local function seconds(given, key)
    if given == false then return nil end
    if type(given) ~= "number" or given ~= given or given <= 0 then wrong(where, key, "a positive number", given) end
    return given ~= math.huge and given or nil
  end
  if value == nil then return nil end
  if value == false then return {} end
  if type(value) ~= "table" then return { total = seconds(value, "timeout") } end
  check_keys(value, timeout_keys, where, "timeout")
  local made = {}
  for key, default in pairs(DEFAULT_TIMEOUT) do
    if value[key] == nil then made[key] = default else made[key] = seconds(value[key], "timeout." .. key) end
  end
  return made
end

local function max_body(value, where)
  if value == nil or value == false then return value end
  if math.type(value) ~= "integer" or value < 0 then wrong(where, "max_body", "a number of bytes or false", value) end
  return value
end

local redirect_keys = { max = true, allow_downgrade = true }

local function follow_redirects(value, where)
  if value == nil or value == true then return { max = DEFAULT_MAX_REDIRECTS } end
  if value == false then return false end
  if math.type(value) then value = { max = value } end
  if type(value) ~= "table" then wrong(where, "follow_redirects", "a boolean, a number or a table", value) end
  check_keys(value, redirect_keys, where, "follow_redirects")
  local max = value.max == nil and DEFAULT_MAX_REDIRECTS or value.max
  if math.type(max) ~= "integer" or max < 0 then wrong(where, "follow_redirects.max", "a whole number", max) end
  return { max = max, allow_downgrade = value.allow_downgrade == true }
end

local auth_keys = { user = true, password = true, digest = true, bearer = true }

-- { "user", "password" }, { user =, password =, digest = true } or { bearer = "token" }.
local function auth(value, where)
  if value == nil or value == false then return value end
  if type(value) ~= "table" then wrong(where, "auth", "{ user, password } or { bearer = token }", value) end
  if value[1] ~= nil then value = { user = value[1], password = value[2] } end
  check_keys(value, auth_keys, where, "auth")
  if value.bearer ~= nil then return { bearer = check_text(value.bearer, where, "auth.bearer") } end
  return {
    user = check_text(value.user, where, "auth.user"),
    password = check_text(value.password == nil and "" or value.password, where, "auth.password"),
    digest = value.digest == true,
  }
end

local function verify(value, where)
  if value == nil then return true end
  if type(value) == "boolean" then return value end
  return check_text(value, where, "verify")
end

local cert_keys = { cert = true, key = true, password = true }

local function cert(value, where)
  if value == nil or value == false then return value end
  if type(value) == "string" then value = { cert = value } end
  if type(value) ~= "table" then wrong(where, "cert", "a path or a table", value) end
  check_keys(value, cert_keys, where, "cert")
  check_text(value.cert, where, "cert.cert")
  for _, key in ipairs { "key", "password" } do
    if value[key] ~= nil then check_text(value[key], where, "cert." .. key) end
  end
  return value
end

local function http2(value, where)
  if value ~= nil and type(value) ~= "boolean" and value ~= "prior" then
    wrong(where, "http2", 'a boolean or "prior"', value)
  end
  return value
end

-- Names and values of cookies, sorted by name.
local function cookie_pairs(value, where)
  if type(value) ~= "table" then wrong(where, "cookies", "a table", value) end
  local list = {}
  for name, text in pairs(value) do
    if math.type(text) then text = tostring(text) end
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+%-.^_`|~]+$") then
      check.fail(where.position, where.name, ("option 'cookies': %q is no name of a cookie"):format(tostring(name)))
    end
    if type(text) ~= "string" or text:find("[%c; ,]") then
      check.fail(where.position, where.name,
        ("option 'cookies': the value of '%s' must be text without ';', ',', spaces and control characters"):format(name))
    end
    list[#list + 1] = { name, text }
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return list
end

local function cookie_line(value, where)
  if value == nil then return nil end
  local words = {}
  for _, pair in ipairs(cookie_pairs(value, where)) do words[#words + 1] = pair[1] .. "=" .. pair[2] end
  return words[1] and table.concat(words, "; ")
end

local limit_keys = { max_connections = true, max_per_host = true, keepalive_expiry = true }

local function limits(value, where)
  if value == nil then return { max_connections = DEFAULT_MAX_CONNECTIONS } end
  if value == false then return {} end
  if type(value) ~= "table" then wrong(where, "limits", "a table or false", value) end
  check_keys(value, limit_keys, where, "limits")
  local made = {}
  for key in pairs(limit_keys) do
    local number = value[key]
    if number == nil and key == "max_connections" then number = DEFAULT_MAX_CONNECTIONS end
    if number ~= nil and number ~= false then
      if math.type(number) ~= "integer" or number < (key == "keepalive_expiry" and 0 or 1) then
        wrong(where, "limits." .. key, "a whole number", number)
      end
      made[key] = number
    end
  end
  return made
end

-- What the transfer is bounded by.
local function limits_of_request(times, bytes)
  return {
    timeout_total = times.total, timeout_connect = times.connect, timeout_read = times.read,
    max_body = bytes or nil,
  }
end

-- What holds for a request of which nothing else is said.
local function base_request(client, streaming)
  local times = client.timeout or DEFAULT_TIMEOUT
  local bytes = client.max_body
  if streaming then
    times = { connect = times.connect or times.total, read = times.read or times.total }
    bytes = bytes or nil
  elseif bytes == nil then
    bytes = DEFAULT_MAX_BODY
  end
  return {
    auth = client.auth and client.auth.user and client.auth or nil, -- a bearer is among the client's headers
    proxy = client.proxy, verify = client.verify, cert = client.cert, http2 = client.http2,
    follow_redirects = client.follow_redirects, limits_of_request = limits_of_request(times, bytes),
    times = times, bytes = bytes,
  }
end

function options_of.default_headers()
  return Headers.new { { "User-Agent", "agather/" .. agather._VERSION }, { "Accept", "*/*" } }
end

local function first_cookies(value, base, where)
  if type(value) ~= "table" then return {} end
  if not base then
    check.fail(where.position, where.name, "option 'cookies' with values needs 'base_url': whose they are")
  end
  local host = url.parse(base).host
  local lines = {}
  for _, pair in ipairs(cookie_pairs(value, where)) do
    lines[#lines + 1] = table.concat({ host, "FALSE", "/", "FALSE", "0", pair[1], pair[2] }, "\t")
  end
  return lines
end

--- The checked options of a client.
function options_of.client(given, position, name)
  local where = { position = position, name = name }
  given = check.options(given, client_keys, position, name)
  local base = given.base_url
  if base ~= nil then base = url.check(base, nil, position, name).url:gsub("[?#].*$", "") end
  if given.cookies ~= nil and type(given.cookies) ~= "boolean" then cookie_pairs(given.cookies, where) end
  proxy.check(given.proxy, position, name)
  local options = {
    base_url = base, headers = given.headers, timeout = timeout(given.timeout, where),
    limits = limits(given.limits, where), auth = auth(given.auth, where), proxy = given.proxy,
    verify = verify(given.verify, where), cert = cert(given.cert, where), http2 = http2(given.http2, where),
    follow_redirects = follow_redirects(given.follow_redirects, where), max_body = max_body(given.max_body, where),
    keeps_cookies = given.cookies ~= false, first_cookies = first_cookies(given.cookies, base, where),
  }
  options.whole, options.streamed = base_request(options, false), base_request(options, true)
  return options
end

--- The options of a request of a client with [client] options. The result may be shared: it is not to be changed.
function options_of.request(client, given, position, name, streaming)
  local base = streaming and client.streamed or client.whole
  if given == nil then return base end
  local where = { position = position, name = name }
  check.options(given, request_keys, position, name)
  proxy.check(given.proxy, position, name)
  local function either(key, checked)
    if given[key] == nil then return base[key] end
    return checked
  end
  local times = timeout(given.timeout, where) or base.times
  if streaming and type(given.timeout) == "table" and given.timeout.total == nil then times.total = nil end
  local bytes = max_body(given.max_body, where)
  if bytes == nil then bytes = base.bytes end
  return {
    params = given.params, headers = given.headers, json = given.json, form = given.form,
    multipart = given.multipart, body = given.body,
    has_body = given.json ~= nil or given.form ~= nil or given.multipart ~= nil or given.body ~= nil,
    auth = either("auth", auth(given.auth, where)),
    proxy = either("proxy", given.proxy),
    verify = either("verify", verify(given.verify, where)),
    cert = either("cert", cert(given.cert, where)),
    http2 = either("http2", http2(given.http2, where)),
    follow_redirects = either("follow_redirects", follow_redirects(given.follow_redirects, where)),
    cookie_line = cookie_line(given.cookies, where),
    limits_of_request = limits_of_request(times, bytes),
  }
end

return options_of
