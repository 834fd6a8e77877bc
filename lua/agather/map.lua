-- map, and gather_list with a limit or progress: many jobs, few at a time. A fixed number of tasks work; each takes
-- the next item when it has done one, so items are pulled only as places free up.
local agather = require "agather"
local check = require "agather.check"

local module = {}

local known = { limit = true, progress = true, return_exceptions = true, cancel_on_error = true }

local function check_options(options, name)
  options = check.options(options, known, 2, name)
  if options.limit ~= nil then check.count(options.limit, 2, name, "limit") end
  check.progress(options.progress, 2, name)
  return options
end

-- What the tasks share: a source of items, the results in their places, and the counts.
local Job = {}
Job.__index = Job

local function new_job(run, source, total, options)
  return setmetatable({
    run = run,
    source = source, -- returns true and an item, or false at the end
    results = { n = 0 },
    started = 0,
    done = 0,
    failed = 0,
    options = options,
    report = options.progress and require("agather.progress").start(options.progress, total),
    pulling = agather.Lock(),
    over = false,
  }, Job)
end

function Job:count(failed)
  self.done = self.done + 1
  if failed then self.failed = self.failed + 1 end
  if self.report then self.report.update(self.done, self.failed) end
end

-- Takes the next item: its place and the item, or nil. An iterator that waits is asked by one task at a time.
function Job:pull()
  if self.over then return nil end
  local _ <close> = self.pulling:acquire()
  if self.over then return nil end
  local more, item = self.source()
  if not more then
    self.over = true
    return nil
  end
  self.started = self.started + 1
  return self.started, item
end

local function with_traceback(err)
  if agather.is_error(err, agather.CancelledError) then return err end
  return agather.error_object(err, debug.traceback("", 2):gsub("^\n", ""))
end

-- Runs one item. An error ends the task and the pulling, unless errors are wanted as results; a cancellation of the
-- task itself goes on in any case.
function Job:work_on(item, place)
  self.results.n = math.max(self.results.n, place)
  local ok, value = xpcall(self.run, with_traceback, item, place)
  local stopped = not ok and agather.current_task():cancelling() > 0
  if not stopped then self:count(not ok) end
  if not ok and (stopped or not self.options.return_exceptions) then
    self.over = true
    error(value, 0)
  end
  self.results[place] = value
end

function Job:work()
  while true do
    local place, item = self:pull()
    if place == nil then return end
    self:work_on(item, place)
  end
end

-- Waits for the tasks as gather does. When the caller is cancelled, so are they, and all have ended before it goes on.
local function wait_for_all(tasks, options)
  local this = agather.current_task()
  local cancelling = this:cancelling()
  local group = agather.gather_list(tasks, { cancel_on_error = options.cancel_on_error })
  local ok, err = pcall(group.await, group)
  if ok then return end
  if agather.is_error(err, agather.CancelledError) and this:cancelling() > cancelling then
    for _, task in ipairs(tasks) do pcall(task.await, task) end
  end
  error(err, 0)
end

-- A list of tasks that are cancelled when the scope ends, and waited for, unless all of them are `there`: the source
-- failed, or waited and was cancelled, or there was no room for one more.
local Tasks = {}

function Tasks:__close()
  if self.there then return end
  for _, task in ipairs(self) do task:cancel() end
  for _, task in ipairs(self) do pcall(task.await, task) end
end

-- A fixed number of tasks, each of which takes one item after the other.
function Job:run_workers(limit)
  local workers <close> = setmetatable({}, Tasks)
  for place = 1, limit do workers[place] = agather.spawn(self.work, self) end
  workers.there = true
  wait_for_all(workers, self.options)
end

-- One task for each item, all at once: there is no limit.
function Job:run_all()
  local tasks <close> = setmetatable({}, Tasks)
  while true do
    local place, item = self:pull()
    if place == nil then break end
    tasks[place] = agather.spawn(self.work_on, self, item, place)
  end
  tasks.there = true
  wait_for_all(tasks, self.options)
end

function Job:finish(limit)
  local _ <close> = setmetatable({}, {
    __close = function()
      self.over = true
      if self.report then self.report.finish() end
    end,
  })
  if limit then
    self:run_workers(limit)
  else
    self:run_all()
  end
  return self.results
end

-- Results may be awaited, which gives them again: map is called plainly, but who awaits it is not wrong.
local results_metatable = { __await = function(results) return results end }
results_metatable.__index = { await = results_metatable.__await }

local function list_source(list, length)
  local place = 0
  return function()
    place = place + 1
    return place <= length, list[place]
  end
end

-- What a generic `for` takes; it ends with nil.
local function iterator_source(iterate, state, control)
  return function()
    control = iterate(state, control)
    return control ~= nil, control
  end
end

local function close_iterator(closing, err)
  local close = closing ~= nil and getmetatable(closing) and getmetatable(closing).__close
  if close then close(closing, err) end
end

--- Calls f(item, place) for each item, at most `limit` at a time, and waits for all. The results stand in the order of
--- the items. The first error is raised at once and no more items are pulled.
---@async
---@param f fun(item: any, place: integer): any
---@param items table|function a list, or an iterator: `agather.map(f, string.gmatch(text, "%a+"))`
---@param options? { limit?: integer, return_exceptions?: boolean, cancel_on_error?: boolean, progress?: any }
---@return table results with n
function module.map(f, items, options, ...)
  check.callable(f, 1, "map")
  local source, total, closing
  if type(items) == "function" then
    -- An iterator may come with state, control and closing value, as `for` takes them: the options stand last.
    local state, control
    if select("#", ...) > 0 or (options ~= nil and type(options) ~= "table") then
      state, control, closing, options = options, ...
    end
    source = iterator_source(items, state, control)
  else
    total = check.list(items, 2, "map")
    source = list_source(items, total)
  end
  options = check_options(options, "map")
  if not agather.current_task() then error(agather.RuntimeError("map: use it inside a task"), 0) end
  local job = new_job(f, source, total, options)
  local _ <close> = setmetatable({}, { __close = function(_, err) close_iterator(closing, err) end })
  local limit = options.limit
  local results = job:finish(limit and total and math.min(limit, total) or limit)
  return setmetatable(results, results_metatable)
end

local scheduled = { Future = true, Task = true, Gather = true }

-- What runs once though it stands twice: not functions, nor what has __await.
local once = { Coroutine = true, Future = true, Task = true, Gather = true, thread = true }

-- Awaits each item in its turn; one that stands twice runs once.
local function run_distinct(list, length)
  local first, distinct, places = {}, {}, {}
  for place = 1, length do
    local item = list[place]
    local mark = once[check.type_name(item)] and first[item]
    if not mark then
      distinct[#distinct + 1] = item
      mark = #distinct
      first[item] = mark
    end
    places[place] = mark
  end
  return distinct, places
end

--- gather_list with a limit or progress: a task whose result is the list.
---@param list any[]
---@param options table
function module.gather_list(list, options)
  options = check_options(options, "gather_list")
  local length = check.awaitables(list, 1, "gather_list")
  local distinct, places = run_distinct(list, length)
  return agather.spawn(function()
    local this = agather.current_task()
    local _ <close> = setmetatable({}, {
      __close = function() -- cancelled, as any gather it cancels all that it was given
        if this:cancelling() == 0 then return end
        for _, item in ipairs(distinct) do
          if scheduled[check.type_name(item)] then item:cancel() end
        end
      end,
    })
    local job = new_job(agather.await, list_source(distinct, #distinct), #distinct, options)
    local found = job:finish(math.min(options.limit or #distinct, #distinct))
    local results = { n = length }
    for place = 1, length do results[place] = found[places[place]] end
    return results
  end)
end

return module
