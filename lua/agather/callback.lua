-- from_callback: what calls back becomes what can be awaited. The future settles once: the callbacks of a foreign API may
-- come twice, late, or after a cancellation, and must find nobody then.
local agather = require "agather"
local check = require "agather.check"

local module = {}

-- Calls the function that [start] gave when the future is cancelled.
local function stop_when_cancelled(future, stop)
  future:add_done_callback(function()
    if future:cancelled() then stop() end
  end)
end

--- A future that a callback settles: `agather.await(agather.from_callback(function(done, fail) ... end))`.
--- [start] runs at once. It hands `done` or a function that calls it to an API that calls back: `done(...)` gives the
--- results, `fail(err)` the error that the awaiter gets. The first call counts; later ones, and those that come after
--- the future was cancelled, do nothing. What `start` raises is raised here. A function that it returns is called when
--- the future is cancelled: it takes back what was started.
---@param start fun(done: fun(...), fail: fun(err: any)): function?
---@return Future
function module.from_callback(start)
  check.callable(start, 1, "from_callback")
  local future = agather.get_running_loop():create_future()
  local function done(...)
    if not future:done() then future:set_result(...) end
  end
  local function fail(err)
    if future:done() then return end
    if err == nil then err = agather.RuntimeError("from_callback: fail was called without an error") end
    future:set_exception(err)
  end
  local stop = start(done, fail)
  if stop ~= nil then
    if type(stop) ~= "function" then
      error(("from_callback: the function returned a %s (a function that takes back what was started, or nothing, "
        .. "expected)"):format(check.type_name(stop)), 2)
    end
    stop_when_cancelled(future, stop)
  end
  return future
end

return module
