-- JSON both ways, what is no JSON, and headers of HTTP, for torture.c.
local agather = require "agather"
local json = agather.json

local value = { a = { 1, 2.5, -3, "text with \"quotes\" and \u{e9}", true, json.null, {} }, b = json.array {} }
for item = 1, 50 do value["key" .. item] = { item, ("x"):rep(item) } end

local function see() end -- its arguments are what is used

return {
  clock = "virtual",
  run = function()
    local text = json.encode(value, { sort = true, indent = 1 })
    local back = json.decode(text)
    see(json.is_array(back.b), tostring(json.null))
    see(json.encode(back))
    for _, wrong in ipairs { "[1,", "[1e999]", '"\\ud800"', "" } do pcall(json.decode, wrong) end
    for _, wrong in ipairs { { 1, { a = print } }, { [1] = 1, [3] = 3 }, { "\xff" }, 0 / 0 } do pcall(json.encode, wrong) end
  end,
}
