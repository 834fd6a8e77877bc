-- What agather.json.decode must do, written a second time and for reading: JSON of RFC 8259 with its limits. Returns the
-- value, or nil where the text is none (json.null stands for null).
local json = require("agather").json

local MOST_LEVELS = 512

-- Raised for whatever is no JSON; told from a mistake of the model itself by what it is.
local NONE = {}

local function none() error(NONE, 0) end

local function skip(text, at) return text:match("^[ \t\r\n]*()", at) end

local escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

-- The character of \uXXXX at [at], where that is its "u", and where the text goes on.
local function unicode(text, at)
  local digits = text:match("^u(%x%x%x%x)", at)
  if not digits then none() end
  local code = tonumber(digits, 16)
  if code >= 0xDC00 and code < 0xE000 then none() end
  if code < 0xD800 or code >= 0xE000 then return utf8.char(code), at + 5 end
  local low = tonumber(text:match("^\\u(%x%x%x%x)", at + 5) or "0", 16)
  if low < 0xDC00 or low >= 0xE000 then none() end
  return utf8.char(0x10000 + ((code - 0xD800) << 10) + low - 0xDC00), at + 11
end

local function string_at(text, at)
  local parts = {}
  while true do
    local plain, stop = text:match('^([^"\\%c]*)()', at)
    parts[#parts + 1] = plain
    local byte = text:sub(stop, stop)
    if byte == '"' then
      local made = table.concat(parts)
      return made, stop + 1
    elseif byte == "\\" then
      local letter = text:sub(stop + 1, stop + 1)
      if letter == "u" then
        parts[#parts + 1], at = unicode(text, stop + 1)
      elseif escapes[letter] then
        parts[#parts + 1], at = escapes[letter], stop + 2
      else
        none()
      end
    elseif byte == "\127" then -- no control character to JSON
      parts[#parts + 1], at = byte, stop + 1
    else
      none()
    end
  end
end

local function number_at(text, at)
  local whole, rest = text:match("^(%-?%d+)()", at)
  if not whole or whole:find("^%-?0%d") then none() end
  local fraction, after = text:match("^(%.%d+)()", rest)
  local exponent, last = text:match("^([eE][+-]?%d+)()", after or rest)
  if not fraction and not exponent then
    local value = math.tointeger(tonumber(whole))
    -- of a decimal that is too large tonumber makes a float
    if math.type(tonumber(whole)) ~= "integer" then none() end
    return value, rest
  end
  local value = tonumber(whole .. (fraction or "") .. (exponent or ""))
  if value == math.huge or value == -math.huge then none() end
  return value, last or after
end

local words = { t = { "true", true }, f = { "false", false }, n = { "null", json.null } }

local value_at

-- Calls item(at) for each member between the brackets; returns where the text goes on.
local function members(text, at, close, item)
  at = skip(text, at + 1)
  if text:sub(at, at) == close then return at + 1 end
  while true do
    at = skip(text, item(skip(text, at)))
    local byte = text:sub(at, at)
    if byte == close then return at + 1 end
    if byte ~= "," then none() end
    at = at + 1
  end
end

local function array_at(text, at, depth)
  local list, count = json.array {}, 0
  at = members(text, at, "]", function(place)
    count = count + 1
    list[count], place = value_at(text, place, depth + 1)
    return place
  end)
  return list, at
end

local function object_at(text, at, depth)
  local object = {}
  at = members(text, at, "}", function(place)
    if text:sub(place, place) ~= '"' then none() end
    local name, value
    name, place = string_at(text, place + 1)
    if name:find("\0", 1, true) then none() end -- jansson's names are C strings
    place = skip(text, place)
    if text:sub(place, place) ~= ":" then none() end
    value, place = value_at(text, skip(text, place + 1), depth + 1)
    object[name] = value
    return place
  end)
  return object, at
end

function value_at(text, at, depth)
  local byte = text:sub(at, at)
  if (byte == "[" or byte == "{") and depth >= MOST_LEVELS then none() end
  if byte == "[" then return array_at(text, at, depth) end
  if byte == "{" then return object_at(text, at, depth) end
  if byte == '"' then return string_at(text, at + 1) end
  local word = words[byte]
  if word then
    if text:sub(at, at + #word[1] - 1) ~= word[1] then none() end
    return word[2], at + #word[1]
  end
  return number_at(text, at)
end

---@param text string
---@return any
return function(text)
  if not utf8.len(text) or text:find("\xF4[\x90-\xBF]") then return nil end
  local ok, value, at = pcall(value_at, text, skip(text, 1), 0)
  if not ok then
    if value == NONE then return nil end
    error(value, 0)
  end
  if skip(text, at) <= #text then return nil end
  return value
end
