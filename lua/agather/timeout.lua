-- timeout, timeout_at and wait_for: deadlines for a scope. asyncio.timeout (3.12), asyncio.wait_for (3.12).
local agather = require "agather"
local check = require "agather.check"

local Timeout = {}
Timeout.__index = Timeout
Timeout.__name = "Timeout"

local function expire(self)
  self.state = "expiring"
  self.handle = nil
  self.task:cancel()
end

-- Cancels the old timer and starts one for the deadline `self.deadline`.
local function arm(self)
  if self.handle then self.handle:cancel() end
  self.handle = nil
  local deadline = self.deadline
  if not deadline then return end
  local loop = self.loop
  if deadline <= loop:time() then
    self.handle = loop:call_soon(expire, self)
  else
    self.handle = loop:call_at(deadline, expire, self)
  end
end

local function enter(deadline, name)
  local task = agather.current_task()
  if not task then error(agather.RuntimeError(name .. ": use it inside a task"), 0) end
  local self = setmetatable({
    state = "active",
    deadline = deadline,
    task = task,
    loop = task:get_loop(),
    cancelling = task:cancelling(),
  }, Timeout)
  arm(self)
  return self
end

--- The deadline on the clock of loop:time(), or nil.
---@return number?
function Timeout:when() return self.deadline end

--- Whether the deadline has passed while the scope was open.
---@return boolean
function Timeout:expired() return self.state == "expiring" or self.state == "expired" end

--- Moves the deadline of an open scope; nil takes it away.
---@param deadline number? on the clock of loop:time()
function Timeout:reschedule(deadline)
  check.seconds(deadline, 1, "reschedule", true)
  if self.state ~= "active" then
    error(agather.RuntimeError("cannot change the state of a timeout that is " .. self.state), 0)
  end
  self.deadline = deadline
  arm(self)
end

function Timeout:__close(err)
  if self.handle then self.handle:cancel() end
  self.handle = nil
  if self.state == "active" then
    self.state = "finished"
  elseif self.state == "expiring" then
    self.state = "expired"
    if self.task:uncancel() <= self.cancelling and agather.is_error(err, agather.CancelledError) then
      error(agather.TimeoutError(), 0)
    end
  end
end

function Timeout:__tostring()
  local deadline = self.state == "active" and self.deadline and (" when=%.3f"):format(self.deadline) or ""
  return ("<Timeout %s%s>"):format(self.state, deadline)
end

local module = {}

--- A scope with a deadline: `local scope <close> = agather.timeout(1)`. When it passes, the scope's task is cancelled
--- where it waits, and leaving the scope raises TimeoutError.
---@param seconds number? from now; nil: none
function module.timeout(seconds)
  check.seconds(seconds, 1, "timeout", true)
  local deadline = seconds and agather.get_running_loop():time() + seconds
  return enter(deadline, "timeout")
end

--- The same with a deadline on the clock of loop:time().
---@param deadline number?
function module.timeout_at(deadline)
  check.seconds(deadline, 1, "timeout_at", true)
  return enter(deadline, "timeout_at")
end

-- Cancels the future and waits until it has ended, whatever it makes of that.
local function cancel_and_wait(future)
  future:cancel() -- before anything that may fail
  local ended = agather.future()
  local function release()
    if not ended:done() then ended:set_result() end
  end
  future:add_done_callback(release)
  local _ <close> = setmetatable({}, { __close = function() future:remove_done_callback(release) end })
  ended:await()
end

--- Awaits with a limit. A coro runs in the calling task; when the time is over it is cancelled, and TimeoutError is
--- raised once it has ended.
---@async
---@param awaitable any
---@param seconds number? nil: no limit
---@return any ... its results
function module.wait_for(awaitable, seconds)
  check.awaitable(awaitable, 1, "wait_for")
  check.seconds(seconds, 2, "wait_for", true)
  if seconds and seconds <= 0 then
    local future = agather.ensure_future(awaitable)
    if future:done() then return future:result() end
    cancel_and_wait(future)
    local results = table.pack(pcall(future.result, future))
    if results[1] then return table.unpack(results, 2, results.n) end
    error(agather.is_error(results[2], agather.CancelledError) and agather.TimeoutError() or results[2], 0)
  end
  local _ <close> = module.timeout(seconds)
  return agather.await(awaitable)
end

return module
