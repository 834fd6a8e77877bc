-- Runs programs on both sides, in processes of their own, and compares their traces.
local json = require "spec.differential.json"
local literal = require "spec.differential.literal"

local compare = {}

local directory = debug.getinfo(1, "S").source:match("^@(.*)[/\\]") or "."

--- The Python that runs the other side: Debian's, or the one named in DIFFERENTIAL_PYTHON.
compare.python = os.getenv("DIFFERENTIAL_PYTHON") or "/usr/bin/python3"

local SECONDS = 60 -- for a batch of programs; then it counts as endless

--- Whether there is a Python to compare with, 3.11 or newer.
function compare.available()
  local check = " -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null"
  return os.execute(compare.python .. check) == true
end

local function write(text)
  local name = os.tmpname()
  local file <close> = assert(io.open(name, "w"))
  file:write(text)
  return name
end

-- Starts asyncio's side; returns a function that gives the traces.
local function start_asyncio(programs)
  local name = write(json.encode(programs))
  -- Without LD_PRELOAD: Python shall not run under agather's sanitizers.
  local command = ("env -u LD_PRELOAD timeout %d %s -I %s/interpreter.py %s"):format(
    SECONDS, compare.python, directory, name)
  local pipe = assert(io.popen(command))
  return function()
    local traces = json.decode_traces(pipe:read("a"))
    local ok = pipe:close()
    os.remove(name)
    if not ok then error("failed: " .. command) end
    return traces
  end
end

local function start_agather(programs)
  local lines = {}
  for place, program in ipairs(programs) do lines[place] = literal(program) end
  local name = write(table.concat(lines, "\n"))
  local pipe = assert(io.popen(("{ timeout %d lua5.4 %s/interpret.lua %s; } 2>%s.errors"):format(
    SECONDS, directory, name, name)))
  return function()
    local whole_lines = pipe:read("a"):match("^.*\n") or ""
    local traces = json.decode_traces("[" .. whole_lines .. "]")
    local ok, _, status = pipe:close()
    local errors = io.open(name .. ".errors")
    local text = errors and errors:read("a") or ""
    if errors then errors:close() end
    local reason = text:match("ERROR: ([^\n]*)") or text:match("runtime error: ([^\n]*)") or text:match("[^\n]*")
    os.remove(name .. ".errors")
    os.remove(name)
    if ok then return traces end
    -- The program after the last whole trace did not survive; the ones after it get another process.
    traces[#traces + 1] = { status == 124 and "agather does not end" or "agather crashes: " .. reason }
    if #traces < #programs then
      local rest = start_agather(table.move(programs, #traces + 1, #programs, 1, {}))()
      table.move(rest, 1, #rest, #traces + 1, traces)
    end
    return traces
  end
end

-- Takes the trace of a shutdown away that asyncio leaves with tasks: agather goes on there.
local function cut_unclear(left, right)
  if right[#right] ~= "unclear" then return end
  for _, trace in ipairs { left, right } do
    local place = #trace
    while place > 1 and trace[place] ~= "shutdown" do place = place - 1 end
    for line = #trace, place + 1, -1 do trace[line] = nil end
  end
end

local function equal(left, right)
  cut_unclear(left, right)
  for line = 1, math.max(#left, #right) do
    if left[line] ~= right[line] then return false end
  end
  return true
end

--- Runs programs on both sides. Returns a list of those that differ: { program, agather, asyncio }.
---@param programs table[]
---@return table[] different
---@return integer lines how many lines were compared
---@return integer deadlocks how many programs ended in one
function compare.differences(programs)
  local finish_asyncio, finish_agather = start_asyncio(programs), start_agather(programs)
  local expected, traces = finish_asyncio(), finish_agather()
  assert(#expected == #programs and #traces == #programs, "a trace is missing")
  local different, lines, deadlocks = {}, 0, 0
  for place, program in ipairs(programs) do
    local asyncio, trace = expected[place], traces[place]
    lines = lines + #asyncio
    if asyncio[#asyncio] == "deadlock" then deadlocks = deadlocks + 1 end
    if not equal(trace, asyncio) then
      different[#different + 1] = { program = program, agather = trace, asyncio = asyncio }
    end
  end
  return different, lines, deadlocks
end

return compare
