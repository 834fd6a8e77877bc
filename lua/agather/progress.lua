-- Progress: one line on a terminal that tells how far a list of jobs is, or a function that is told.
local agather = require "agather"

local module = {}

local INTERVAL = 0.1 -- seconds between two drawings

-- Whether stderr is a terminal, and whether colours are welcome.
local function terminal()
  local plain = os.getenv("NO_COLOR")
  return agather.isatty(2), not (plain and plain ~= "")
end

local function clock(seconds)
  seconds = math.floor(seconds + 0.5)
  if seconds >= 3600 then
    return ("%d:%02d:%02d"):format(seconds // 3600, seconds // 60 % 60, seconds % 60)
  end
  return ("%d:%02d"):format(seconds // 60, seconds % 60)
end

-- "37/100 37% 12.3/s 0:03 left 0:05 failed 2"
local function line(done, total, failed, elapsed, coloured, last)
  local parts = {}
  local function add(text) parts[#parts + 1] = text end
  if total then
    add(("%d/%d"):format(done, total))
    add(("%d%%"):format(total > 0 and done * 100 // total or 100))
  else
    add(("%d"):format(done))
  end
  local rate = elapsed > 0 and done / elapsed or 0
  add(("%.1f/s"):format(rate))
  add(clock(elapsed))
  if total and rate > 0 and not last then add("left " .. clock((total - done) / rate)) end
  if failed > 0 then add((coloured and "\27[31mfailed %d\27[0m" or "failed %d"):format(failed)) end
  return table.concat(parts, "  ")
end

module.line = line

-- Calls the function; what it raises goes to the loop's exception handler, and the jobs go on.
local function teller(tell, total)
  local loop = agather.get_running_loop()
  local function update(done, failed)
    local ok, err = pcall(tell, done, total, failed)
    if not ok then
      loop:call_exception_handler { message = "Exception in progress function", exception = agather.error_object(err) }
    end
  end
  return { update = update, finish = function() end }
end

--- Starts to show progress; returns a table with update(done, failed) and finish().
---@param how boolean|fun(done: integer, total: integer?, failed: integer)
---@param total integer? nil where the number of jobs is not known
function module.start(how, total)
  if type(how) == "function" then return teller(how, total) end
  local is_terminal, coloured = terminal()
  local loop = agather.get_running_loop()
  local started, drawn = loop:time(), -math.huge
  local done, failed, finished = 0, 0, false
  local self = {}
  function self.update(now_done, now_failed)
    done, failed = now_done, now_failed
    local now = loop:time()
    if finished or not is_terminal or now - drawn < INTERVAL then return end
    drawn = now
    io.stderr:write("\r\27[K", line(done, total, failed, now - started, coloured, false))
    io.stderr:flush()
  end
  function self.finish()
    if finished then return end
    finished = true
    local text = line(done, total, failed, loop:time() - started, is_terminal and coloured, true)
    io.stderr:write(is_terminal and "\r\27[K" or "", text, "\n")
    io.stderr:flush()
  end
  return self
end

return module
