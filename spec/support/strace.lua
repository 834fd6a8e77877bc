-- Runs the scripts that see system calls fail: see faults.lua.
local system = require "spec.support.system"

local strace = {}

--- Why there is none, or nil.
---@return string?
function strace.missing()
  if os.execute("strace -qq -o /dev/null true >/dev/null 2>&1") then return nil end
  return "strace is missing, or may not trace: no failing system calls"
end

--- What a script that tries faults prints: "N faults, 0 complaints, all hit" where each has the effect that the script
--- says and no other.
---@param script string
---@param environment? string such as "UV_THREADPOOL_SIZE=1"
---@return string
function strace.sweep(script, environment)
  local limit = os.getenv("AGATHER_TORTURE") == "full" and 1200 or 60
  return system.output(("%s timeout %d lua5.4 %s 2>&1"):format(environment or "", limit, script))
end

return strace
