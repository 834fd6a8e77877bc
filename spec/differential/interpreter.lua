-- Runs a program of generator.lua with agather on the virtual clock and returns its trace, a list of lines.
-- interpreter.py does the same with asyncio, statement for statement: change both together.
local agather = require "agather"

local MOST_COROS, MOST_STATEMENTS = 60, 3000 -- beyond these, bodies are empty and statements do nothing
local END_OF_TIME = 1000 -- who still waits then, waits for ever
local DEEPEST = 4 -- of the lists in lists that are shown

-- ---- how values and errors look in the trace ----

local kinds = {
  "CancelledError", "TimeoutError", "InvalidStateError", "QueueEmpty", "QueueFull", "BrokenBarrierError",
  "ExceptionGroup",
}

local UserError = agather.Error:subclass("UserError")

local function new_error(label, form)
  if form == "string" then return label end
  if form == "table" then return { label = label } end
  return form == "object" and agather.Error(label) or UserError(label)
end

local function is_label(text) return type(text) == "string" and text:find("^u%d+$") ~= nil end

local function describe_error(err)
  if is_label(err) then return err end
  if type(err) == "table" and rawget(err, "label") then return err.label end
  if not agather.is_error(err) then return "error" end
  if err.value ~= err then return describe_error(err.value) end
  for _, kind in ipairs(kinds) do
    if agather.is_error(err, agather[kind]) then
      if kind == "CancelledError" and err.message ~= "" then return kind .. ":" .. tostring(err.message) end
      if kind ~= "ExceptionGroup" then return kind end
      local inner = {}
      for place, exception in ipairs(err.exceptions) do inner[place] = describe_error(exception) end
      return kind .. "[" .. table.concat(inner, ", ") .. "]"
    end
  end
  return is_label(err.message) and err.message or "error"
end

local function describe(value, depth)
  if type(value) ~= "table" then return tostring(value) end
  -- In lists asyncio loses the messages of cancellations.
  if agather.is_error(value, agather.CancelledError) then return "CancelledError" end
  if agather.is_error(value) then return describe_error(value) end
  depth = depth or 0
  if depth == DEEPEST then return ("[%d items]"):format(value.n) end
  local items = {}
  for place = 1, value.n do items[place] = describe(value[place], depth + 1) end
  return "[" .. table.concat(items, ", ") .. "]"
end

-- ---- the interpreter ----

local Interpreter = {}
Interpreter.__index = Interpreter

local run = {} -- op -> function(self, frame, statement), which may return true: the body returns

local function on_close(f) return setmetatable({}, { __close = function(_, err) f(err) end }) end

function Interpreter:log(frame, text)
  if not self.tracing then return end
  self.trace[#self.trace + 1] = ("%g %s %s"):format(self.loop:time() - self.start, frame.name, text)
end

function Interpreter:statement(frame, statement)
  self.steps = self.steps + 1
  if self.steps > MOST_STATEMENTS then return end
  if not statement.guard then return run[statement.op](self, frame, statement) end
  local ok, err = pcall(run[statement.op], self, frame, statement)
  if not ok then self:log(frame, statement.op .. " raises " .. describe_error(err)) end
end

-- True when a statement returned from the body; frame.result is its result.
function Interpreter:block(frame, statements)
  for _, statement in ipairs(statements) do
    if self:statement(frame, statement) then return true end
  end
end

-- The function of a body, once: each call of this is another coro with its own name.
function Interpreter:body(number)
  self.coros = self.coros + 1
  local statements = self.coros <= MOST_COROS and self.program.bodies[number] or {}
  local frame = { name = ("b%d.%d"):format(number, self.coros), level = number, timeouts = {}, groups = {} }
  return function()
    local _ <close> = on_close(function(err)
      if err ~= nil then self:log(frame, "ends with " .. describe_error(err)) end
    end)
    self:log(frame, "starts")
    self:block(frame, statements)
    self:log(frame, "ends")
    return frame.result
  end
end

-- The forms in which a body may be awaited or started.
local make = {
  coro = function(body) return agather.async(body)() end,
  ["function"] = function(body) return body end,
  thread = coroutine.create,
}

function Interpreter:coro(number) return make.coro(self:body(number)) end

-- What a slot holds: { value, level, name }, or nil. The level of a group is the lowest of what is in it.
function Interpreter:target(reference)
  if reference.kind == "task" then return self.tasks[reference.slot] end
  if reference.kind == "future" then return self.futures[reference.slot] end
  if reference.kind == "group" then return self.groups[reference.slot] end
  if reference.kind == "main" then return self.main end
end

-- The same for what may be awaited; nil also for what this frame must not wait for.
function Interpreter:awaitable(frame, reference)
  if reference.body then
    local value = make[reference.kind](self:body(reference.body))
    return { value = value, level = reference.body, name = "b" .. reference.body }
  end
  local target = self:target(reference)
  if target and target.level > frame.level then return target end
end

function Interpreter:awaitables(frame, items)
  local made, list, values = {}, {}, {}
  local level = math.huge
  for place, item in ipairs(items) do
    local entry
    if item.kind == "same" then entry = made[item.index] else entry = self:awaitable(frame, item) end
    made[place] = entry
    if entry then
      list[#list + 1], values[#values + 1] = entry, entry.value
      level = math.min(level, entry.level)
    end
  end
  return values, level, list
end

function Interpreter:gather(frame, statement)
  local values, level = self:awaitables(frame, statement.items)
  if statement.return_exceptions then values[#values + 1] = { return_exceptions = true } end
  return agather.gather(table.unpack(values)), level
end

function Interpreter:callback(frame, statement)
  local inner = { name = statement.label, level = frame.level, timeouts = {}, groups = {} }
  return function(future)
    self:log(inner, future and ("is called, done %s"):format(future:done()) or "is called")
    self:block(inner, statement.actions)
  end
end

-- ---- statements that do not wait ----

function run.log(self, frame, statement) self:log(frame, statement.label) end

function run.spawn(self, _, statement)
  local body = self:body(statement.body)
  local task
  if statement.form == "spawn" then
    task = agather.spawn(body)
  else
    task = agather.create_task(make[statement.form](body))
  end
  self.tasks[statement.slot] = { value = task, level = statement.body, name = "t" .. statement.slot }
end

function run.cancel(self, frame, statement)
  local target = self:target(statement.target)
  if target then self:log(frame, ("cancel %s %s"):format(target.name, target.value:cancel(statement.message))) end
end

function run.set_result(self, _, statement) self:target(statement.target).value:set_result(statement.value) end

function run.set_exception(self, _, statement)
  self:target(statement.target).value:set_exception(new_error(statement.label, statement.form))
end

function run.query(self, frame, statement)
  local target = self:target(statement.target)
  if not target then return end
  local value = target.value
  local cancelling = statement.target.kind == "task" and " cancelling " .. value:cancelling() or ""
  self:log(frame, ("%s done %s cancelled %s%s"):format(target.name, value:done(), value:cancelled(), cancelling))
end

function run.result(self, frame, statement)
  local target = self:target(statement.target)
  if target then self:log(frame, ("%s has result %s"):format(target.name, describe(target.value:result()))) end
end

function run.exception(self, frame, statement)
  local target = self:target(statement.target)
  if not target then return end
  local err = target.value:exception()
  self:log(frame, ("%s has exception %s"):format(target.name, err == nil and "nil" or describe_error(err)))
end

function run.call_soon(self, frame, statement)
  self.handles[statement.slot] = self.loop:call_soon(self:callback(frame, statement))
end

function run.call_later(self, frame, statement)
  self.handles[statement.slot] = self.loop:call_later(statement.delay, self:callback(frame, statement))
end

function run.cancel_handle(self, frame, statement)
  local handle = self.handles[statement.slot]
  if not handle then return end
  handle:cancel()
  self:log(frame, ("handle cancelled %s"):format(handle:cancelled()))
end

function run.add_done_callback(self, frame, statement)
  local target = self:target(statement.target)
  if not target then return end
  local callback = self:callback(frame, statement)
  self.callbacks[statement.slot] = callback
  target.value:add_done_callback(callback)
end

function run.remove_done_callback(self, frame, statement)
  local target, callback = self:target(statement.target), self.callbacks[statement.slot]
  if not target or not callback then return end
  self:log(frame, ("removed %d"):format(target.value:remove_done_callback(callback)))
end

function run.make_gather(self, frame, statement)
  local group, level = self:gather(frame, statement)
  self.groups[statement.slot] = { value = group, level = level, name = "g" .. statement.slot }
end

function run.make_shield(self, frame, statement)
  local entry = self:awaitable(frame, statement.target)
  if not entry then return end
  local outer = agather.shield(entry.value)
  self.groups[statement.slot] = { value = outer, level = entry.level, name = "g" .. statement.slot }
end

function run.lock_release(self) self.lock:release() end
function run.event_set(self) self.event:set() end
function run.event_clear(self) self.event:clear() end
function run.semaphore_release(self) self.semaphore:release() end
function run.queue_put_nowait(self, _, statement) self.queues[statement.slot]:put_nowait(statement.value) end

function run.queue_get_nowait(self, frame, statement)
  self:log(frame, "queue gives " .. describe(self.queues[statement.slot]:get_nowait()))
end

function run.queue_task_done(self, _, statement) self.queues[statement.slot]:task_done() end
function run.notify(self, _, statement) self.condition:notify(statement.count) end

function run.reschedule(self, frame, statement)
  local scope = frame.timeouts[#frame.timeouts]
  if scope then scope:reschedule(statement.delay and self.loop:time() + statement.delay) end
end

function run.variable_get(self, frame) self:log(frame, "variable " .. describe(self.variable:get())) end

-- ---- statements for tasks ----

run["return"] = function(_, frame, statement)
  frame.result = statement.value
  return true
end

run["raise"] = function(_, _, statement) error(new_error(statement.label, statement.form), 0) end

run["repeat"] = function(self, frame, statement)
  for _ = 1, statement.count do
    if self:block(frame, statement.block) then return true end
  end
end

function run.try(self, frame, statement)
  local call = statement.errors_only and agather.pcall or pcall
  local ok, result = call(self.block, self, frame, statement.block)
  if ok then return result end
  self:log(frame, "catches " .. describe_error(result))
  if self:block(frame, statement.handler) then return true end
  if statement.rethrow then error(result, 0) end
end

function run.finally(self, frame, statement)
  local _ <close> = on_close(function()
    self:log(frame, "finally")
    self:block(frame, statement.final)
  end)
  return self:block(frame, statement.block)
end

function run.turn() agather.sleep(0) end
function run.sleep(_, _, statement) agather.sleep(statement.delay) end

function run.await(self, frame, statement)
  local entry = self:awaitable(frame, statement.target)
  if not entry then return end
  local result
  if statement.method then result = entry.value:await() else result = agather.await(entry.value) end
  self:log(frame, ("%s gives %s"):format(entry.name, describe(result)))
end

function run.gather(self, frame, statement)
  self:log(frame, "gather gives " .. describe(self:gather(frame, statement):await()))
end

function run.await_itself() agather.await(agather.current_task()) end

function run.cancel_itself(self, frame, statement)
  self:log(frame, ("cancels itself %s"):format(agather.current_task():cancel(statement.message)))
end

function run.uncancel(self, frame) self:log(frame, ("uncancel %d"):format(agather.current_task():uncancel())) end

function run.lock(self, frame, statement)
  local _ <close> = self.lock:acquire()
  self:log(frame, "has the lock")
  return self:block(frame, statement.block)
end

function run.event_wait(self, frame)
  self.event:wait()
  self:log(frame, "event")
end

function run.semaphore(self, frame, statement)
  local _ <close> = self.semaphore:acquire()
  self:log(frame, "has the semaphore")
  return self:block(frame, statement.block)
end

function run.semaphore_acquire(self, frame)
  self.semaphore:acquire()
  self:log(frame, "took the semaphore")
end

function run.queue_put(self, frame, statement)
  self.queues[statement.slot]:put(statement.value)
  self:log(frame, "queue takes " .. statement.value)
end

function run.queue_get(self, frame, statement)
  self:log(frame, "queue gives " .. describe(self.queues[statement.slot]:get()))
end

function run.queue_join(self, frame, statement)
  self.queues[statement.slot]:join()
  self:log(frame, "queue joined")
end

function run.condition(self, frame, statement)
  local _ <close> = self.condition:acquire()
  self:log(frame, "has the condition")
  return self:block(frame, statement.block)
end

function run.condition_wait(self, frame)
  self.condition:wait()
  self:log(frame, "condition")
end

function run.barrier_wait(self, frame) self:log(frame, ("barrier %d"):format(self.barrier:wait())) end
function run.barrier_reset(self) self.barrier:reset() end
function run.barrier_abort(self) self.barrier:abort() end

function run.wait(self, frame, statement)
  local values, _, entries = self:awaitables(frame, statement.items)
  if #values == 0 then return end
  local names = {}
  for _, entry in ipairs(entries) do names[entry.value] = names[entry.value] or entry.name end
  local done, pending = agather.wait(values, {
    timeout = statement.timeout, return_when = agather[statement.return_when],
  })
  local function list(futures)
    local text = {}
    for place, future in ipairs(futures) do text[place] = names[future] end
    return table.concat(text, " ")
  end
  self:log(frame, ("wait done [%s] pending [%s]"):format(list(done), list(pending)))
end

function run.as_completed(self, frame, statement)
  local values = self:awaitables(frame, statement.items)
  local count = 0
  for future in agather.as_completed(values, { timeout = statement.timeout }) do
    count = count + 1
    local ok, result = pcall(future.await, future)
    self:log(frame, "completed " .. (ok and describe(result) or describe_error(result)))
    if count == statement.limit then break end
  end
  self:log(frame, "as_completed ends")
end

function run.wait_for(self, frame, statement)
  local entry = self:awaitable(frame, statement.target)
  if not entry then return end
  local result = agather.wait_for(entry.value, statement.timeout)
  self:log(frame, ("wait_for %s gives %s"):format(entry.name, describe(result)))
end

function run.timeout(self, frame, statement)
  local scope
  local _ <close> = on_close(function()
    frame.timeouts[#frame.timeouts] = nil
    self:log(frame, ("timeout expired %s"):format(scope:expired()))
  end)
  scope = agather.timeout(statement.timeout)
  local _ <close> = scope
  frame.timeouts[#frame.timeouts + 1] = scope
  return self:block(frame, statement.block)
end

function run.await_shield(self, frame, statement)
  local entry = self:awaitable(frame, statement.target)
  if not entry then return end
  self:log(frame, ("shield %s gives %s"):format(entry.name, describe(agather.await(agather.shield(entry.value)))))
end

function run.group(self, frame, statement)
  local _ <close> = on_close(function()
    frame.groups[#frame.groups] = nil
    self:log(frame, "group ends")
  end)
  local group <close> = agather.TaskGroup()
  frame.groups[#frame.groups + 1] = group
  return self:block(frame, statement.block)
end

function run.group_spawn(self, frame, statement)
  local group = frame.groups[#frame.groups]
  if not group then return end
  local task = group:create_task(self:coro(statement.body))
  self.tasks[statement.slot] = { value = task, level = statement.body, name = "t" .. statement.slot }
end

function run.variable_set(self, _, statement) self.variable:set(statement.value) end

-- ---- programs ----

-- What everything has come to.
function Interpreter:log_states(frame)
  local function state(future)
    if not future:done() then return "pending" end
    if future:cancelled() then return "cancelled" end
    local err = future:exception()
    if err ~= nil then return "failed " .. describe_error(err) end
    return "result " .. describe(future:result())
  end
  for _, slots in ipairs { self.tasks, self.futures, self.groups } do
    for slot = 1, 4 do
      local entry = slots[slot]
      if entry and (slots ~= self.futures or entry.value:done()) then
        self:log(frame, ("%s is %s"):format(entry.name, state(entry.value)))
      end
    end
  end
  for _, queue in ipairs(self.queues) do
    if not queue:empty() then self:log(frame, ("queue holds %d"):format(queue:qsize())) end
  end
end

function Interpreter:run_main()
  local objects = self.program.objects
  self.loop = agather.get_running_loop()
  self.start = self.loop:time()
  self.loop:set_exception_handler(function() end)
  self.loop:call_later(END_OF_TIME, function() self.tracing = false end)
  self.main = { value = agather.current_task(), level = 0, name = "main" }
  for slot = 1, objects.futures do
    self.futures[slot] = { value = agather.future(), level = math.huge, name = "f" .. slot }
  end
  for slot, queue in ipairs(objects.queues) do
    if agather[queue.kind] then self.queues[slot] = agather[queue.kind](queue.maxsize) end
  end
  local semaphore = objects.bounded and "BoundedSemaphore" or "Semaphore"
  if agather[semaphore] then self.semaphore = agather[semaphore](objects.semaphore) end
  if agather.Lock then self.lock = agather.Lock() end
  if agather.Event then self.event = agather.Event() end
  if agather.Condition then self.condition = agather.Condition() end
  if agather.Barrier then self.barrier = agather.Barrier(2) end
  if agather.ContextVar then self.variable = agather.ContextVar("variable", "unset") end
  local frame = { name = "main", level = 0, timeouts = {}, groups = {} }
  local ok, err = pcall(self.block, self, frame, self.program.main)
  self:log(frame, ok and "ends" or "ends with " .. describe_error(err))
  self:log_states(frame)
  self.tracing = false
end

local interpreter = {}

--- Runs a program.
---@param program table
---@return string[] trace
function interpreter.run(program)
  local self = setmetatable({
    program = program,
    tracing = true,
    trace = {},
    steps = 0,
    coros = 0,
    tasks = {},
    futures = {},
    groups = {},
    handles = {},
    callbacks = {},
    queues = {},
  }, Interpreter)
  local runner <close> = agather.Runner { clock = "virtual" }
  local ok, err = pcall(runner.run, runner, function() self:run_main() end)
  if not ok then
    local deadlock = agather.is_error(err, agather.DeadlockError)
    self.trace[#self.trace + 1] = deadlock and "deadlock" or "run raises " .. describe_error(err)
  end
  return self.trace
end

return interpreter
