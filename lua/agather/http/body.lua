-- Bodies of requests: of json, form, multipart or body a string, or a reader whose pieces are asked for as curl sends.
local agather = require "agather"
local check = require "agather.check"
local url = require "agather.http.url"

local body = {}

local CHUNK = 65536

---@class agather.http.Body
---@field text? string all of it
---@field read? fun(): string? the next piece; nil at the end
---@field size? integer how long the pieces are together, where that is known
---@field rewind? fun() begins anew; without it the body can be sent once
---@field close? fun()
---@field content_type? string

-- A file that was opened, by agather.fs.open, io.open or something with the same methods: from where it stands to its
-- end.
local function of_file(file)
  local start, size
  local ok, position = agather.pcall(function() return file:seek() end)
  if ok and math.type(position) == "integer" then
    start = position
    size = file:seek("end") - start
    file:seek("set", start)
  end
  return {
    size = size,
    read = function() return file:read(CHUNK) end,
    rewind = start and function() file:seek("set", start) end,
  }
end

local function has_method(value, name)
  local kind = type(value)
  if kind ~= "userdata" and kind ~= "table" then return false end
  local ok, method = pcall(function() return value[name] end)
  return ok and method ~= nil
end

local function of_body(value, position, caller)
  if type(value) == "string" then return { text = value } end
  if type(value) == "function" then
    return { read = value }
  end
  if has_method(value, "read") then return of_file(value) end
  check.fail(position, caller,
    "option 'body' must be a string, a function or an open file, got " .. check.type_name(value))
end

local function of_json(value, position, caller)
  local ok, text = pcall(agather.json.encode, value)
  if not ok then check.fail(position, caller, "option 'json': " .. tostring(text)) end
  return { text = text, content_type = "application/json" }
end

local function of_form(value, position, caller)
  return {
    text = url.encode(value, true, position, caller, "form"),
    content_type = "application/x-www-form-urlencoded",
  }
end

-- ---- multipart ----

-- A name in Content-Disposition: browsers write quotes and line ends as %xx.
local function quoted(name)
  return '"' .. name:gsub('["\r\n\0]', function(c) return ("%%%02X"):format(c:byte()) end) .. '"'
end

local part_keys = { name = true, data = true, path = true, file = true, filename = true, content_type = true }

local function check_part(part, position, caller)
  local function fail(text) check.fail(position, caller, "option 'multipart': " .. text) end
  for key in pairs(part) do
    if not part_keys[key] then fail(("unknown key '%s' of a part"):format(tostring(key))) end
  end
  if type(part.name) ~= "string" then fail("each part needs a name, got " .. check.type_name(part.name)) end
  local sources = (part.data ~= nil and 1 or 0) + (part.path ~= nil and 1 or 0) + (part.file ~= nil and 1 or 0)
  if sources ~= 1 then fail(("part '%s' needs one of data, path and file"):format(part.name)) end
  if part.path ~= nil and (type(part.path) ~= "string" or part.path:find("\0")) then
    fail(("path of part '%s' must be a string without NUL"):format(part.name))
  end
  if part.data ~= nil and type(part.data) ~= "string" then
    fail(("data of part '%s' must be a string, got %s"):format(part.name, check.type_name(part.data)))
  end
  if part.content_type and (type(part.content_type) ~= "string" or part.content_type:find("[\r\n\0]")) then
    fail(("content_type of part '%s' must not hold CR, LF or NUL"):format(part.name))
  end
  return part
end

-- The parts in order: those of a list, or of { name = text or part }, by name.
local function parts_of(value, position, caller)
  if type(value) ~= "table" then
    check.fail(position, caller, "option 'multipart' must be a table, got " .. check.type_name(value))
  end
  local parts, names = {}, {}
  if value[1] ~= nil then
    for place, part in ipairs(value) do
      if type(part) ~= "table" then
        check.fail(position, caller, "option 'multipart': parts must be tables, got " .. check.type_name(part))
      end
      parts[place] = check_part(part, position, caller)
    end
    return parts
  end
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local part = value[name]
    if math.type(part) then part = tostring(part) end
    if type(part) == "string" then part = { data = part } end
    if type(part) ~= "table" then
      check.fail(position, caller, ("option 'multipart': '%s' must be text or a table"):format(tostring(name)))
    end
    local named = { name = name }
    for key, field in pairs(part) do named[key] = field end
    parts[#parts + 1] = check_part(named, position, caller)
  end
  return parts
end

-- The source of a part: its bytes, or a file.
local function source_of(part)
  if part.data then return { text = part.data } end
  if part.file then return of_file(part.file) end
  local file = agather.fs.open(part.path)
  local source = of_file(file)
  source.close = function() file:close() end
  return source
end

local function head_of(part, boundary)
  local filename = part.filename or (part.path and part.path:match("[^/]*$"))
  local lines = { "--", boundary, '\r\nContent-Disposition: form-data; name=', quoted(part.name) }
  if filename then lines[#lines + 1] = "; filename=" .. quoted(filename) end
  local content_type = part.content_type or (filename and "application/octet-stream")
  if content_type then lines[#lines + 1] = "\r\nContent-Type: " .. content_type end
  lines[#lines + 1] = "\r\n\r\n"
  return table.concat(lines)
end

local function new_boundary()
  local words = {}
  for i = 1, 4 do words[i] = ("%08x"):format(math.random(0, 0xffffffff)) end
  return "agather-" .. table.concat(words)
end

-- One reader over the sources, one after the other.
local function reader_over(sources)
  local place = 1
  return function()
    while sources[place] do
      local source = sources[place]
      if source.text then
        place = place + 1
        if source.text ~= "" then return source.text end
      else
        local piece = source.read()
        if piece and piece ~= "" then return piece end
        place = place + 1
      end
    end
  end, function() place = 1 end
end

local function of_multipart(value, position, caller)
  local boundary = new_boundary()
  local sources, size, plain = {}, 0, true
  local function append(source)
    sources[#sources + 1] = source
    local length = source.text and #source.text or source.size
    size = size and length and size + length
    plain = plain and source.text ~= nil
  end
  local function close()
    for _, source in ipairs(sources) do
      if source.close then source.close() end
    end
  end
  local parts = parts_of(value, position, caller)
  local ok, problem = pcall(function()
    for _, part in ipairs(parts) do
      append { text = head_of(part, boundary) }
      append(source_of(part))
      append { text = "\r\n" }
    end
  end)
  if not ok then
    close()
    error(problem, 0)
  end
  append { text = "--" .. boundary .. "--\r\n" }
  local made = { content_type = "multipart/form-data; boundary=" .. boundary, size = size }
  if plain then
    local texts = {}
    for place, source in ipairs(sources) do texts[place] = source.text end
    made.text = table.concat(texts)
    return made
  end
  local restart
  made.read, restart = reader_over(sources)
  made.close = close
  local rewindable = true
  for _, source in ipairs(sources) do rewindable = rewindable and (source.text or source.rewind) end
  made.rewind = rewindable and function()
    restart()
    for _, source in ipairs(sources) do
      if source.rewind then source.rewind() end
    end
  end
  return made
end

local makers = { body = of_body, json = of_json, form = of_form, multipart = of_multipart }

--- The body that the options ask for, or nil.
---@return agather.http.Body?
function body.of(options, position, caller)
  local found
  for name in pairs(makers) do
    if options[name] ~= nil then
      if found then
        check.fail(position, caller, ("options '%s' and '%s' exclude each other"):format(
          name < found and name or found, name < found and found or name))
      end
      found = name
    end
  end
  return found and makers[found](options[found], position, caller)
end

return body
