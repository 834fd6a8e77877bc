-- Which proxy a request goes through: the one that was given, or that of the environment as curl and others read it.
local check = require "agather.check"
local url = require "agather.http.url"

local proxy = {}

local schemes = { http = true, https = true, socks5 = true, socks5h = true }
local ports = { http = "8080", https = "443", socks5 = "1080", socks5h = "1080" }

-- The parts of a proxy's URL, or nil and what is wrong.
local function parse(text)
  if not text:find("^%a[%w+.-]*://") then text = "http://" .. text end
  if text:find("[%c ]") then return nil, "it holds a space or control character" end
  local scheme, user, rest = text:match("^(%a[%w]*)://([^/?#]*@?)(.*)$")
  if not scheme or not schemes[scheme:lower()] then return nil, "its scheme is not http, https, socks5 or socks5h" end
  -- curl's parser knows no default port of socks; the rest is like http.
  local parts, problem = url.parse("http://" .. user .. rest)
  if not parts then return nil, problem end
  local port = text:match("^%a[%w]*://[^/]*:(%d+)/?$") or ports[scheme:lower()]
  -- A proxy of socks looks names up itself: curl would do it on a thread of its own.
  local through = text:match("^(.-)/?$"):gsub("^[Ss][Oo][Cc][Kk][Ss]5://", "socks5h://")
  return { url = through, scheme = scheme:lower(), host = parts.host, port = port }
end

--- Checks the option 'proxy': a URL, false for none, nil for that of the environment.
function proxy.check(value, position, caller)
  if value == nil or value == false then return end
  if type(value) ~= "string" then
    check.fail(position, caller, "option 'proxy' must be a URL or false, got " .. check.type_name(value))
  end
  local parts, problem = parse(value)
  if not parts then check.fail(position, caller, "option 'proxy': " .. problem) end
end

-- Whether no_proxy names the host: by itself, or by a domain that it is in.
local function excepted(host, list)
  host = host:lower():gsub("^%[", ""):gsub("%]$", "")
  for entry in list:lower():gmatch("[^%s,]+") do
    if entry == "*" then return true end
    entry = entry:gsub("^%*?%.", ""):gsub(":%d+$", "")
    if host == entry or host:sub(-#entry - 1) == "." .. entry then return true end
  end
  return false
end

local function environment(...)
  for _, name in ipairs { ... } do
    local value = os.getenv(name)
    if value and value ~= "" then return value end
  end
end

--- What the environment says now, for `proxy.of`. HTTP_PROXY in capitals is not read: where programs run as CGI, a
--- client's header named Proxy would set it.
function proxy.environment()
  return {
    http = environment("http_proxy", "all_proxy", "ALL_PROXY"),
    https = environment("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    except = environment("no_proxy", "NO_PROXY") or "",
  }
end

--- The proxy for a target: its url, scheme, host and port; nil for none, or nil and what is wrong with the one of the
--- environment.
---@param value string|false|nil the option: nil looks into the environment
---@param target table
---@param surroundings table of proxy.environment
function proxy.of(value, target, surroundings)
  if value == false then return nil end
  if value == nil then
    value = surroundings[target.scheme]
    if not value or excepted(target.host, surroundings.except) then return nil end
  end
  return parse(value)
end

return proxy
