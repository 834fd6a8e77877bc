-- agather.signal: waits for signals of the system. The listeners are in C (src/uv/signal.c).
-- While somebody listens, the signal does not have its default effect; when the last listener goes, the signal does
-- what it did before. A signal that comes again before the first has been taken counts once.
local agather = require "agather"
local check = require "agather.check"
local uv = require "agather.uv"

local signal = {}

local function check_names(name, ...)
  if select("#", ...) == 0 then check.fail(1, name, "name of a signal expected, got no value") end
  for position = 1, select("#", ...) do
    local problem = uv.signal_problem((select(position, ...)), true)
    if problem then check.fail(position, name, problem) end
  end
end

--- Waits for the first of the signals; listens from the call on and no longer than it.
---@async
---@param ... string one or several names, such as "SIGTERM"
---@return string name of the signal that came
function signal.wait(...)
  check_names("wait", ...)
  local listener <close> = uv.signal_listener("signal.wait", ...)
  return listener:wait()
end

---@class agather.SignalHandler
local Handler = {}
Handler.__index = Handler
Handler.__name = "agather.SignalHandler"

--- Calls f no more; again is harmless. A call that has begun goes on.
function Handler:close()
  self.listener:close()
  self.task:cancel()
end

Handler.__close = Handler.close

local function deliver(listener, f)
  local _ <close> = listener
  while true do
    agather.spawn(f, listener:wait())
  end
end

--- Calls f(name) in a task of its own each time the signal comes, until the handler is closed or the run ends. What f
--- raises goes to the loop's exception handler.
---@param name string such as "SIGHUP"
---@param f fun(name: string)
---@return agather.SignalHandler handler with :close(), also <close>
function signal.on(name, f)
  check_names("on", name)
  check.callable(f, 2, "on")
  local listener = uv.signal_listener("signal.on", name)
  local task = agather.create_task(agather.async(deliver, "signal.on " .. name)(listener, f))
  return setmetatable({ listener = listener, task = task }, Handler)
end

return signal
