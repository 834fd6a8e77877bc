-- Headers: names without case, each with one or more values, in the order they came.
local check = require "agather.check"

local Headers = {}

-- The fields of an object: [1] the list of { name, value }, in order; [2] lowercase name -> list of values.
local methods = {}

local function is_token(name) return name:find("^[%w!#$%%&'*+%-.^_`|~]+$") ~= nil end

-- Whether a text may stand in a head: CR, LF and NUL would end the line or the string.
function Headers.is_plain(text) return not text:find("[\r\n\0]") end

local function fail(position, name, text) check.fail(position, name, text) end

local function check_name(name, position, caller)
  if type(name) ~= "string" then
    fail(position, caller, "name of a header expected, got " .. check.type_name(name))
  end
  if not is_token(name) then fail(position, caller, ("%q is no name of a header"):format(name)) end
end

local function check_value(name, value, position, caller)
  local kind = math.type(value)
  if kind then value = kind == "integer" and ("%d"):format(value) or tostring(value) end
  if type(value) ~= "string" then
    fail(position, caller, ("header '%s' must be a string, got %s"):format(name, check.type_name(value)))
  end
  if not Headers.is_plain(value) then
    fail(position, caller, ("header '%s' must not hold CR, LF or NUL"):format(name))
  end
  return (value:gsub("^[ \t]+", ""):gsub("[ \t]+$", ""))
end

local function add(self, name, value)
  local list, by_name = rawget(self, 1), rawget(self, 2)
  list[#list + 1] = { name, value }
  local key = name:lower()
  local values = by_name[key]
  if values then
    values[#values + 1] = value
  else
    by_name[key] = { value }
  end
end

--- Adds a value beside those that are there.
function methods:add(name, value)
  check_name(name, 1, "add")
  add(self, name, check_value(name, value, 2, "add"))
end

--- Takes all values of a name away.
function methods:remove(name)
  local key = tostring(name):lower()
  local list, by_name = rawget(self, 1), rawget(self, 2)
  if not by_name[key] then return end
  by_name[key] = nil
  local kept = {}
  for _, entry in ipairs(list) do
    if entry[1]:lower() ~= key then kept[#kept + 1] = entry end
  end
  rawset(self, 1, kept)
end

--- Puts one value in the place of those that are there.
function methods:set(name, value)
  check_name(name, 1, "set")
  value = check_value(name, value, 2, "set")
  self:remove(name)
  add(self, name, value)
end

--- The values of a name, joined with ", " as HTTP reads them; nil where there is none.
---@return string?
function methods:get(name)
  local values = rawget(self, 2)[tostring(name):lower()]
  return values and table.concat(values, ", ")
end

--- The list of the values of a name: what Set-Cookie needs, which cannot be joined.
---@return string[]
function methods:get_all(name)
  local values = rawget(self, 2)[tostring(name):lower()] or {}
  return table.move(values, 1, #values, 1, {})
end

--- An iterator over names and values, in order; so is pairs(headers).
function methods:items()
  local list, place = rawget(self, 1), 0
  return function()
    place = place + 1
    local entry = list[place]
    if entry then return entry[1], entry[2] end
  end
end

local metatable = { __name = "agather.http.Headers" }

function metatable.__index(self, name)
  return methods[name] or methods.get(self, name)
end

function metatable.__newindex(self, name, value)
  if value == nil then
    self:remove(name)
  else
    self:set(name, value)
  end
end

function metatable.__pairs(self) return self:items() end

function metatable.__tostring(self)
  local lines = {}
  for name, value in self:items() do lines[#lines + 1] = name .. ": " .. value end
  return table.concat(lines, "\n")
end

local function empty() return setmetatable({ {}, {} }, metatable) end

function Headers.is(value) return getmetatable(value) == metatable end

local function sorted_names(source, position, caller)
  local names = {}
  for name in pairs(source) do
    check_name(name, position, caller)
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- Makes headers of other headers, of { name = value or list of values }, or of a list of { name, value }.
function Headers.new(source, position, caller)
  position, caller = position or 1, caller or "Headers"
  local self = empty()
  if source == nil then return self end
  if Headers.is(source) then
    for name, value in source:items() do add(self, name, value) end
    return self
  end
  if type(source) ~= "table" then fail(position, caller, "table of headers expected, got " .. check.type_name(source)) end
  if source[1] ~= nil then
    for _, entry in ipairs(source) do
      if type(entry) ~= "table" then fail(position, caller, "list of { name, value } expected as headers") end
      check_name(entry[1], position, caller)
      add(self, entry[1], check_value(entry[1], entry[2], position, caller))
    end
    return self
  end
  for _, name in ipairs(sorted_names(source, position, caller)) do
    local value = source[name]
    if type(value) == "table" then
      for _, one in ipairs(value) do add(self, name, check_value(name, one, position, caller)) end
    else
      add(self, name, check_value(name, value, position, caller))
    end
  end
  return self
end

--- Headers of what curl gave: lines with a status line first. A line that goes on with a space belongs to the last.
function Headers.parse(head)
  local self = empty()
  local list = rawget(self, 1)
  for line in head:gmatch("([^\r\n]*)\r?\n") do
    local name, value = line:match("^([^%s:]+):[ \t]*(.-)[ \t]*$")
    if name then
      add(self, name, value)
    elseif line:find("^[ \t]") and list[#list] then
      local last = list[#list]
      local values = rawget(self, 2)[last[1]:lower()]
      last[2] = last[2] .. " " .. line:match("^[ \t]*(.-)[ \t]*$")
      values[#values] = last[2]
    end
  end
  return self
end

--- A copy of [base] in which the names of [over] have the values that they have there.
function Headers.merge(base, over)
  local self = Headers.new(base)
  for name in over:items() do self:remove(name) end
  for name, value in over:items() do add(self, name, value) end
  return self
end

--- The lines that curl takes: an empty value is "Name;" there.
function Headers.lines(self)
  local lines = {}
  for name, value in self:items() do lines[#lines + 1] = value == "" and name .. ";" or name .. ": " .. value end
  return lines
end

return Headers
