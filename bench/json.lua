-- Writes JSON: tables with keys sorted, lists as lists, one value a line but for lists of numbers.
local function is_list(value) return #value > 0 or next(value) == nil end

local function encode(value, indent)
  if type(value) == "number" then
    return math.type(value) == "integer" and tostring(value) or ("%.6g"):format(value)
  elseif type(value) == "string" then
    return '"' .. value:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local inner, parts = indent .. "  ", {}
  if is_list(value) then
    for i, item in ipairs(value) do parts[i] = encode(item, inner) end
    if type(value[1]) ~= "table" then return "[" .. table.concat(parts, ", ") .. "]" end
    return "[\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. "]"
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do parts[i] = encode(key, inner) .. ": " .. encode(value[key], inner) end
  return "{\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. "}"
end

return { encode = function(value) return encode(value, "") .. "\n" end }
