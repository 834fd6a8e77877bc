-- Runs the programs of spec/embed and examples/embed, which are in the build tree.
local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("agather/core%.so$", "")

local host = { sanitized = build:find("asan", 1, true) ~= nil }

-- They are sanitized from the start, unlike lua5.4, so that leaks can be told too.
local prefix = host.sanitized and "env -u LD_PRELOAD ASAN_OPTIONS=detect_leaks=1 " or ""

--- Runs a program with one argument or none; returns whether it ended well, and what it printed.
---@param program string
---@param argument? string
---@return boolean ok
---@return string output
function host.run(program, argument)
  local quoted = argument and "'" .. argument:gsub("'", "'\\''") .. "'" or ""
  local pipe = assert(io.popen(("%stimeout 60 %s%s %s 2>&1"):format(prefix, build, program, quoted)))
  local output = pipe:read("a")
  return pipe:close() == true, output
end

--- The names of a program's cases: see spec/embed/cases.h.
---@param program string
---@return string[]
function host.cases(program)
  local ok, output = host.run(program)
  assert(ok, output)
  local names = {}
  for name in output:gmatch("[^\n]+") do names[#names + 1] = name end
  return names
end

return host
