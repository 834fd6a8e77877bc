-- Writes plain tables as Lua, names in a fixed order, `op` first.

---@return string
local function literal(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts, names = {}, {}
  for place, item in ipairs(value) do parts[place] = literal(item) end
  for name in pairs(value) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names, function(a, b)
    if (a == "op") ~= (b == "op") then return a == "op" end
    return a < b
  end)
  for _, name in ipairs(names) do parts[#parts + 1] = name .. " = " .. literal(value[name]) end
  if #parts == 0 then return "{}" end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

return literal
