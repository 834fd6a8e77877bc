-- TaskGroup: a scope that does not end before its tasks. asyncio.TaskGroup (3.13).
local agather = require "agather"
local check = require "agather.check"

local TaskGroup = {}
TaskGroup.__index = TaskGroup
TaskGroup.__name = "TaskGroup"

local function is_cancellation(err) return agather.is_error(err, agather.CancelledError) end
local function is_interrupt(err) return agather.is_error(err, agather.KeyboardInterrupt) end

local function abort(self)
  self.aborting = true
  local running = {}
  for task in pairs(self.tasks) do running[#running + 1] = task end
  table.sort(running, function(a, b) return self.tasks[a] < self.tasks[b] end)
  for _, task in ipairs(running) do
    if not task:done() then task:cancel() end
  end
end

local function task_done(self, task)
  self.tasks[task] = nil
  self.running = self.running - 1
  if self.completed and self.running == 0 and not self.completed:done() then self.completed:set_result() end
  if task:cancelled() then return end
  local err = task:exception()
  if err == nil then return end
  self.errors[#self.errors + 1] = err
  if is_interrupt(err) and not self.interrupt then self.interrupt = err end
  if self.parent:done() then
    self.loop:call_exception_handler {
      message = "Task " .. task:get_name() .. " has failed but its parent task is done already",
      exception = err,
      task = task,
    }
    return
  end
  if not self.aborting and not self.cancelled_parent then
    abort(self)
    self.cancelled_parent = true
    self.parent:cancel()
  end
end

local function refuse(self, awaitable, why)
  if type(awaitable) == "userdata" and agather.is_awaitable(awaitable) and awaitable.close then awaitable:close() end
  error(agather.RuntimeError(("%s %s"):format(tostring(self), why)), 0)
end

local function add(self, task)
  local ok, err = pcall(task.add_done_callback, task, self.on_done)
  if not ok then -- no room for a callback: the group would wait for it in vain
    task:cancel()
    error(err, 0)
  end
  self.created = self.created + 1
  self.running = self.running + 1
  self.tasks[task] = self.created
  return task
end

local function check_open(self, awaitable)
  if self.exiting and self.running == 0 then refuse(self, awaitable, "is finished") end
  if self.aborting then refuse(self, awaitable, "is shutting down") end
end

local task_options = { name = true, context = true, eager_start = true }

-- What the core would say of the options, with the line of the script.
local function check_options(options)
  check.options(options, task_options, 2, "create_task")
  local context = options.context
  if context ~= nil and check.type_name(context) ~= "Context" then
    check.fail(2, "create_task", "option 'context' must be a Context, got " .. check.type_name(context))
  end
end

--- Starts a task that the group waits for.
---@param awaitable any a coro, function or thread that was not started
---@param options? table as of agather.create_task
function TaskGroup:create_task(awaitable, options)
  check.awaitable(awaitable, 1, "create_task")
  local kind = check.type_name(awaitable)
  if kind == "Future" or kind == "Task" then
    check.fail(1, "create_task", "coroutine expected, got a future or task that is scheduled already")
  end
  if options ~= nil then check_options(options) end
  check_open(self, awaitable)
  return add(self, agather.create_task(awaitable, options))
end

--- Starts a task that runs f(...).
---@param f function
function TaskGroup:spawn(f, ...)
  check.callable(f, 1, "spawn")
  check_open(self)
  return add(self, agather.spawn(f, ...))
end

local function group_error(errors)
  local traces = {}
  for place, err in ipairs(errors) do
    traces[place] = ("[%d] %s\n%s"):format(place, tostring(err), err.traceback or "")
  end
  local message = ("unhandled errors in a TaskGroup (%d sub-exception%s)"):format(#errors, #errors == 1 and "" or "s")
  return agather.ExceptionGroup(message, { exceptions = errors, traceback = table.concat(traces, "\n") })
end

-- Waits for all tasks, however often the parent is cancelled meanwhile. Returns the cancellation to pass on.
local function wait_for_tasks(self, cancellation)
  while self.running > 0 do
    self.completed = self.completed or self.loop:create_future()
    local ok, err = pcall(self.completed.await, self.completed)
    if not ok then
      if not is_cancellation(err) then error(err, 0) end
      if not self.aborting then
        cancellation = err
        abort(self)
      end
    end
    self.completed = nil
  end
  return cancellation
end

-- An interrupt goes on alone: the other errors are told to the exception handler.
local function interrupt(self)
  for _, err in ipairs(self.errors) do
    if err ~= self.interrupt then
      self.loop:call_exception_handler { message = "Task of a TaskGroup failed while it was interrupted", exception = err }
    end
  end
  error(self.interrupt, 0)
end

function TaskGroup:__close(err)
  self.exiting = true
  if is_interrupt(err) and not self.interrupt then self.interrupt = err end
  if err ~= nil and not self.aborting then abort(self) end
  local cancellation = wait_for_tasks(self, is_cancellation(err) and err or nil)
  if self.interrupt then interrupt(self) end
  if self.cancelled_parent and self.parent:uncancel() == 0 then cancellation = nil end
  if cancellation and #self.errors == 0 then error(cancellation, 0) end
  if err ~= nil and not is_cancellation(err) then self.errors[#self.errors + 1] = agather.error_object(err) end
  if #self.errors > 0 then
    if self.parent:cancelling() > 0 then -- a cancellation from outside is raised again at the next wait
      self.parent:uncancel()
      self.parent:cancel()
    end
    error(group_error(self.errors), 0)
  end
end

-- Without `local group <close>` nobody is told of the errors in another way.
function TaskGroup:__gc()
  if self.exiting then return end
  for _, err in ipairs(self.errors) do
    self.loop:call_exception_handler {
      message = "Task of a TaskGroup failed, and the group was not left: make it by local group <close>",
      exception = err,
    }
  end
end

function TaskGroup:__tostring()
  local state = self.aborting and " cancelling" or self.exiting and " exiting" or ""
  return ("<TaskGroup tasks=%d errors=%d%s>"):format(self.running, #self.errors, state)
end

local module = {}

--- A scope of tasks: `local group <close> = agather.TaskGroup()`. Leaving it waits for all of them; the first failure
--- cancels the others, and the failures are raised together as one ExceptionGroup with `.exceptions`.
function module.TaskGroup()
  local parent = agather.current_task()
  if not parent then error(agather.RuntimeError("TaskGroup: use it inside a task"), 2) end
  local self = setmetatable({
    parent = parent,
    loop = parent:get_loop(),
    tasks = {}, -- running task -> number in the order of creation
    running = 0,
    created = 0,
    errors = {},
    aborting = false,
    exiting = false,
  }, TaskGroup)
  function self.on_done(task) task_done(self, task) end
  return self
end

return module
