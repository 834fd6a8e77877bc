-- map, and gather_list with a limit or progress: many jobs, few at a time. A fixed number of tasks work; each takes
-- the next item when it has done one, so items are pulled only as places free up.
local agather = require "agather.core"
local check = require "agather.check"

local module = {}

local known = { limit = true, progress = true, return_exceptions = true, cancel_on_error = true }

local function check_options(options, name)
  options = check.options(options, known, 2, name)
  if options.limit ~= nil then check.count(options.limit, 2, name, "limit") end
  local progress = options.progress
  if progress and progress ~= true and type(progress) ~= "function" then
    check.fail(2, name, "option 'progress' must be a boolean or a function, got " .. check.type_name(progress))
  end
  return options
end

-- What workers share: a source of items, the results in their places, and the counts.
local Job = {}
Job.__index = Job

local function new_job(run, next_item, total, options)
  return setmetatable({
    run = run,
    next_item = next_item, -- returns an item, or nil at the end
    results = { n = 0 },
    started = 0,
    done = 0,
    failed = 0,
    total = total,
    keep_errors = options.return_exceptions,
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

-- Takes the next item; an iterator that waits is asked by one worker at a time.
function Job:pull()
  if self.over then return nil end
  local _ <close> = self.pulling:acquire()
  if self.over then return nil end
  local item = self.next_item()
  if item == nil then
    self.over = true
    return nil
  end
  self.started = self.started + 1
  return item, self.started
end

local function with_traceback(err)
  if agather.is_error(err, agather.CancelledError) then return err end
  return agather.error_object(err, debug.traceback("", 2):gsub("^\n", ""))
end

-- Runs one item; a worker that was cancelled itself passes that on.
function Job:work_on(item, place)
  self.results.n = math.max(self.results.n, place)
  if not self.keep_errors then
    self.results[place] = self.run(item, place)
    self:count(false)
    return
  end
  local ok, value = xpcall(self.run, with_traceback, item, place)
  if not ok and agather.current_task():cancelling() > 0 then error(value, 0) end
  self.results[place] = value
  self:count(not ok)
end

function Job:work()
  local failed <close> = setmetatable({ job = self }, {
    __close = function(_, err)
      if err ~= nil then
        self.over = true
        if not self.keep_errors then self:count(true) end
      end
    end,
  })
  while true do
    local item, place = self:pull()
    if place == nil then return failed.job.results end
    self:work_on(item, place)
  end
end

-- Runs the workers and waits; cancelled, it ends them all first.
function Job:finish(limit, options)
  local _ <close> = setmetatable({}, {
    __close = function()
      self.over = true
      if self.report then self.report.finish() end
    end,
  })
  local workers = {}
  for place = 1, limit do workers[place] = agather.spawn(self.work, self) end
  local group = agather.gather_list(workers, { cancel_on_error = options.cancel_on_error })
  local ok, err = pcall(group.await, group)
  if not ok then
    if agather.is_error(err, agather.CancelledError) and agather.current_task():cancelling() > 0 then
      for _, worker in ipairs(workers) do
        worker:cancel()
        pcall(worker.await, worker)
      end
    end
    error(err, 0)
  end
  return self.results
end

-- One task for each item, all at once: there is no limit.
function Job:finish_all(options)
  local tasks = {}
  local _ <close> = setmetatable({}, {
    __close = function()
      if self.report then self.report.finish() end
    end,
  })
  while true do
    local item, place = self:pull()
    if place == nil then break end
    tasks[place] = agather.spawn(self.run, item, place)
    if self.report then
      tasks[place]:add_done_callback(function(task) self:count(task:cancelled() or task:exception() ~= nil) end)
    end
  end
  return agather.gather_list(tasks, {
    return_exceptions = options.return_exceptions,
    cancel_on_error = options.cancel_on_error,
  }):await()
end

-- Results may be awaited, which gives them again: map is called plainly, but who awaits it is not wrong.
local results_metatable = { __await = function(results) return results end }
results_metatable.__index = { await = results_metatable.__await }

-- A function that returns the items of a list one by one; nil in the list ends it unless it has n.
local function list_source(list, length)
  local place = 0
  return function()
    place = place + 1
    if place > length then return nil end
    return list[place]
  end
end

-- The same for what a generic `for` takes.
local function iterator_source(iterate, state, control)
  return function()
    control = iterate(state, control)
    return control
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
  local next_item, total, closing
  if type(items) == "function" then
    -- An iterator may come with state, control and closing value, as `for` takes them: the options stand last.
    local state, control
    if select("#", ...) > 0 or (options ~= nil and type(options) ~= "table") then
      state, control, closing, options = options, ...
    end
    next_item = iterator_source(items, state, control)
  else
    total = check.list(items, 2, "map")
    next_item = list_source(items, total)
  end
  options = check_options(options, "map")
  if not agather.current_task() then error(agather.RuntimeError("map: use it inside a task"), 0) end
  local job = new_job(f, next_item, total, options)
  local ended <close> = setmetatable({}, { __close = function(_, err) close_iterator(closing, err) end })
  local results
  if options.limit then
    results = job:finish(total and math.min(options.limit, total) or options.limit, options)
  else
    results = job:finish_all(options)
  end
  return ended and setmetatable(results, results_metatable)
end

-- Awaits each item in its turn; one that stands twice runs once.
local function run_distinct(list, length)
  local first, distinct, places = {}, {}, {}
  for place = 1, length do
    local item = list[place]
    if not first[item] then
      distinct[#distinct + 1] = item
      first[item] = #distinct
    end
    places[place] = first[item]
  end
  return distinct, places
end

--- gather_list with a limit or progress: a task whose result is the list.
---@param list any[]
---@param options table
function module.gather_list(list, options)
  options = check_options(options, "gather_list")
  local length = check.list(list, 1, "gather_list")
  for place = 1, length do
    local item = list[place]
    if not check.is_awaitable(agather, item) then
      error(("bad argument #1 to 'gather_list' (awaitable expected at place %d of the list, got %s)")
        :format(place, check.type_name(item)), 2)
    end
  end
  local distinct, places = run_distinct(list, length)
  return agather.spawn(function()
    local job = new_job(agather.await, list_source(distinct, #distinct), #distinct, options)
    local limit = math.min(options.limit or math.huge, #distinct)
    local found = job:finish(math.tointeger(limit), options)
    local results = { n = length }
    for place = 1, length do results[place] = found[places[place]] end
    return results
  end)
end

return module
