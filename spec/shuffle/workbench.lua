-- What the pieces of random programs need: random numbers, pauses, tasks that are cancelled at random, and checks that
-- hold in whatever order the loop runs what is ready in one iteration.
local agather = require "agather"

local Workbench = {}
Workbench.__index = Workbench

--- Equal seeds make equal programs: a linear congruential generator.
---@param seed integer
local function new(seed)
  return setmetatable({ state = seed * 2 + 1, failures = {} }, Workbench)
end

-- A whole number from 1 to limit.
function Workbench:random(limit)
  self.state = (self.state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
  return (self.state >> 33) % limit + 1
end

function Workbench:chance(percent) return self:random(100) <= percent end
function Workbench:pick(list) return list[self:random(#list)] end

--- Remembers what does not hold; the program goes on.
function Workbench:check(holds, text, ...)
  if not holds then self.failures[#self.failures + 1] = self.piece .. ": " .. text:format(...) end
  return holds
end

--- Waits a little: not at all, some turns of the loop, or until one of a few moments that many tasks share.
function Workbench:pause()
  local dice = self:random(4)
  if dice == 1 then return end
  if dice == 2 then return agather.sleep(0) end
  if dice == 3 then
    for _ = 1, self:random(3) do agather.sleep(0) end
  else
    agather.sleep(self:random(4) / 64)
  end
end

--- Calls leave once at the end of the scope.
function Workbench.on_leave(leave) return setmetatable({}, { __close = leave }) end

--- Starts count tasks that run body(id), cancels some at random, and waits until all have ended. Checks that each ran
--- at most once, ended once, and that it was cancelled where cancel() said so: bodies must not swallow cancellations.
---@param count integer
---@param body fun(id: integer)
---@param options? { cancel?: integer, errors?: boolean } percent of tasks to cancel (25); whether bodies may fail
---@return agather.Task[] tasks
function Workbench:run(count, body, options)
  options = options or {}
  local tasks, starts, ends, told, accepted = {}, {}, {}, {}, {}
  for id = 1, count do
    starts[id], ends[id], told[id] = 0, 0, 0
    local function whole()
      starts[id] = starts[id] + 1
      local _ <close> = Workbench.on_leave(function() ends[id] = ends[id] + 1 end)
      body(id)
    end
    tasks[id] = self:chance(80) and agather.spawn(whole) or agather.create_task(whole, { eager_start = true })
    tasks[id]:add_done_callback(function() told[id] = told[id] + 1 end)
    if self:chance(10) then self:pause() end
  end
  for _ = 1, count * (options.cancel or 25) // 100 do
    local id = self:random(count)
    if tasks[id]:cancel() then accepted[id] = true end
    self:pause()
  end
  agather.wait(tasks)
  agather.sleep(0) -- what is told, is told in the next iteration
  for id, task in ipairs(tasks) do
    self:check(task:done(), "task %d is not done", id)
    self:check(starts[id] <= 1 and starts[id] == ends[id], "task %d started %d and left %d times", id, starts[id], ends[id])
    self:check(told[id] == 1, "the callback of task %d was called %d times", id, told[id])
    local failed = not task:cancelled() and task:exception() ~= nil
    if not options.errors then
      self:check(not failed, "task %d failed: %s", id, failed and tostring(task:exception()))
      self:check(task:cancelled() == (accepted[id] or false), "task %d: cancel() was %s, but it %s", id, accepted[id],
        task:cancelled() and "was cancelled" or "went on")
      self:check(task:cancelled() or starts[id] == 1, "task %d never ran", id)
    end
  end
  return tasks
end

return new
