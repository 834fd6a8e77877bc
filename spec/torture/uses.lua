-- Every builtin there is, and which of them a script uses: the modules' functions, and the methods of all types, which
-- are found by walking what the modules reach.
local uses = {}

-- What loads with its first use.
local late = { "agather.tls_listener", "agather.http.client", "agather.progress" }

local public = { "dns", "fs", "http", "json", "luv", "net", "process", "signal", "stream", "testing", "tls", "worker" }

-- Metamethods that scripts get to call; __gc is Lua's affair.
local events = { __call = true, __close = true, __len = true, __pairs = true, __tostring = true }

local function is_class(value) return type(rawget(value, "__name")) == "string" and rawget(value, "__index") ~= nil end

-- The table of methods, also where __index is a function that looks into one.
local function methods_of(class)
  local index = rawget(class, "__index")
  if type(index) == "table" then return index end
  for i = 1, 255 do
    local name, value = debug.getupvalue(index, i)
    if not name then return nil end
    if name == "methods" then return value end
  end
end

-- All classes that the value reaches.
local function walk(value, seen, classes)
  local kind = type(value)
  if kind ~= "table" and kind ~= "function" and kind ~= "userdata" or seen[value] then return end
  seen[value] = true
  if kind == "function" then
    for i = 1, 255 do
      local name, held = debug.getupvalue(value, i)
      if not name then break end
      walk(held, seen, classes)
    end
    return
  end
  walk(debug.getmetatable(value), seen, classes)
  if kind ~= "table" then return end
  if is_class(value) then classes[#classes + 1] = value end
  for key, held in next, value do
    walk(key, seen, classes)
    walk(held, seen, classes)
  end
end

-- Classes with what makes them errors share their functions: one of them stands for all.
local function is_error_class(class) return type(rawget(class, "__index")) == "function" and methods_of(class) == nil end

local function is_method(key, value)
  return type(key) == "string" and type(value) == "function" and (events[key] or not key:find("^__"))
end

--- A list of { name =, table =, key = }.
function uses.all()
  local agather = require "agather"
  local list, named = {}, {}
  local function add(name, holder, key)
    local times = (named[name] or 0) + 1
    named[name] = times
    list[#list + 1] = { name = times > 1 and name .. " #" .. times or name, table = holder, key = key }
  end
  local function add_functions(name, module)
    local keys = {}
    for key, value in next, module do
      if is_method(key, value) then keys[#keys + 1] = key end
    end
    table.sort(keys)
    for _, key in ipairs(keys) do add(name .. key, module, key) end
  end
  for _, name in ipairs { "timeout", "wait", "TaskGroup", "map", "Barrier", "from_callback", "timeout_at", "wait_for",
    "as_completed", "shield" } do
    local _ = agather[name]
  end
  add_functions("agather.", agather)
  add_functions("agather.coroutine.", agather.coroutine)
  for _, name in ipairs(public) do add_functions("agather." .. name .. ".", require("agather." .. name)) end
  for _, name in ipairs(late) do require(name) end
  local seen, classes = { [_G] = true, [package.loaded] = true }, {}
  for name, module in pairs(package.loaded) do
    if name:find("^agather") then walk(module, seen, classes) end
  end
  for _, held in pairs(debug.getregistry()) do
    if type(held) == "table" and is_class(held) then walk(held, seen, classes) end
  end
  table.sort(classes, function(a, b) return a.__name < b.__name end)
  local added = {} -- two kinds of responses have the same methods
  for _, class in ipairs(classes) do
    if class.__name ~= "FILE*" and not is_error_class(class) then
      local methods = methods_of(class)
      if methods and methods ~= class and not added[methods] then add_functions(class.__name .. ":", methods) end
      if methods then added[methods] = true end
      add_functions(class.__name .. ":", class)
    end
  end
  return list
end

--- Has each of them remembered in the table that is returned, when it is called.
function uses.watch()
  local used = {}
  for _, builtin in ipairs(uses.all()) do
    local f = builtin.table[builtin.key]
    rawset(builtin.table, builtin.key, function(...)
      used[builtin.name] = true
      return f(...)
    end)
  end
  return used
end

return uses
