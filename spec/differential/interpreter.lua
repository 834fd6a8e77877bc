-- Runs a program of generator.lua with agather on the virtual clock and returns its trace, a list of lines.
-- interpreter.py does the same with asyncio, statement for statement: change both together. The statements about locks
-- and queues, contexts, generators and the loop are in files of their own, as there.
local agather = require "agather"
local shown = require "spec.differential.shown"

local describe, describe_error, new_error = shown.value, shown.error, shown.new_error

local MOST_COROS, MOST_STATEMENTS = 60, 3000 -- beyond these, bodies are empty and statements do nothing
local END_OF_TIME = 1000 -- who still waits then, waits for ever

local Interpreter = {}
Interpreter.__index = Interpreter

local run = {} -- op -> function(self, frame, statement), which may return true: the body returns

local function on_close(f) return setmetatable({}, { __close = function(_, err) f(err) end }) end

function Interpreter:log(frame, text)
  if not self.tracing then return end
  self.trace[#self.trace + 1] = ("%g %s %s"):format(self.loop:time() - self.start, frame.name, text)
end

-- The same, and counts how it ended: at once or after something else had happened, with or without an error.
function Interpreter:counted(frame, statement)
  self.active = frame
  local before = self.loop:time()
  local ok, result = pcall(run[statement.op], self, frame, statement)
  local waited = self.active ~= frame or self.loop:time() ~= before
  self.active = frame
  local how = ok and "ends" or describe_error(result):match("^%a+") or "error"
  if how == "u" then how = "an error of the program" end
  how = how .. (waited and " after a wait" or " at once")
  local counts = self.counts[statement.op] or {}
  self.counts[statement.op] = counts
  counts[how] = (counts[how] or 0) + 1
  if ok then return result end
  if not statement.guard then error(result, 0) end
  self:log(frame, statement.op .. " raises " .. describe_error(result))
end

function Interpreter:statement(frame, statement)
  self.steps = self.steps + 1
  if self.steps > MOST_STATEMENTS then return end
  if self.counts then return self:counted(frame, statement) end
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

-- What the statements of a body run in, once: each call of this is another coro with its own name.
function Interpreter:new_frame(number)
  self.coros = self.coros + 1
  local statements = self.coros <= MOST_COROS and self.program.bodies[number] or {}
  return { name = ("b%d.%d"):format(number, self.coros), level = number, timeouts = {}, groups = {} }, statements
end

-- The function of a body, once.
function Interpreter:body(number)
  local frame, statements = self:new_frame(number)
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
  if statement.list then
    return agather.gather_list(values, { return_exceptions = statement.return_exceptions }), level
  end
  if statement.return_exceptions then values[#values + 1] = { return_exceptions = true } end
  return agather.gather(table.unpack(values)), level
end

function Interpreter:callback(frame, statement)
  local inner = { name = statement.label, level = frame.level, timeouts = {}, groups = {} }
  return function(given)
    if type(given) == "userdata" then
      self:log(inner, ("is called, done %s"):format(given:done()))
    else
      self:log(inner, "is called with " .. describe(given))
    end
    self:block(inner, statement.actions)
  end
end

-- ---- statements that do not wait ----

function run.log(self, frame, statement) self:log(frame, statement.label) end

function run.spawn(self, _, statement)
  local body = self:body(statement.body)
  local options = { name = statement.name, context = self.contexts[statement.context], eager_start = statement.eager }
  local task
  if next(options) then
    task = agather.create_task(make[statement.form == "spawn" and "coro" or statement.form](body), options)
  elseif statement.form == "spawn" then
    task = agather.spawn(body)
  elseif statement.form == "coro" then
    task = self.loop:create_task(make.coro(body))
  else
    task = agather.create_task(make[statement.form](body))
  end
  self.tasks[statement.slot] = { value = task, level = statement.body, name = "t" .. statement.slot }
end

function run.ensure_future(self, frame, statement)
  local entry = self:awaitable(frame, statement.target)
  if not entry then return end
  local future = agather.ensure_future(entry.value)
  if not statement.target.body then -- what is one already stays itself
    self:log(frame, ("%s stays itself %s"):format(entry.name, future == entry.value))
    return
  end
  self.tasks[statement.slot] = { value = future, level = entry.level, name = "t" .. statement.slot }
end

function run.new_future(self, _, statement)
  local future = statement.of_loop and self.loop:create_future() or agather.future()
  self.futures[statement.slot] = { value = future, level = math.huge, name = "f" .. statement.slot }
end

function run.coro_close(self, _, statement)
  local coro = self:coro(statement.body)
  coro:close()
  if statement.again then coro:close() end
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
  local here = value:get_loop() == self.loop and agather.is_awaitable(value)
  self:log(frame, ("%s done %s cancelled %s%s here %s"):format(
    target.name, value:done(), value:cancelled(), cancelling, here))
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

function run.reschedule(self, frame, statement)
  local scope = frame.timeouts[#frame.timeouts]
  if scope then scope:reschedule(statement.delay and self.loop:time() + statement.delay) end
end

function run.reschedule_closed(self)
  if self.closed_scope then self.closed_scope:reschedule(self.loop:time() + 1) end
end

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
  local ok, result
  if statement.errors_only == "handler" then
    ok, result = agather.xpcall(self.block, function(err) return err end, self, frame, statement.block)
  else
    ok, result = (statement.errors_only and agather.pcall or pcall)(self.block, self, frame, statement.block)
  end
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

function run.sleep(self, frame, statement)
  local result = agather.sleep(statement.delay, statement.value)
  if result ~= nil then self:log(frame, "slept " .. result) end
end

function run.await(self, frame, statement)
  local entry = self:awaitable(frame, statement.target)
  if not entry then return end
  local result
  if statement.method then result = entry.value:await() else result = agather.await(entry.value) end
  self:log(frame, ("%s gives %s"):format(entry.name, describe(result)))
end

function run.await_twice(self, frame, statement)
  local coro = self:coro(statement.body)
  self:log(frame, "once " .. describe(coro:await()))
  coro:await()
end

function run.gather(self, frame, statement)
  self:log(frame, "gather gives " .. describe(self:gather(frame, statement):await()))
end

function run.await_itself() agather.await(agather.current_task()) end

function run.cancel_itself(self, frame, statement)
  self:log(frame, ("cancels itself %s"):format(agather.current_task():cancel(statement.message)))
end

function run.uncancel(self, frame) self:log(frame, ("uncancel %d"):format(agather.current_task():uncancel())) end

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
    self.closed_scope = scope
    local when = scope:when() and ("%g"):format(scope:when() - self.start)
    self:log(frame, ("timeout of %s expired %s"):format(when, scope:expired()))
  end)
  local seconds = statement.timeout
  if statement.at then
    scope = agather.timeout_at(seconds and self.loop:time() + seconds)
  else
    scope = agather.timeout(seconds)
  end
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
  local body = self:body(statement.body)
  local task = statement.form == "spawn" and group:spawn(body) or group:create_task(make.coro(body))
  self.tasks[statement.slot] = { value = task, level = statement.body, name = "t" .. statement.slot }
end

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

-- What the loop's exception handler is told; that of errors which nobody asked for comes earlier than asyncio's.
function Interpreter:on_exception(context)
  local frame = { name = "handler" }
  if context.message:find("^Exception in callback") then
    local whose = context.message:find("lua/agather/", 1, true) and "library's callback" or "callback"
    self:log(frame, ("%s raises %s"):format(whose, describe_error(context.exception)))
  elseif context.message:find("^told") then
    self:log(frame, ("%s %s"):format(context.message, describe(context.exception)))
  end
end

function Interpreter:begin()
  local objects = self.program.objects
  self.loop = agather.get_running_loop()
  self.start = self.loop:time()
  self.first_number = math.tointeger(agather.current_task():get_name():match("^Task%-(%d+)$"))
  self.loop:set_exception_handler(function(context) self:on_exception(context) end)
  self.loop:call_later(END_OF_TIME, function() self.tracing = false end)
  for slot = 1, objects.futures do
    self.futures[slot] = { value = agather.future(), level = math.huge, name = "f" .. slot }
  end
  self:make_objects(objects)
end

function Interpreter:run_main(statements)
  self.mains = self.mains + 1
  if self.mains == 1 then self:begin() end
  local name = "main" .. (self.mains > 1 and self.mains or "")
  local frame = { name = name, level = 0, timeouts = {}, groups = {} }
  self.main = { value = agather.current_task(), level = 0, name = name }
  local ok, err = pcall(self.block, self, frame, statements)
  self:log(frame, ok and "ends" or "ends with " .. describe_error(err))
  self:log_states(frame)
end

for _, part in ipairs { "sync", "contexts", "generators", "loops" } do
  require("spec.differential." .. part)(run, Interpreter)
end

local interpreter = { statements = run }

--- Runs a program.
---@param program table
---@param counts? table<string, table<string, integer>> gets, for each op, how often it ended in which way
---@return string[] trace
function interpreter.run(program, counts)
  local self = setmetatable({
    program = program,
    counts = counts,
    tracing = true,
    trace = {},
    steps = 0,
    coros = 0,
    mains = 0,
    tasks = {},
    futures = {},
    groups = {},
    handles = {},
    callbacks = {},
    contexts = {},
    tokens = {},
    generators = {},
  }, Interpreter)
  local runner <close> = agather.Runner { clock = "virtual" }
  local deadlock
  self.variable, self.bare = agather.ContextVar("variable", "unset"), agather.ContextVar("bare")
  for _, statements in ipairs { program.main, table.unpack(program.mains or {}) } do
    local ok, err = pcall(runner.run, runner, function() self:run_main(statements) end)
    if not ok then
      deadlock = agather.is_error(err, agather.DeadlockError)
      self.trace[#self.trace + 1] = deadlock and "deadlock" or "run raises " .. describe_error(err)
      if deadlock then break end
    end
  end
  local left = deadlock and {} or runner:run(agather.all_tasks)
  local last = #left == 2 and left[left[1]:done() and 2 or 1] -- the task that has asked is done
  if last and not last:done() then
    self.trace[#self.trace + 1] = "shutdown"
    last:add_done_callback(function() self.tracing = false end)
    runner:close()
  end
  self.tracing = false
  return self.trace
end

return interpreter
