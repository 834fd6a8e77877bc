-- URLs: base and relative, parameters, and what may not stand in one. The parser is curl's own.
local check = require "agather.check"
local curl = require "agather.curl"

local url = {}

-- Text that people write in URLs and that the wire does not carry as it is: spaces and bytes beyond ASCII. The host
-- stays as it is: curl knows its own way with other scripts there.
local function encode_rest(text)
  if not text:find("[ \128-\255]") then return text end
  local start, rest = text:match("^(%a[%w+.-]*://[^/?#]*)(.*)$")
  if not start then start, rest = "", text end
  return start .. rest:gsub("[ \128-\255]", function(byte) return ("%%%02X"):format(byte:byte()) end)
end

-- [text] without user and password, to stand in an error.
local function without_credentials(text) return (tostring(text):gsub("//[^/?#]*@", "//***@")) end

local function parse(text, base)
  if text:find("[%c]") then return nil, "it holds a control character" end
  return curl.parse_url(encode_rest(text), base)
end

--- The parts of an absolute http or https URL, or nil and what is wrong with it.
---@param text string
---@param base? string what a relative [text] refers to
function url.parse(text, base)
  local parts, problem = parse(text, base)
  if parts and text:find("%", 1, true) then -- curl decodes "%31" in a host, but takes it for a number only the next time
    local user, password = parts.user, parts.password
    parts, problem = curl.parse_url(parts.url)
    if parts then parts.user, parts.password = user, password end
  end
  if not parts then return nil, problem end
  if parts.url:find("[^\33-\126]") then return nil, "it holds a byte that no URL has" end -- curl takes any in a zone
  if parts.scheme ~= "http" and parts.scheme ~= "https" then
    return nil, ("the scheme '%s' is not http or https"):format(parts.scheme)
  end
  if not parts.host or parts.host == "" or #parts.host > 253 then
    return nil, "it has no good host (one in another script than ASCII is written in punycode)"
  end
  return parts
end

--- The parts of a URL that a script gave; [base] is that of a client, whose path comes first.
function url.check(text, base, position, name)
  if type(text) ~= "string" then check.fail(position, name, "URL expected, got " .. check.type_name(text)) end
  local full = text
  if base and not text:find("^%a[%w+.-]*://") then
    local beside = text == "" or text:find("^[?#]")
    full = beside and base .. text or base:gsub("/$", "") .. "/" .. text:gsub("^/", "")
  elseif not text:find("^%a[%w+.-]*://") then
    check.fail(position, name, ("URL with http:// or https:// expected, got '%s'"):format(without_credentials(text)))
  end
  local parts, problem = url.parse(full)
  if not parts then
    check.fail(position, name, ("bad URL '%s': %s"):format(without_credentials(text):gsub("%c", "?"), problem))
  end
  return parts
end

-- The key and value of each parameter, in order: those of a list of { key, value }, or of a table, by key.
local function pairs_of(params, position, caller, option)
  local list = {}
  local function add(key, value)
    local kind = type(value)
    if type(key) ~= "string" then
      check.fail(position, caller, ("option '%s': names must be strings, got %s"):format(option, check.type_name(key)))
    end
    if kind == "table" then
      for _, one in ipairs(value) do add(key, one) end
    elseif kind == "string" or kind == "boolean" or kind == "number" then
      list[#list + 1] = { key, math.type(value) == "integer" and ("%d"):format(value) or tostring(value) }
    else
      check.fail(position, caller, ("option '%s': '%s' must be text, got %s"):format(option, key, check.type_name(value)))
    end
  end
  if type(params) ~= "table" then
    check.fail(position, caller, ("option '%s' must be a table, got %s"):format(option, check.type_name(params)))
  end
  if type(params[1]) == "table" then
    for _, entry in ipairs(params) do add(entry[1], entry[2]) end
    return list
  end
  local keys = {}
  for key in pairs(params) do
    if type(key) ~= "string" then add(key) end
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for _, key in ipairs(keys) do add(key, params[key]) end
  return list
end

--- "a=1&b=2" of { a = 1, b = 2 }, of { a = { 1, 2 } } or of { { "a", 1 }, { "b", 2 } }.
---@param form boolean whether it is the body of a form, where a space is "+"
function url.encode(params, form, position, caller, option)
  local parts = {}
  for _, entry in ipairs(pairs_of(params, position, caller, option)) do
    parts[#parts + 1] = curl.escape(entry[1], form) .. "=" .. curl.escape(entry[2], form)
  end
  return table.concat(parts, "&")
end

--- Adds an encoded query to a URL without fragment.
function url.with_query(text, query)
  if query == "" then return text end
  return text .. (text:find("?", 1, true) and (text:find("[?&]$") and "" or "&") or "?") .. query
end

--- Whether two URLs have scheme, host and port in common; or the second is the https one of the first.
function url.same_origin(from, to)
  if from.host:lower() ~= to.host:lower() then return false end
  if from.scheme == to.scheme then return from.port == to.port end
  return from.scheme == "http" and from.port == "80" and to.port == "443"
end

--- Whether the host is an address: nothing to look up.
function url.is_address(host)
  return host:find("^%[") ~= nil or host:find("^%d+%.%d+%.%d+%.%d+$") ~= nil
end

return url
