-- Crawls a site: so many pages at a time, with progress on the screen, and again after a while where a server stumbles.
-- Prints a table of what it found. Usage: crawl.lua [URL [LIMIT]]; without a URL it starts a site of its own.
local agather = require "agather"
local http = agather.http

local ATTEMPTS = 4
local FIRST_PAUSE = 0.02 -- seconds; each pause is twice as long as the one before
local MOST_PAGES = 1000

-- ---- a site to crawl ----

-- Pages /0 to /39, each with links to two more; /7 is not there, and every fifth fails the first time.
local function start_site()
  local asked = {}
  local function page(path)
    asked[path] = (asked[path] or 0) + 1
    local number = path == "/" and 0 or math.tointeger(tonumber(path:match("^/(%d+)$")))
    if not number or number == 7 then return "404 Not Found", "no such page" end
    if number % 5 == 0 and number > 0 and asked[path] == 1 then return "503 Busy", "later" end
    local links = {}
    for _, other in ipairs { 2 * number + 1, 2 * number + 2 } do
      if other < 40 then links[#links + 1] = ('<a href="/%d">page %d</a>'):format(other, other) end
    end
    return "200 OK", "<html>" .. table.concat(links, " ") .. "</html>"
  end
  local function answer(stream)
    for request in stream:lines() do
      repeat local line = stream:read("l") until line == "\r" or line == nil
      local status, body = page(request:match("^GET (%S+)"))
      stream:write("HTTP/1.1 ", status, "\r\nContent-Length: ", #body, "\r\n\r\n", body)
    end
  end
  local bound = agather.future()
  agather.spawn(agather.net.serve, "127.0.0.1", 0, answer, {
    on_listen = function(listener) bound:set_result(listener:local_address()) end,
  })
  local host, port = bound:await()
  return ("http://%s:%d/"):format(host, port)
end

-- ---- fetching ----

local function is_passing(err)
  return agather.is_error(err, http.ConnectError) or agather.is_error(err, http.TimeoutError)
    or agather.is_error(err, http.ProtocolError) or agather.is_error(err, http.HTTPStatusError) and err.status >= 500
end

-- The page, and how often it was asked for. Pauses vary, so that those who stumbled together do not come back together.
local function fetch(client, url)
  local pause = FIRST_PAUSE
  for attempt = 1, ATTEMPTS do
    local ok, result = agather.pcall(function() return client:get(url):raise_for_status() end)
    if ok then return { url = url, status = result.status, body = result:text(), tries = attempt } end
    if attempt == ATTEMPTS or not is_passing(result) then
      return { url = url, status = result.status, failure = tostring(result), body = "", tries = attempt }
    end
    agather.sleep(pause * (0.5 + math.random()))
    pause = pause * 2
  end
end

-- Links to the same site.
local function links_of(page, site)
  local links = {}
  for link in page.body:gmatch('href="([^"]+)"') do
    if link:find("^/[^/]") then links[#links + 1] = site .. link elseif link:sub(1, #site) == site then links[#links + 1] = link end
  end
  return links
end

-- ---- crawling, a level of links after the other ----

local function crawl(client, first, limit)
  local site = first:match("^%a+://[^/]+")
  local seen, pages, level = { [first] = true }, {}, { first }
  while #level > 0 and #pages < MOST_PAGES do
    local found = agather.map(function(url) return fetch(client, url) end, level, { limit = limit, progress = true })
    level = {}
    for _, page in ipairs(found) do
      pages[#pages + 1] = page
      for _, link in ipairs(links_of(page, site)) do
        if not seen[link] then
          seen[link] = true
          level[#level + 1] = link
        end
      end
    end
  end
  return pages
end

local function print_table(pages)
  local width = 4
  for _, page in ipairs(pages) do width = math.max(width, #page.url:match("^%a+://[^/]+(.*)$")) end
  local row = "%-" .. width .. "s  %6s  %6s  %5s"
  print(row:format("page", "status", "bytes", "tries"))
  local bytes, tries, failed = 0, 0, 0
  for _, page in ipairs(pages) do
    print(row:format(page.url:match("^%a+://[^/]+(.*)$"), page.status or "-", #page.body, page.tries))
    bytes, tries = bytes + #page.body, tries + page.tries
    if page.failure then failed = failed + 1 end
  end
  print(("%d pages, %d failed, %d bytes, %d requests"):format(#pages, failed, bytes, tries))
end

agather.run(function(url, limit)
  local client <close> = http.Client { timeout = 10 }
  print_table(crawl(client, url or start_site(), math.tointeger(tonumber(limit)) or 8))
end, arg[1], arg[2])
