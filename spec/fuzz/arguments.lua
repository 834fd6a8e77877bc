-- A fuzz target: the bytes choose builtins and what they get, values of every kind at every place. Each call gives
-- results or an error that a script can understand: a string with the place of the call and the name of the function,
-- or an error object. It never crashes or hangs; what it began can be cancelled; and the loop goes on.
local enter_directory = ...
local agather = require "agather"
local builtins = require "spec.fuzz.arguments.builtins"

enter_directory()
local list, options = builtins.list()
local kinds = {}
for name in pairs(builtins.objects) do kinds[#kinds + 1] = name end
table.sort(kinds)

local PATIENCE, LIMIT = 0.002, 5 -- seconds that a call may wait, and that it has to end when it is cancelled

-- ---- bytes ----

local Reader = {}
Reader.__index = Reader

function Reader:byte()
  self.at = self.at + 1
  return self.bytes:byte(self.at) or 0
end

function Reader:more() return self.at < #self.bytes end

function Reader:of(values) return values[self:byte() % #values + 1] end

function Reader:text(length)
  local text = self.bytes:sub(self.at + 1, self.at + length)
  self.at = self.at + #text
  return text
end

-- ---- values ----

-- Errors that are raised by what is given to the library, not by the library.
local own = setmetatable({}, { __tostring = function() return "fuzz: own error" end })

local numbers = {
  0, 1, 2, 3, -1, 10, 255, 65535, 65536, 2 ^ 31, 1 << 31, 1 << 32, math.maxinteger, math.mininteger,
  0.0, -0.0, 0.5, -0.5, 1e-9, 1e15, 2 ^ 53, 2 ^ 63, 1e308, math.huge, -math.huge, 0 / 0,
}
-- No path leaves the directory, no host is far away, no name is that of a command but "true".
local strings = {
  "", "a", "l", "L", "n", "file", "dir", "missing/file", "127.0.0.1", "::1", "localhost", "0", "80", "1e3", "r", "w+", "a\0b",
  "\xff\xfe", "true", "SIGUSR1", "SIGUSR2", "pipe", "null", "stdout", "GET", "POST", "A: b\r\nC: d", "http://127.0.0.1:1/",
  "https://127.0.0.1:1/", "http://", "FIRST_COMPLETED", "virtual", "{}", "[1,2", "644", "set", "cur", "socket", "%s%n",
  ("x"):rep(5000), "é", "read", "UTF-8", "v1.2", "TLSv1.3", "ipv4", "any",
}
-- What these modules get in place of other texts.
local tame = {
  ["agather.signal"] = { "SIGUSR1", "SIGUSR2", "SIGWINCH", "", "a", "SIGNOSUCH", "SIGKILL" },
  ["agather.process"] = { "true", "", "pipe", "null", "stdout", "a\0b", "file", "no-such-command", "SIGUSR1", "SIGKILL" },
  ["agather.net"] = { "127.0.0.1", "::1", "localhost", "", "a b", "1.2.3.4.5", "socket", "a\0b", "file", "80", ("x"):rep(300) },
}
tame["agather.dns"] = tame["agather.net"]
tame["agather.http"] = {
  "http://127.0.0.1:1/", "https://127.0.0.1:1/x?y", "http://", "http://[::1]:1/", "GET", "a\r\nb", "", "a\0b", "file", "://",
  "http://127.0.0.1:99999/", "ftp://127.0.0.1/", "http://u:p@127.0.0.1:1/", "text/plain", "\xff", ("y"):rep(3000),
}

local function waits(...)
  agather.sleep(0)
  return ...
end
local functions = {
  function() end, function(...) return ... end, waits, function() error(own, 0) end, function() error("fuzz: own text", 0) end,
  function() return nil, nil, nil end, function() agather.sleep(0.0005) error(own, 0) end, function() return {} end,
  function(a, b) return a == b end, print, type, agather.sleep, agather.future, agather.current_task, function()
    agather.current_task():cancel()
  end,
}
table.remove(functions, 10) -- print: what it prints is nobody's

local function raise() error(own, 0) end
local strange = {
  { __index = raise }, { __len = function() return math.maxinteger end }, { __len = raise }, { __call = raise },
  { __tostring = raise }, { __name = "Strange" }, { __name = 42 }, { __eq = raise, __lt = raise, __le = raise }, { __pairs = raise },
  { __await = raise }, { __await = function() return function() return 1 end end }, { __close = raise }, { __gc = false },
  { __index = function(_, key) return key end }, { __metatable = false }, { __newindex = raise },
}

local oddities = { agather.Error, agather.TimeoutError, own, io.stderr, coroutine.running(), string, agather }

local make_value

local function make_table(reader, call, depth)
  local result, shape = {}, reader:byte()
  for _ = 1, shape % 4 do result[#result + 1] = make_value(reader, call, depth + 1) end
  for _ = 1, shape // 4 % 4 do
    local names = shape < 200 and options[call.module] or options.agather
    if not names or #names == 0 then names = options["agather.net"] end
    local name = reader:of(names)
    result[name] = make_value(reader, call, depth + 1)
  end
  if shape // 16 % 8 == 7 then
    local odd = { 0, -1, 1.5, true, "unknown", 10 }
    result[reader:of(odd)] = make_value(reader, call, depth + 1)
  end
  if shape // 16 % 8 == 6 then setmetatable(result, reader:of(strange)) end
  return result
end

local function make_object(reader, call)
  local name = reader:of(kinds)
  local object = call.objects[name]
  if object == nil then
    object = builtins.objects[name]()
    call.objects[name] = object
    call.count = call.count + 1
  end
  return object
end

function make_value(reader, call, depth)
  local kind = reader:byte() % 24
  local value
  if kind == 0 then return nil
  elseif kind == 1 then return true
  elseif kind == 2 then return false
  elseif kind <= 6 then
    value = reader:of(numbers)
    if call.module == "agather.signal" or call.name:find("kill") then value = 10 end
    if call.name:find("Pool") and math.type(value) == "integer" and value > 8 then value = 8 end
  elseif kind <= 10 then value = reader:of(tame[call.module] or strings)
  elseif kind == 11 then
    value = tame[call.module] and reader:of(tame[call.module]) or reader:text(reader:byte() % 32):gsub("[./]", "_")
  elseif kind <= 13 then value = reader:of(functions)
  elseif kind == 14 then value = coroutine.create(reader:of(functions))
  elseif kind == 15 then value = reader:of(oddities)
  elseif kind == 16 then value = #call.results > 0 and reader:of(call.results) or nil
  elseif kind <= 20 and depth < 3 then value = make_table(reader, call, depth)
  elseif call.count < 6 then value = make_object(reader, call)
  end
  if value ~= nil then call.given[#call.given + 1] = value end
  return value
end

-- ---- what a call may raise ----

-- With AGATHER_FUZZ_GO_ON=1 each is printed once, and the run goes on; with AGATHER_FUZZ_TRACE=1 each call is printed.
local seen, trace = os.getenv("AGATHER_FUZZ_GO_ON") and {}, os.getenv("AGATHER_FUZZ_TRACE")

local function described(call)
  local arguments = {}
  for place = 1, call.arguments.n do
    local ok, text = pcall(tostring, call.arguments[place])
    arguments[place] = ("%s %q"):format(type(call.arguments[place]), ok and text or "?")
  end
  return ("%s(%s)"):format(call.name, table.concat(arguments, ", "))
end

local function wrong(call, format, ...)
  local text = described(call) .. ": " .. format:format(...)
  if not seen then error(text, 0) end
  local key = (call.name .. format:format(...)):gsub("%d+", "#")
  if not seen[key] then io.stderr:write("finding: ", text, "\n") end
  seen[key] = true
end

local library = debug.getinfo(agather.timeout, "S").source:match("^@(.*/)timeout%.lua$")

local function check_text(call, text)
  if text:find("fuzz: ", 1, true) or call.wrong_self then return end
  if text:find("'?'", 1, true) and not call.foreign then wrong(call, "the error names no function: %s", text) end
  if text:find(library, 1, true) == 1 then wrong(call, "the error blames the library's line: %s", text) end
  if text:find("attempt to", 1, true) and text:find(library, 1, true) then
    wrong(call, "the error is one of the library's insides: %s", text)
  end
end

local function check_error(call, raised)
  if type(raised) == "string" then return check_text(call, raised) end
  if rawequal(raised, own) then return end
  if agather.is_error(raised) then
    if type(tostring(raised)) ~= "string" then wrong(call, "the error has no text") end
    return
  end
  for _, value in ipairs(call.given) do
    if rawequal(value, raised) or value ~= value and raised ~= raised then return end
  end
  if call.foreign or call.module == "agather.worker" then return end -- values that earlier calls kept; copies
  wrong(call, "what is raised is no error: %s", tostring(raised))
end

-- ---- calls ----

-- A function that calls f by its name, for errors name functions as their caller does; as no tail call, which hides it.
local function caller_of(name, f)
  local text = ("local library = ... return function(...) local results = table.pack(library.%s(...)) "
    .. "return table.unpack(results, 1, results.n) end"):format(name)
  return assert(load(text, "=caller"))({ [name] = f })
end

local callers = {}
for index, entry in ipairs(list) do callers[index] = caller_of(entry.name:match("[%a_]+$"), entry.f) end

-- Runs f in a task of its own, for as long as patience lasts; then it is cancelled, and must end.
local function patiently(call, f, ...)
  local task = agather.spawn(f, ...)
  local _, pending = agather.wait({ task }, { timeout = PATIENCE })
  if #pending > 0 then
    task:cancel()
    _, pending = agather.wait({ task }, { timeout = LIMIT })
    if #pending > 0 then wrong(call, "it cannot be cancelled:\n%s", task:traceback()) end
  end
  return task
end

-- An iterator that ends: map takes all that one has before it waits.
local function ending(f)
  local left = 20
  return function(...)
    left = left - 1
    if left > 0 then return f(...) end
  end
end

local function make_call(reader, results, shared, given)
  local first, second, flags = reader:byte(), reader:byte(), reader:byte()
  local entry = list[(first * 256 + second) % #list + 1]
  local call = {
    name = entry.name, module = entry.module, f = callers[(first * 256 + second) % #list + 1], given = given,
    results = results, objects = shared, count = 0, arguments = { n = 0 }, index = (first * 256 + second) % #list,
  }
  call.prepare = function()
    local arguments, count = call.arguments, flags % 5
    if entry.self and flags < 224 then -- with the right object most of the time
      arguments[1] = shared[entry.self] or builtins.objects[entry.self]()
      shared[entry.self] = arguments[1]
      arguments.n = 1
    elseif entry.self then -- methods in Lua find out at their first use of it
      call.wrong_self = true
    end
    for _ = 1, count do
      arguments.n = arguments.n + 1
      arguments[arguments.n] = make_value(reader, call, 0)
    end
    if entry.name == "agather.map" and type(arguments[2]) == "function" then arguments[2] = ending(arguments[2]) end
  end
  return call
end

local function outcome_of(call, task)
  if task:cancelled() then return "cancelled" end
  local object = task:exception()
  if object == nil then return "fine" end
  check_error(call, object.value)
  return tostring(object):gsub("%d+", "#"):sub(1, 80)
end

-- A hash of a text, the same in every run.
local function hash(text)
  local sum = 5381
  for place = 1, #text do sum = (sum * 33 + text:byte(place)) & 0xffffffff end
  return sum
end

local function perform(reader, results, shared, given, reached)
  local call = make_call(reader, results, shared, given)
  local prepared = patiently(call, call.prepare)
  if prepared:cancelled() or prepared:exception() then return end
  if trace then io.stderr:write(described(call), "\n") end
  local task = patiently(call, call.f, table.unpack(call.arguments, 1, call.arguments.n))
  local outcome = outcome_of(call, task)
  reached(hash(call.index .. outcome))
  if outcome ~= "fine" then return end
  local result = task:result()
  if result == nil then return end
  results[#results + 1] = result
  if agather.is_awaitable(result) then
    call.foreign = true
    local awaited = patiently(call, agather.await, result)
    reached(hash(call.index .. "awaited" .. outcome_of(call, awaited)))
  end
end

-- Loops and runners stay until they are closed.
local function stays(object)
  local ok, loop = pcall(function() return object.run_forever or object.get_loop and object.run end)
  return ok and loop
end

local function run_input(reader, reached)
  local results, shared, given, closing = {}, {}, {}, {}
  local ok, raised = pcall(agather.run, function()
    agather.get_running_loop():set_exception_handler(function() end)
    for _ = 1, 6 do
      if not reader:more() then break end
      perform(reader, results, shared, given, reached)
    end
  end)
  for _, name in ipairs { "runner", "other_loop" } do closing[#closing + 1] = shared[name] end
  for _, object in ipairs(results) do
    if stays(object) then closing[#closing + 1] = object end
  end
  for _, object in ipairs(closing) do pcall(function() object:close() end) end
  if ok then return end
  -- The run itself may be stopped, or cancelled, by what was called.
  local text = tostring(raised)
  if agather.is_error(raised, agather.CancelledError) or text:find("Event loop stopped", 1, true) then return end
  error(raised, 0)
end

local function check_loop()
  local count, left = 0, nil
  agather.run(function()
    for _ = 1, 3 do agather.spawn(function() agather.sleep(0) count = count + 1 end) end
    agather.sleep(0.0001)
    agather.sleep(0)
    left = #agather.all_tasks()
  end)
  if count ~= 3 or left ~= 1 then error(("afterwards the loop has run %d of 3 tasks, and %d are left"):format(count, left)) end
end

local function descriptors()
  collectgarbage()
  collectgarbage()
  local count = 0
  agather.run(function() count = #agather.fs.scandir("/proc/self/fd") end)
  return count
end

local inputs, open_at_first = 0, nil

return function(bytes, reached)
  run_input(setmetatable({ bytes = bytes, at = 0 }, Reader), reached)
  check_loop()
  inputs = inputs + 1
  if inputs % 100 == 0 then
    enter_directory()
    local open = descriptors()
    open_at_first = open_at_first or open
    if open > open_at_first + 20 then error(("%d descriptors are open, %d at first"):format(open, open_at_first)) end
  end
end
