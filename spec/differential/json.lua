-- Just enough JSON for programs and traces: strings, numbers, booleans, lists and objects. An empty table is a list.
local json = {}

local escapes = { ["\""] = "\\\"", ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t" }

---@return string
function json.encode(value)
  if type(value) == "string" then return "\"" .. value:gsub("[\"\\\n\t]", escapes) .. "\"" end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  if next(value) == nil or #value > 0 then
    for place, item in ipairs(value) do parts[place] = json.encode(item) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for key, item in pairs(value) do parts[#parts + 1] = json.encode(key) .. ":" .. json.encode(item) end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

--- Decodes lists of lists of plain strings, which is what traces are.
---@return string[][]
function json.decode_traces(text)
  local traces = {}
  for list in text:sub(2, -2):gmatch("%b[]") do
    local lines = {}
    -- Names like [e1] stand inside of strings, always balanced.
    for line in list:sub(2, -2):gmatch("\"(.-)\"") do lines[#lines + 1] = line end
    traces[#traces + 1] = lines
  end
  return traces
end

return json
