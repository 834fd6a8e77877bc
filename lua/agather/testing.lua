-- agather.testing: asynchronous specs for busted. The body of a spec is a main task; a spec fails that leaves tasks
-- behind, errors unretrieved or coros never awaited.
local agather = require "agather"
local check = require "agather.check"

local module = {}

-- Runs in the main task: what is still there when the body has returned.
local function tasks_left()
  local left = {}
  local this = agather.current_task()
  for _, task in ipairs(agather.all_tasks()) do
    if task ~= this then left[#left + 1] = tostring(task) end
  end
  return left
end

local function report_text(context)
  local subject = context.task or context.future
  local parts = { context.message }
  if subject then parts[#parts + 1] = tostring(subject) end
  if context.exception then parts[#parts + 1] = tostring(context.exception) end
  return table.concat(parts, ": ")
end

--- Runs the body as a main task, on the virtual clock unless { clock = "real" }, and raises what it raises. Raises an
--- error that lists what the body left behind: tasks, errors nobody asked for, coros never awaited.
---@param body function
---@param options? { clock?: "virtual"|"real", debug?: boolean }
---@param ... any arguments of the body
function module.run(body, options, ...)
  check.callable(body, 1, "run")
  if pcall(agather.get_running_loop) then
    error(agather.RuntimeError("testing.run: a loop runs already, call the function itself"), 2)
  end
  options = check.options(options, { clock = true, debug = true }, 2, "run")
  if options.clock ~= nil and options.clock ~= "virtual" and options.clock ~= "real" then
    check.fail(2, "run", "option 'clock' must be \"virtual\" or \"real\", got " .. tostring(options.clock))
  end
  local runner <close> = agather.Runner { clock = options.clock or "virtual", debug = options.debug }
  local problems = {}
  runner:get_loop():set_exception_handler(function(context) problems[#problems + 1] = report_text(context) end)
  local results = table.pack(runner:run(function(...)
    local returned = table.pack(body(...))
    agather.sleep(0) -- what is about to end may end
    for _, task in ipairs(tasks_left()) do problems[#problems + 1] = "task left behind: " .. task end
    return table.unpack(returned, 1, returned.n)
  end, ...))
  runner:close()
  if #problems > 0 then error("the spec left something behind:\n  " .. table.concat(problems, "\n  "), 0) end
  return table.unpack(results, 1, results.n)
end

--- A function for busted's `it`, `before_each` and the like: it("waits", testing.async(function() ... end)).
---@param body function
---@param options? table as of testing.run
function module.async(body, options)
  check.callable(body, 1, "async")
  return function(...) return module.run(body, options, ...) end
end

--- busted's `it` with an asynchronous body: local it = require "agather.testing".it
---@param name string
---@param body? function without one the spec is pending
---@param options? table as of testing.run
function module.it(name, body, options)
  local busted = require "busted"
  if body == nil then return busted.pending(name) end
  return busted.it(name, module.async(body, options))
end

return module
