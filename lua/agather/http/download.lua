-- Downloads: a stream into a file, with a line on the terminal that tells how far it is.
local agather = require "agather"
local check = require "agather.check"
local fs = require "agather.fs"
local uv = require "agather.uv"

local INTERVAL = 0.1 -- seconds between two drawings

local function in_units(bytes)
  local units = { "B", "kB", "MB", "GB", "TB" }
  local place = 1
  while bytes >= 1000 and place < #units do
    bytes, place = bytes / 1000, place + 1
  end
  return (place == 1 and "%d %s" or "%.1f %s"):format(place == 1 and bytes // 1 or bytes, units[place])
end

-- "12.3 MB of 40.0 MB  31%  4.1 MB/s"
local function line(done, total, elapsed)
  local text = in_units(done)
  if total then
    text = ("%s of %s  %d%%"):format(text, in_units(total), total > 0 and done * 100 // total or 100)
  end
  if elapsed > 0 then text = ("%s  %s/s"):format(text, in_units(done / elapsed)) end
  return text
end

-- An object with update(done, total) and finish(done, total).
local function start_progress(how)
  if not how then return { update = function() end, finish = function() end } end
  if type(how) == "function" then return { update = how, finish = how } end
  local loop, terminal = agather.get_running_loop(), agather.isatty(2)
  local started, drawn = loop:time(), -math.huge
  local function draw(done, total, last)
    local now = loop:time()
    if not last and (not terminal or now - drawn < INTERVAL) then return end
    drawn = now
    io.stderr:write(terminal and "\r\27[K" or "", line(done, total, now - started), last and "\n" or "")
    io.stderr:flush()
  end
  return {
    update = function(done, total) draw(done, total, false) end,
    finish = function(done, total) draw(done, total, true) end,
  }
end

-- Nil when the server does not say, or says how long the compressed body is.
local function length_of(response)
  if response.headers["Content-Encoding"] then return nil end
  return math.tointeger(tonumber(response.headers["Content-Length"]))
end

local function create(path)
  local opening <close> = uv.fs_open(path, "wx", 438)
  return opening:run()
end

-- Opens a file that is new: one that an ended process has left goes, and a link that somebody has put there is not
-- followed.
local function open_new(path)
  local ok, file = pcall(create, path)
  if ok then return file end
  if not (agather.is_error(file, agather.OSError) and file.code == "EEXIST") then error(file, 0) end
  fs.remove(path)
  return create(path)
end

local under_way = {} -- names of files that are not complete yet

return function(client, text, path, options)
  if type(path) ~= "string" then check.fail(2, "download", "path expected, got " .. check.type_name(path)) end
  if path:find("\0", 1, true) then check.fail(2, "download", "path contains a zero byte") end
  local progress
  if type(options) == "table" then
    progress = options.progress
    check.progress(progress, 3, "download")
    local rest = {}
    for key, value in pairs(options) do rest[key] = value end
    rest.progress = nil
    options = rest
  end
  local response <close> = client:stream("GET", text, options)
  response:raise_for_status()
  -- What has not come in full never stands under the name that was asked for.
  local unfinished = path .. ".part"
  if under_way[unfinished] then error(agather.RuntimeError("download: another one writes to " .. path), 0) end
  under_way[unfinished] = true
  local file
  local complete = false
  local _ <close> = setmetatable({}, {
    __close = function()
      under_way[unfinished] = nil
      if complete then return end
      if file then pcall(file.close, file) end
      os.remove(unfinished)
    end,
  })
  file = open_new(unfinished)
  local shown, done, total = start_progress(progress), 0, length_of(response)
  for piece in response:chunks() do
    file:write(piece)
    done = done + #piece
    shown.update(done, total)
  end
  file:close()
  fs.rename(unfinished, path)
  complete = true
  shown.finish(done, total)
  return response
end
