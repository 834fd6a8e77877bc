-- The soak's engine: operations that go on beside each other, each at its own rate; a gate at which all of them halt, so
-- that what is left can be counted; and the failures, told as they happen.
local agather = require "agather"

local engine = {}

-- Seconds within which what must come has come, on a machine that has more to do.
engine.PATIENCE = 120

local MOST_TOLD = 5 -- failures of one operation that are written out

local Soak = {}
Soak.__index = Soak

--- What an operation raises is a failure of the soak.
function Soak:fail(name, message)
  self.failed[name] = (self.failed[name] or 0) + 1
  self.failures = self.failures + 1
  if self.failed[name] <= MOST_TOLD then io.stderr:write(("FAILED %s: %s\n"):format(name, tostring(message))) end
end

local function traced(err)
  if agather.is_error(err) and err.traceback then return tostring(err) .. "\n" .. tostring(err.traceback) end
  return debug.traceback(tostring(err), 2)
end

local function do_once(self, operation)
  self.busy[operation] = agather.get_running_loop():time()
  local ok, err = xpcall(operation.run, traced)
  self.busy[operation] = nil
  if ok then
    self.counts[operation.name] = self.counts[operation.name] + 1
  else
    self:fail(operation.name, err)
  end
end

-- A lane: the operation again and again, [rate] times a second at most.
local function lane(self, operation)
  local loop = agather.get_running_loop()
  local due = loop:time() + self.random() / operation.rate
  while not self.stopping do
    agather.sleep(math.max(0, due - loop:time()))
    self.gate:wait()
    if self.stopping then break end
    do_once(self, operation)
    due = math.max(due + (0.5 + self.random()) / operation.rate, loop:time() - 1)
  end
end

--- Adds an operation of the part that is being started: run() is called [rate] times a second, never twice at a time.
function Soak:every(rate, name, run)
  name = self.part .. ": " .. name
  self.counts[name] = self.counts[name] or 0
  self.operations[#self.operations + 1] = { name = name, rate = rate, run = run }
end

--- Calls f() when the parts are stopped, the last first.
function Soak:at_end(f) self.endings[#self.endings + 1] = f end

--- [idle]() must become true when all operations have come to their ends.
function Soak:settles(name, idle) self.idle[#self.idle + 1] = { name = self.part .. ": " .. name, is = idle } end

--- Starts the parts, runs each operation once, and lets them go on.
function Soak:start(parts)
  self.stopping, self.operations, self.endings, self.idle, self.busy = false, {}, {}, {}, {}
  for _, part in ipairs(parts) do
    self.part = part.name
    part.start(self)
  end
  for _, operation in ipairs(self.operations) do do_once(self, operation) end
  self.gate:set()
  for place, operation in ipairs(self.operations) do
    self.lanes[place] = agather.create_task(function() lane(self, operation) end, { name = operation.name })
  end
end

local function wait_until(seconds, is_over)
  local loop = agather.get_running_loop()
  local ends = loop:time() + seconds
  while not is_over() do
    if loop:time() > ends then return false end
    agather.sleep(0.01)
  end
  return true
end

--- Halts all operations where they have ended; one that does not end is a failure, with where it waits.
function Soak:halt()
  self.gate:clear()
  wait_until(engine.PATIENCE, function() return next(self.busy) == nil end)
  for operation in pairs(self.busy) do
    for place, other in ipairs(self.operations) do
      if other == operation then
        self:fail(operation.name, ("not over after %d s\n%s"):format(engine.PATIENCE, self.lanes[place]:traceback()))
      end
    end
  end
  for _, idle in ipairs(self.idle) do
    if not wait_until(engine.PATIENCE, idle.is) then self:fail(idle.name, "what operations had begun is not over") end
  end
end

function Soak:go_on() self.gate:set() end

--- Ends the lanes and the parts.
function Soak:stop()
  self:halt()
  self.stopping = true
  self.gate:set()
  for _, task in ipairs(self.lanes) do
    if next(self.busy) then task:cancel() end
    pcall(task.await, task)
  end
  self.gate:clear()
  self.lanes = {}
  for place = #self.endings, 1, -1 do
    local ok, err = xpcall(self.endings[place], traced)
    if not ok then self:fail("the end of a part", err) end
  end
  self.operations, self.endings, self.idle = {}, {}, {}
end

--- How many operations there were in all.
function Soak:total()
  local sum = 0
  for _, count in pairs(self.counts) do sum = sum + count end
  return sum
end

-- ---- what operations share ----

--- Calls f(...), which must raise an error object of the class; returns it.
function engine.raises(class, f, ...)
  local ok, err = pcall(f, ...)
  if ok then error("no error was raised, expected " .. tostring(class), 2) end
  if not agather.is_error(err, class) then error("unexpected error: " .. tostring(err), 2) end
  return err
end

--- Raises unless both are equal; long strings are told by their lengths.
function engine.equal(expected, got)
  if expected == got then return end
  local function show(value)
    return type(value) == "string" and #value > 60 and ("%d bytes"):format(#value) or tostring(value)
  end
  error(("expected %s, got %s"):format(show(expected), show(got)), 2)
end

--- Runs f(...) as a task, cancels it after so many seconds, and checks that it ended so. f may have ended before.
function engine.cancelled(seconds, f, ...)
  local task = agather.spawn(f, ...)
  agather.sleep(seconds)
  task:cancel()
  local ok, err = pcall(task.await, task)
  if not ok and not agather.is_error(err, agather.CancelledError) then error(err, 0) end
  return not ok
end

--- A generator of numbers of its own, so that parts do not change each other's: random() and random(most).
function engine.random(seed)
  local state = seed
  return function(most)
    state = (state * 6364136223846793005 + 1442695040888963407) & -1
    local fraction = (state >> 11) / (1 << 53)
    return most and math.floor(fraction * most) + 1 or fraction
  end
end

local letters = {}
for byte = 0, 255 do letters[byte] = string.char(byte):rep(1 + byte % 7) end

--- Bytes that are unlike any others of that length, with every value in them.
function engine.bytes(random, length)
  local pieces, size = {}, 0
  while size < length and #pieces < 400 do
    local piece = letters[random(256) - 1]
    pieces[#pieces + 1] = piece
    size = size + #piece
  end
  local text = table.concat(pieces)
  return text:rep(length // math.max(1, #text) + 1):sub(1, length)
end

function engine.new(seed)
  return setmetatable({
    random = engine.random(seed), gate = agather.Event(), lanes = {}, operations = {}, endings = {}, idle = {},
    busy = {}, counts = {}, failed = {}, failures = 0, expected_reports = 0,
  }, Soak)
end

return engine
