-- agather.json: text of JSON to values and back.
--
-- Integers stay integers, of 64 bits; other numbers are floats. null is json.null. Arrays are tables with json's array
-- metatable, so that an empty one stays an array when it is encoded again; objects are plain tables. Of two members
-- with one name the last counts, as in most parsers. Text is UTF-8.
local agather = require "agather.core"
local check = require "agather.check"
local jansson = require "agather.jansson"

local json = {}

--- Text that is not JSON, or a value that has none: .line and .column (in bytes) of text.
json.Error = agather.Error:subclass("JSONError")

--- What null is. It counts as true, unlike nil: compare with it.
json.null = jansson.null

--- Makes the table an array also when it is empty, and returns it. Without it, {} is the object {}.
---@param list? table
---@return table list
function json.array(list)
  if list == nil then list = {} end
  if type(list) ~= "table" then check.fail(1, "array", "table expected, got " .. check.type_name(list)) end
  return setmetatable(list, jansson.array_metatable)
end

--- Whether a table is marked as an array: decode and json.array do that.
---@param value any
---@return boolean
function json.is_array(value)
  return type(value) == "table" and getmetatable(value) == jansson.array_metatable
end

--- The value that the text holds. Raises json.Error.
---@param text string
---@return any
function json.decode(text)
  if type(text) ~= "string" then check.fail(1, "decode", "string expected, got " .. check.type_name(text)) end
  local fine, made, value, line, column = pcall(jansson.decode, text)
  if not fine then error(made == "not enough memory" and made or json.Error("JSON: " .. made), 0) end
  if made then return value end
  error(json.Error(("JSON: %s at line %d, column %d"):format(value, line, column), { line = line, column = column }), 0)
end

local option_keys = { indent = true, sort = true }

--- The text of a value: a string, number, boolean, json.null, a list (all keys 1 to n) or a table with names. Raises
--- json.Error for what JSON has not: nan, infinity, functions, lists with holes, text that is not UTF-8, more than 512
--- levels. indent: spaces for each level, on lines of their own; sort: members by name.
---@param value any
---@param options? { indent?: integer, sort?: boolean }
---@return string
function json.encode(value, options)
  options = check.options(options, option_keys, 2, "encode")
  local indent = options.indent
  if indent ~= nil and (math.type(indent) ~= "integer" or indent < 0 or indent > 16) then
    check.fail(2, "encode", "option 'indent' must be an integer from 0 to 16, got " .. tostring(indent))
  end
  local fine, text = pcall(jansson.encode, value, indent, options.sort)
  if fine then return text end
  error(text == "not enough memory" and text or json.Error("JSON: " .. text), 0)
end

return json
