-- Checks of arguments, with the messages of Lua's own functions and the line of the script that called.
local agather = require "agather"

local check = {}

local library = debug.getinfo(1, "S").source:match("^(.*)check%.lua$")

-- The level, for error, of the script's function that called the library.
local function caller_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 0 end
    if info.what ~= "C" and info.source:sub(1, #library) ~= library then return level - 1 end
    level = level + 1
  end
end

local function fail(position, name, text)
  error(("bad argument #%d to '%s' (%s)"):format(position, name, text), caller_level())
end

-- The name of a value's type: that of its metatable, or Lua's.
local function type_name(value)
  local metatable = getmetatable(value)
  local name = type(metatable) == "table" and rawget(metatable, "__name")
  return type(name) == "string" and name or type(value)
end

function check.fail(position, name, text) fail(position, name, text) end

function check.type_name(value) return type_name(value) end

-- A number of seconds, or nil where [optional].
function check.seconds(value, position, name, optional)
  if value == nil and optional then return end
  if type(value) ~= "number" then fail(position, name, "number expected, got " .. type_name(value)) end
  if value ~= value then fail(position, name, "number expected, got nan") end
end

function check.callable(value, position, name)
  if type(value) ~= "function" then fail(position, name, "function expected, got " .. type_name(value)) end
end

-- What may be awaited: a future, task or coro, a value with __await, a function, a thread.
function check.is_awaitable(value)
  return type(value) == "function" or type(value) == "thread" or value ~= nil and agather.is_awaitable(value)
end

-- Whether this is a thread that has run already, which nobody can await.
local function has_started(value)
  return type(value) == "thread" and (coroutine.status(value) ~= "suspended" or debug.getinfo(value, 0, "S") ~= nil)
end

function check.awaitable(value, position, name)
  if not check.is_awaitable(value) then fail(position, name, "awaitable expected, got " .. type_name(value)) end
  if has_started(value) then fail(position, name, "coroutine was already started") end
end

-- A list of what may be awaited; returns its length.
function check.awaitables(list, position, name)
  local length = check.list(list, position, name)
  for place = 1, length do
    if not check.is_awaitable(list[place]) then
      fail(position, name, ("awaitable expected at place %d of the list, got %s"):format(place, type_name(list[place])))
    end
    if has_started(list[place]) then
      fail(position, name, ("coroutine at place %d of the list was already started"):format(place))
    end
  end
  return length
end

function check.progress(value, position, name)
  if value and value ~= true and type(value) ~= "function" then
    fail(position, name, "option 'progress' must be a boolean or a function, got " .. type_name(value))
  end
end

-- A table of options with no other keys than [known].
function check.options(options, known, position, name)
  if options == nil then return {} end
  if type(options) ~= "table" then fail(position, name, "table of options expected, got " .. type_name(options)) end
  for key in pairs(options) do
    if not known[key] then fail(position, name, ("unknown option '%s'"):format(tostring(key))) end
  end
  return options
end

-- A table of options that are numbers of bytes, from [least] to [most].
function check.sizes(sizes, known, least, most, name)
  if type(sizes) ~= "table" then fail(1, name, "table expected, got " .. type_name(sizes)) end
  for option, size in pairs(check.options(sizes, known, 1, name)) do
    if math.type(size) ~= "integer" or size < least or size > most then
      fail(1, name, ("option '%s' must be a number of bytes, got %s"):format(option, tostring(size)))
    end
  end
end

-- A list; returns its length, which may stand in .n.
function check.list(list, position, name)
  if type(list) ~= "table" then fail(position, name, "list expected, got " .. type_name(list)) end
  local length = rawget(list, "n")
  return math.type(length) == "integer" and length or #list
end

-- A whole number of at least one.
function check.count(value, position, name, option)
  if math.type(value) ~= "integer" or value < 1 then
    fail(position, name, ("option '%s' must be a positive integer, got %s"):format(option, tostring(value)))
  end
end

return check
