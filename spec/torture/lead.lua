-- The part of torture.c that is in Lua: gets what memory does, and the path of a script; returns main(), which runs
-- the script with memory that fails, and what comes before and after.
local memory, path = ...
local agather = require "agather"

for _, name in ipairs { "timeout", "wait", "TaskGroup", "map", "Barrier", "from_callback", "luv" } do
  local _ = agather[name]
end

local used = memory.uses and require("spec.torture.uses").watch()
local script = assert(loadfile(path))()
local lead = { before = script.before }

local GUARD = 10 -- seconds after which whoever still waits waits in vain

local function ignore() end

-- Three tasks more.
local function others()
  local ran = 0
  agather.gather_list({
    function() agather.sleep(0) ran = ran + 1 end,
    function() agather.sleep(0.001) ran = ran + 1 end,
    function() agather.sleep(0) ran = ran + 1 end,
  }):await()
  if ran ~= 3 then memory.wrong("other tasks did not run") end
end

local function in_vain()
  local lines = {}
  for _, task in ipairs(agather.all_tasks()) do lines[#lines + 1] = tostring(task) .. "\n" .. task:traceback() end
  memory.wrong("waits in vain:\n" .. table.concat(lines, "\n"))
end

local function use()
  local loop = agather.get_running_loop()
  loop:set_exception_handler(ignore)
  local guard = script.clock ~= "virtual" and loop:call_later(GUARD, in_vain)
  local ok, err = xpcall(script.run, debug.traceback)
  if memory.disarm() then others() end
  if guard then guard:cancel() end
  if not ok then error(err, 0) end
end

function lead.main()
  memory.arm()
  if script.alone then script.alone() end
  local runner <close> = agather.Runner { clock = script.clock }
  runner:run(use)
end

-- With memory again, in another loop.
function lead.afterwards()
  collectgarbage()
  agather.run(function()
    others()
    if script.after then script.after() end
  end)
  for name in pairs(used or {}) do print(name) end
end

return lead
