-- Makes a random program from a seed, several pieces at once in one loop, and runs it on the virtual clock. What must hold
-- in any order is checked in the pieces; nothing may be left when they have ended.
local agather = require "agather"
local new_workbench = require "spec.shuffle.workbench"

local pieces, names = {}, {}
for _, part in ipairs { "handover_pieces", "sync_pieces", "task_pieces" } do
  for name, piece in pairs(require("spec.shuffle." .. part)) do
    pieces[name] = piece
    names[#names + 1] = name
  end
end
table.sort(names)

local LATEST = 3600 -- virtual seconds; every piece is done long before

local program = { names = names }

--- Whether this is a build in which shuffling works (AGATHER_SHUFFLE).
---@return boolean
function program.can_shuffle()
  agather.new_event_loop():close()
  return debug.getregistry()["agather.shuffles"] == true
end

--- Runs the program of a seed.
---@param seed integer
---@param order integer seed of the order within iterations; 0: as it is
---@return string[] failures
---@return string[] pieces that were in it
function program.run(seed, order)
  debug.getregistry()["agather.shuffle"] = order
  local bench = new_workbench(seed)
  local chosen, left = {}, {}
  for place = 1, bench:random(4) do chosen[place] = bench:pick(names) end
  local failures = {}
  local function fail(text, ...) failures[#failures + 1] = text:format(...) end
  local runner <close> = agather.Runner { clock = "virtual" }
  local ok, err = pcall(runner.run, runner, function()
    agather.get_running_loop():set_exception_handler(function(context)
      fail("the exception handler was told: %s %s", context.message, context.exception)
    end)
    local tasks = {}
    for place, name in ipairs(chosen) do
      local own = new_workbench(bench:random(1 << 30))
      own.piece, own.failures = name, failures
      tasks[place] = agather.create_task(function() pieces[name](own) end, { name = name })
    end
    local _, pending = agather.wait(tasks, { timeout = LATEST })
    for _, task in ipairs(pending) do fail("%s does not end: %s", task:get_name(), task:traceback()) end
    for _, task in ipairs(tasks) do
      if task:done() and task:exception() ~= nil then fail("%s failed: %s", task:get_name(), task:exception()) end
    end
    agather.sleep(0)
    for _, task in ipairs(agather.all_tasks()) do
      if task ~= agather.current_task() then left[#left + 1] = tostring(task) end
    end
  end)
  debug.getregistry()["agather.shuffle"] = nil
  if not ok then fail("%s", err) end
  if #left > 0 then fail("tasks are left: %s", table.concat(left, ", ")) end
  return failures, chosen
end

return program
