-- How values and errors look in the trace of interpreter.lua, as in shown.py.
local agather = require "agather"

local shown = {}

local DEEPEST = 4 -- of the lists in lists that are shown

local kinds = {
  "CancelledError", "TimeoutError", "InvalidStateError", "QueueEmpty", "QueueFull", "BrokenBarrierError",
  "ExceptionGroup", "QueueShutDown",
}

local UserError = agather.Error:subclass("UserError")

function shown.new_error(label, form)
  if form == "string" then return label end
  if form == "table" then return { label = label } end
  return form == "object" and agather.Error(label) or UserError(label)
end

local function is_label(text) return type(text) == "string" and text:find("^u%d+$") ~= nil end

local function describe_error(err)
  if is_label(err) then return err end
  if type(err) == "table" and rawget(err, "label") then return err.label end
  if not agather.is_error(err) then return "error" end
  if err.value ~= err then return describe_error(err.value) end
  for _, kind in ipairs(kinds) do
    if agather.is_error(err, agather[kind]) then
      if kind == "CancelledError" and err.message ~= "" then return kind .. ":" .. tostring(err.message) end
      if kind ~= "ExceptionGroup" then return kind end
      local inner = {}
      for place, exception in ipairs(err.exceptions) do inner[place] = describe_error(exception) end
      return kind .. "[" .. table.concat(inner, ", ") .. "]"
    end
  end
  return is_label(err.message) and err.message or "error"
end

local function describe(value, depth)
  if type(value) ~= "table" then return tostring(value) end
  -- In lists asyncio loses the messages of cancellations.
  if agather.is_error(value, agather.CancelledError) then return "CancelledError" end
  if agather.is_error(value) then return describe_error(value) end
  depth = depth or 0
  if depth == DEEPEST then return ("[%d items]"):format(value.n) end
  local items = {}
  for place = 1, value.n do items[place] = describe(value[place], depth + 1) end
  return "[" .. table.concat(items, ", ") .. "]"
end

shown.error, shown.value = describe_error, describe

return shown
