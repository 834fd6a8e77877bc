-- agather.json on any text: it is decoded as a model in Lua says, or refused with a JSONError; what was decoded encodes to
-- text that decodes to the same. The first byte chooses how it is encoded.
local agather = require "agather"
local model = require "spec.support.json_model"

local json = agather.json

-- Whether two decoded values are one: also of the same kind of number, and -0.0 is not 0.0.
local function same(one, other)
  if type(one) ~= type(other) then return false end
  if type(one) ~= "table" then
    return math.type(one) == math.type(other) and (one == other and (one ~= 0 or 1 / one == 1 / other))
  end
  if json.is_array(one) ~= json.is_array(other) then return false end
  for name, value in pairs(one) do
    if other[name] == nil or not same(value, other[name]) then return false end
  end
  for name in pairs(other) do
    if one[name] == nil then return false end
  end
  return true
end

local reached -- tells the fuzzer of places: jansson is not built to tell it

-- Tells what a value is made of, and where.
local function tell_shape(value, within, depth)
  local kind = math.type(value) or json.is_array(value) and "array" or value == json.null and "null" or type(value)
  reached(8192 + #within * 256 + #kind * 16 + kind:byte() % 16 + math.min(depth, 15) * 4096)
  if type(value) ~= "table" then return end
  for _, member in pairs(value) do tell_shape(member, kind, depth + 1) end
end

-- Tells why text was refused.
local function tell_error(err)
  local sum = 0
  for byte in tostring(err):gsub(" near .*", ""):gsub("%d+", ""):gmatch(".") do sum = (sum * 31 + byte:byte()) % 8192 end
  reached(sum)
end

-- decode(text); nil where it was refused.
local function decode(text)
  local ok, value = pcall(json.decode, text)
  if ok then return value end
  assert(agather.is_error(value, json.Error), "no JSONError: " .. tostring(value))
  assert(tostring(value):find("^JSON: "), tostring(value))
  tell_error(value)
  if value.line then assert(math.type(value.line) == "integer" and math.type(value.column) == "integer") end
  return nil
end

-- Strings of decoded text that are no JSON as they are: encode refuses them with a JSONError, or they come back.
local function refuse_or_keep(text)
  local ok, made = pcall(json.encode, { text, [2] = text })
  if not ok then
    assert(agather.is_error(made, json.Error), "no JSONError: " .. tostring(made))
    assert(not utf8.len(text), "text that is UTF-8 was refused")
    return
  end
  local back = json.decode(made)
  assert(back[1] == text and back[2] == text, "a string does not come back")
end

return function(bytes, tell)
  reached = tell or function() end
  local first, text = bytes:byte() or 0, bytes:sub(2)
  local expected, value = model(text), decode(text)
  if expected == nil then
    assert(value == nil, "what is no JSON was decoded")
  else
    assert(value ~= nil, "what is JSON was refused")
    assert(same(value, expected), "it was decoded to something else")
    tell_shape(value, "", 0)
    local made = json.encode(value, { indent = first % 4, sort = first & 4 ~= 0 })
    assert(same(decode(made), value), "what was encoded decodes to something else")
    if first & 4 ~= 0 then assert(json.encode(decode(made), { indent = first % 4, sort = true }) == made, "sorted it differs") end
  end
  if first & 8 ~= 0 then refuse_or_keep(text) end
end
