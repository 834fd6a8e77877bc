-- Runs spec/embed/limited.c, a host that takes its steps from its arguments: see there.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "limited")

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- Takes the steps, such as "tasks=3", "limit", "spawn=...", "run=2"; returns what it printed, stderr included.
---@param ... string
---@return string output
return function(...)
  local words = {}
  for i, step in ipairs { ... } do words[i] = quote(step) end
  local pipe = assert(io.popen("timeout 30 " .. program .. " " .. table.concat(words, " ") .. " 2>&1"))
  local output = pipe:read("a")
  local _, kind, status = pipe:close()
  if status ~= 0 then error(("limited ended by %s %s:\n%s"):format(kind, status, output), 2) end
  return output
end
