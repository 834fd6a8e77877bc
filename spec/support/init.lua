-- Helpers that the specs share: runs on the virtual clock, reports caught, errors by their text, scripts of their own.
local agather = require "agather"

local support = {}

--- Runs main on a virtual clock and returns its results.
---@param main function
---@param options? table options of agather.Runner
function support.virtual(main, options)
  local settings = { clock = "virtual" }
  for name, value in pairs(options or {}) do settings[name] = value end
  local runner <close> = agather.Runner(settings)
  return runner:run(main)
end

--- Runs main on a virtual clock, to the end of the shutdown, and returns the list of what was reported.
---@param main fun(reports: table[])
---@param options? table options of agather.Runner
---@return table[] reports
function support.capture(main, options)
  local reports = {}
  support.virtual(function()
    agather.get_running_loop():set_exception_handler(function(context) reports[#reports + 1] = context end)
    main(reports)
  end, options)
  return reports
end

--- Calls f(...), which must raise an error whose text holds [text]; returns the raised value.
---@param text string
---@param f function
function support.raises(text, f, ...)
  local ok, raised = pcall(f, ...)
  if ok then error("no error was raised, expected one with: " .. text, 2) end
  if not tostring(raised):find(text, 1, true) then
    error("expected an error with: " .. text .. "\ngot: " .. tostring(raised), 2)
  end
  return raised
end

--- Calls f(...), which must raise an OSError with this code; returns it.
---@param code string such as "ENOENT"
---@param f function
function support.fails(code, f, ...)
  local raised = support.raises(code, f, ...)
  if not agather.is_error(raised, agather.OSError) or raised.code ~= code then
    error("expected an OSError with code " .. code .. ", got: " .. tostring(raised), 2)
  end
  return raised
end

--- Gives the loop [count] turns.
---@param count integer
function support.turns(count)
  for _ = 1, count do agather.sleep(0) end
end

--- A value that calls f when it is closed.
---@param f function
function support.closing(f)
  return setmetatable({}, { __close = f })
end

--- A list of words, and a function that adds one.
---@return string[] log
---@return fun(word: string) say
function support.log()
  local log = {}
  return log, function(word) log[#log + 1] = word end
end

--- Runs a script in a process of its own; returns what it printed, stderr after stdout, and its exit status.
---@param text string
---@param environment? string such as "AGATHER_DEBUG=1"
---@return string output
---@return integer status
function support.script(text, environment)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write("local agather = require \"agather\"\n", text)
  file:close()
  local pipe = assert(io.popen((environment or "") .. " timeout 10 lua5.4 " .. path .. " 2>" .. path .. ".err"))
  local output = pipe:read("a")
  local _, _, status = pipe:close()
  local errors = assert(io.open(path .. ".err"))
  output = output .. errors:read("a")
  errors:close()
  os.remove(path)
  os.remove(path .. ".err")
  return output, status
end

return support
