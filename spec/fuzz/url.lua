-- The URLs that agather.http takes, from any text: refused with what is wrong, or parts that hold nothing which would
-- make another request of them, and of which the URL, parsed again, says the same. Before a newline there may be a base.
local url = require "agather.http.url"

local schemes = { http = true, https = true }

local function check_parts(parts)
  assert(schemes[parts.scheme], "a scheme that is not ours")
  assert(parts.host ~= "" and #parts.host <= 253, "a host that cannot be")
  local port = math.tointeger(tonumber(parts.port))
  assert(port and port >= 0 and port <= 65535, "a port that cannot be")
  assert(parts.path:find("^/"), "a path without its first slash")
  for _, name in ipairs { "url", "host", "path", "query" } do
    assert(not (parts[name] or ""):find("[%c \128-\255]") or name == "host", "a URL that is no text for a request line")
  end
  assert(not parts.host:find("[%c ]"), "a host with spaces")
  assert(not parts.url:find("#", 1, true), "a fragment stays in the URL")
  assert(not parts.url:match("^%a+://([^/?#]*)"):find("@", 1, true), "credentials stay in the URL")
end

local function same_place(one, other)
  for _, name in ipairs { "url", "scheme", "host", "port", "path", "query" } do
    if (one[name] or "") ~= (other[name] or "") then -- an empty query is none
      error(("%s: %s and %s"):format(name, tostring(one[name]), tostring(other[name])))
    end
  end
end

return function(bytes)
  local base, text = bytes:match("^(http[^\n]*)\n(.*)$")
  base = base and url.parse(base)
  local parts, problem = url.parse(text or bytes, base and base.url)
  if not parts then
    assert(type(problem) == "string" and problem ~= "", "refused without a word")
    return
  end
  check_parts(parts)
  local again = assert(url.parse(parts.url))
  same_place(parts, again)
  assert(url.same_origin(parts, again))
  local longer = assert(url.parse(url.with_query(parts.url, url.encode({ a = text or bytes }, false, 1, "fuzz", "params"))))
  assert(longer.host == parts.host and longer.port == parts.port and longer.path == parts.path)
end
