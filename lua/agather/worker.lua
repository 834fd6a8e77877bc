-- agather.worker: functions that run in Lua states of their own, on threads of their own, while the loop goes on.
-- What goes there and comes back is copied: nil, booleans, numbers, strings, and tables of them, in which a table may
-- stand at several places or within itself. Metatables stay behind. The threads are not libuv's: files and DNS never
-- wait for them. A worker's state has all of Lua's libraries, whatever the state has that sends it a function.
local agather = require "agather"
local check = require "agather.check"
local uv = require "agather.uv"

local threads = uv.worker

local worker = {}

-- What runs: a function, or the name of one. Gives what threads.call takes.
local function split_name(name, called)
  local module, field = name:match("^([^:]+):([^:]+)$")
  if not module and not name:find(":", 1, true) and name ~= "" then return name, nil end
  if not module then
    check.fail(1, called, ("\"module\" or \"module:function\" expected, got '%s'"):format(name))
  end
  return module, field
end

-- The name of a C function that a library holds, such as "string:upper".
local function name_of(f)
  for module, library in pairs(package.loaded) do
    if type(library) == "table" and type(module) == "string" and not module:find("^agather") then
      for field, value in next, library do
        if rawequal(value, f) and type(field) == "string" then return module, field end
      end
    end
  end
end

local function what_runs(f, called)
  if type(f) == "string" then return split_name(f, called) end
  if type(f) ~= "function" then
    check.fail(1, called, "function or name of one expected, got " .. check.type_name(f))
  end
  if debug.getinfo(f, "S").what ~= "C" then return f, nil end
  local module, field = name_of(f)
  if not module then check.fail(1, called, "a C function that no module holds cannot go to a worker") end
  return module, field
end

local function check_inside_task(called)
  if not agather.current_task() then error(agather.RuntimeError(called .. ": use it inside a task"), 0) end
end

-- An error that was raised in a worker is raised here as an error object: .value is the copy of what was raised,
-- .traceback the worker's. One of the library's classes is of that class again.
local function error_object(value, traceback, class)
  if not class then return agather.error_object(value, traceback) end
  value.traceback = value.traceback or traceback
  return setmetatable(value, agather[class])
end

local function results(ok, ...)
  if ok then return ... end
  error(error_object(...), 0)
end

---@class agather.worker.Pool
local Pool = {}
Pool.__index = Pool
Pool.__name = "WorkerPool"

local known_options = { size = true }

--- A number of threads, each with a state that it keeps: modules stay loaded and functions compiled; the globals that a
--- function sets are gone when it returns. `local pool <close> = worker.Pool{ size = 4 }`.
---@param options? { size?: integer } as many as there are processors
---@return agather.worker.Pool
function worker.Pool(options)
  options = check.options(options, known_options, 1, "Pool")
  if options.size ~= nil then
    check.count(options.size, 1, "Pool", "size")
    if options.size > 1024 then check.fail(1, "Pool", "option 'size' must be at most 1024, got " .. options.size) end
  end
  local size = options.size or threads.parallelism()
  return setmetatable({ threads = threads.pool(size), size = size }, Pool)
end

local function run(pool, called, f, ...)
  local what, field = what_runs(f, called)
  check_inside_task(called)
  local job, argument, text = threads.call(pool.threads, what, field, ...)
  if not job then check.fail(argument, called, text .. "; a worker gets copies of plain data") end
  return results(threads.wait(job))
end

--- Runs f(...) on another thread, in another Lua state, and waits for its results. Cancelling stops it at its next
--- instruction, at once for the task. f is a Lua function whose upvalues are plain data, which is copied, or itself; a
--- function of a library; or the name of one, "module" or "module:function", which the worker requires.
--- An error in it is raised as an error object: .value is what was raised, .traceback tells where.
---@async
---@param f function|string
---@return any ... results of f
function Pool:run(f, ...) return run(self, "run", f, ...) end

-- How many items go with one message: few enough to keep every thread busy to the end.
local function chunk_size(length, size) return math.max(1, math.min(1000, (length + 4 * size - 1) // (4 * size))) end

local map_options = { chunk = true }

local function map(pool, f, list, options)
  local what, field = what_runs(f, "map")
  local length = check.list(list, 2, "map")
  options = check.options(options, map_options, 3, "map")
  if options.chunk ~= nil then check.count(options.chunk, 3, "map", "chunk") end
  check_inside_task("map")
  local size = options.chunk or chunk_size(length, pool.size)
  local jobs, found, failure = {}, { n = length }, nil
  local function wait(job, first)
    local ok, value, traceback, class = threads.wait(job, found, first)
    if ok then return end
    local err = error_object(value, traceback, class)
    failure = failure or err
    error(err, 0)
  end
  for first = 1, length, size do
    local last = math.min(first + size - 1, length)
    local job, item, text = threads.map(pool.threads, what, field, list, first, last)
    if not job then
      local position = item == 0 and 1 or 2
      if item > 0 then text = ("[%d]%s%s"):format(item, text:find("^[.%[]") and "" or ": ", text) end
      check.fail(position, "map", text .. "; a worker gets copies of plain data")
    end
    jobs[#jobs + 1] = function() wait(job, first) end
  end
  local group = agather.gather_list(jobs, { cancel_on_error = true })
  local ok, err = pcall(group.await, group)
  if ok then return found end
  if failure and rawequal(err, failure.value) then err = failure end -- as run does; a task gives the bare value
  error(err, 0)
end

--- Runs f(item, place) for each item of a list, many items at a time on each thread; the results stand in their places.
--- The first error is raised, and the rest is stopped.
---@async
---@param f function|string as run takes it
---@param list any[]
---@param options? { chunk?: integer } how many items go to a thread at once
---@return table results with n
function Pool:map(f, list, options) return map(self, f, list, options) end

--- Stops what runs, at its next instruction, and waits until the threads have ended. Who waits for a job gets a
--- RuntimeError. Again is harmless.
---@async
function Pool:close() threads.close(self.threads, agather.current_task() ~= nil) end

Pool.__close = Pool.close

-- The pool of each loop, made at first use; it goes with the loop.
local default_pools = setmetatable({}, { __mode = "k" })

local function default_pool(called)
  check_inside_task(called)
  local loop = agather.get_running_loop()
  local pool = default_pools[loop]
  if not pool then
    pool = worker.Pool()
    default_pools[loop] = pool
  end
  return pool
end

--- Pool:run on a pool that the loop keeps, with as many threads as there are processors.
---@async
---@param f function|string
---@return any ... results of f
function worker.run(f, ...) return run(default_pool("run"), "run", f, ...) end

--- Pool:map on the loop's pool.
---@async
---@param f function|string
---@param list any[]
---@param options? { chunk?: integer }
---@return table results with n
function worker.map(f, list, options) return map(default_pool("map"), f, list, options) end

return worker
