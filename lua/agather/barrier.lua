-- Barrier: tasks wait until enough of them do. asyncio.Barrier (3.11).
local agather = require "agather"

local Barrier = {}
Barrier.__index = Barrier
Barrier.__name = "Barrier"

local function broken(text) error(agather.BrokenBarrierError(text), 0) end

-- Waits, with the lock held, until the condition function is true.
local function wait_until(self, predicate)
  while not predicate() do self.condition:wait() end
end

local function leave(self)
  self.count = self.count - 1
  if self.count > 0 then return end
  if self.state == "resetting" or self.state == "draining" then self.state = "filling" end
  self.condition:notify_all()
end

--- Waits until as many tasks wait as the barrier has parties.
---@async
---@return integer index from 0 to parties - 1, one for each task
function Barrier:wait()
  local _ <close> = self.condition:acquire()
  wait_until(self, function() return self.state ~= "draining" and self.state ~= "resetting" end)
  if self.state == "broken" then broken("Barrier aborted") end
  local index = self.count
  self.count = index + 1
  local _ <close> = setmetatable({}, { __close = function() leave(self) end })
  if index + 1 == self.needed then
    self.state = "draining"
    self.condition:notify_all()
  else
    wait_until(self, function() return self.state ~= "filling" end)
    if self.state == "broken" or self.state == "resetting" then broken("Abort or reset of barrier") end
  end
  return index
end

--- Makes the barrier empty again; tasks that wait get BrokenBarrierError.
---@async
function Barrier:reset()
  local _ <close> = self.condition:acquire()
  self.state = self.count > 0 and "resetting" or "filling"
  self.condition:notify_all()
end

--- Breaks the barrier: who waits, now or later, gets BrokenBarrierError.
---@async
function Barrier:abort()
  local _ <close> = self.condition:acquire()
  self.state = "broken"
  self.condition:notify_all()
end

---@return integer
function Barrier:parties() return self.needed end

---@return integer number of tasks that wait while it fills
function Barrier:n_waiting() return self.state == "filling" and self.count or 0 end

---@return boolean
function Barrier:broken() return self.state == "broken" end

function Barrier:__tostring()
  return ("<Barrier %s waiting=%d/%d>"):format(self.state, self:n_waiting(), self.needed)
end

local module = {}

---@param parties integer
function module.Barrier(parties)
  if math.type(parties) ~= "integer" or parties < 1 then
    error(("bad argument #1 to 'Barrier' (positive integer expected, got %s)"):format(tostring(parties)), 2)
  end
  return setmetatable({ condition = agather.Condition(), needed = parties, count = 0, state = "filling" }, Barrier)
end

return module
