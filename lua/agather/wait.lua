-- wait, as_completed and shield: other ways than gather to wait for several, or to be left alone. asyncio, 3.11 and
-- 3.13 (as_completed gives the tasks themselves).
local agather = require "agather"
local check = require "agather.check"

local module = {}

-- A list of futures that are cancelled when the scope ends, unless they are `kept`: what was scheduled here is known to
-- nobody else where the rest then fails, at a limit of the host.
local Scheduled = {}

function Scheduled:__close()
  if self.kept then return end
  for _, future in ipairs(self) do future:cancel() end
end

local function schedule(item, scheduled)
  local future = agather.ensure_future(item)
  if future ~= item then scheduled[#scheduled + 1] = future end
  return future
end

-- Schedules what is in the list; returns the futures, each once, in order.
local function futures_of(list, name, scheduled)
  local futures, seen = {}, {}
  for place = 1, check.awaitables(list, 1, name) do
    local item = list[place]
    local future = seen[item] or schedule(item, scheduled)
    if not seen[item] and not seen[future] then futures[#futures + 1] = future end
    seen[item], seen[future] = future, future
  end
  return futures
end

-- Calls `leave` when the scope ends, also by an error.
local function on_leave(leave) return setmetatable({}, { __close = leave }) end

local wait_options = { timeout = true, return_when = true }
local return_whens = { FIRST_COMPLETED = true, FIRST_EXCEPTION = true, ALL_COMPLETED = true }

--- Waits for some or all of a list. Never raises for a failure of theirs, never cancels them.
---@async
---@param list any[] awaitables; coros are scheduled
---@param options? { timeout?: number, return_when?: string }
---@return table done, table pending both in the order of the list
function module.wait(list, options)
  options = check.options(options, wait_options, 2, "wait")
  local return_when = options.return_when or "ALL_COMPLETED"
  check.seconds(options.timeout, 2, "wait", true)
  if not return_whens[return_when] then
    check.fail(2, "wait", ("option 'return_when' has no value '%s'"):format(tostring(return_when)))
  end
  if check.list(list, 1, "wait") == 0 then check.fail(1, "wait", "the list is empty") end
  local loop = agather.get_running_loop()
  local scheduled <close> = setmetatable({}, Scheduled)
  local futures = futures_of(list, "wait", scheduled)
  local waiter = loop:create_future()
  local function release()
    if not waiter:done() then waiter:set_result() end
  end
  local timer
  local left = #futures
  local function completed(future)
    left = left - 1
    if left <= 0 or return_when == "FIRST_COMPLETED"
      or return_when == "FIRST_EXCEPTION" and not future:cancelled() and future:exception() ~= nil then
      if timer then timer:cancel() end
      release()
    end
  end
  do
    local _ <close> = on_leave(function()
      if timer then timer:cancel() end
      for _, future in ipairs(futures) do future:remove_done_callback(completed) end
    end)
    timer = options.timeout and loop:call_later(options.timeout, release)
    for _, future in ipairs(futures) do future:add_done_callback(completed) end
    scheduled.kept = true
    waiter:await()
  end
  local done, pending = {}, {}
  for _, future in ipairs(futures) do
    local group = future:done() and done or pending
    group[#group + 1] = future
  end
  return done, pending
end

local as_completed_options = { timeout = true, progress = true }

--- Iterates over the tasks of a list as they are done: `for task in agather.as_completed(list) do`.
--- The iteration raises TimeoutError when the time is over; the others run on.
---@async
---@param list any[] awaitables; coros are scheduled
---@param options? { timeout?: number, progress?: boolean|fun(done: integer, total: integer, failed: integer) }
function module.as_completed(list, options)
  options = check.options(options, as_completed_options, 2, "as_completed")
  check.seconds(options.timeout, 2, "as_completed", true)
  check.progress(options.progress, 2, "as_completed")
  local loop = agather.get_running_loop()
  local scheduled <close> = setmetatable({}, Scheduled)
  local futures = futures_of(list, "as_completed", scheduled)
  local finished = agather.Queue()
  local given, done, failed = 0, 0, 0
  local report = options.progress and require("agather.progress").start(options.progress, #futures)
  local timer
  local late = false
  local function completed(future)
    if late then return end -- its call was scheduled before the time was over
    finished:put_nowait(future)
    if report then
      done = done + 1
      if future:cancelled() or future:exception() ~= nil then failed = failed + 1 end
      report.update(done, failed)
    end
  end
  local function forget()
    for _, future in ipairs(futures) do future:remove_done_callback(completed) end
  end
  local function leave()
    if timer then timer:cancel() end
    forget()
    if report then report.finish() end
  end
  local _ <close> = on_leave(function()
    if not scheduled.kept then leave() end
  end)
  for _, future in ipairs(futures) do future:add_done_callback(completed) end
  if options.timeout and #futures > 0 then
    timer = loop:call_later(options.timeout, function()
      late = true
      forget()
      finished:shutdown()
    end)
  end
  local function following()
    if given == #futures then return nil end
    given = given + 1
    local ok, future = pcall(finished.get, finished)
    if ok then return future end
    error(agather.is_error(future, agather.QueueShutDown) and agather.TimeoutError() or future, 0)
  end
  local scope = setmetatable({}, { __close = leave, __gc = leave })
  scheduled.kept = true
  return following, nil, nil, scope
end

--- A future that ends as the awaitable does, but whose cancellation does not reach it.
---@param awaitable any
function module.shield(awaitable)
  check.awaitable(awaitable, 1, "shield")
  local scheduled <close> = setmetatable({}, Scheduled)
  local inner = schedule(awaitable, scheduled)
  if inner:done() then return inner end
  local outer = inner:get_loop():create_future()
  local function inner_done()
    if outer:cancelled() then
      if not inner:cancelled() then inner:exception() end
    elseif inner:cancelled() then
      outer:cancel()
    elseif inner:exception() ~= nil then
      outer:set_exception(inner:exception())
    else
      outer:set_result(inner:result())
    end
  end
  inner:add_done_callback(inner_done)
  outer:add_done_callback(function()
    if not inner:done() then inner:remove_done_callback(inner_done) end
  end)
  scheduled.kept = true
  return outer
end

return module
