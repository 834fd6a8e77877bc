-- agather.process: children. Starting, waiting and reaping is in C (src/uv/process.c); here are the options, the way
-- a child is ended, and run, which feeds a child and gathers what it writes.
--
-- A child is ended by SIGTERM and, when it is still there after a grace time, by SIGKILL: when its scope is left, when
-- the task that waits in run is cancelled or runs into a timeout. One that runs when the loop closes is killed.
local agather = require "agather"
local check = require "agather.check"
local fs = require "agather.fs"
local uv = require "agather.uv"

local process = {}

local GRACE = 2 -- seconds; less than what agather.run gives cancelled tasks for their cleanup
local MAX_OUTPUT = 256 * 1024 * 1024
local CHUNK = 65536

--- A child that run was told to check ended with another status than 0: .status, .signal, .stdout, .stderr, .command.
process.CalledProcessError = agather.Error:subclass("CalledProcessError")

-- ---- options ----

local function fail(name, text, ...) check.fail(1, name, text:format(...)) end

local function check_text(value, name, what)
  if type(value) ~= "string" and type(value) ~= "number" then
    fail(name, "%s must be a string, got %s", what, check.type_name(value))
  end
  value = tostring(value)
  if value:find("\0", 1, true) then fail(name, "%s contains a zero byte", what) end
  return value
end

local function check_seconds(value, name, option)
  if value ~= nil and (type(value) ~= "number" or value ~= value or value < 0) then
    fail(name, "option '%s' must be a number of seconds, got %s", option, tostring(value))
  end
  return value
end

-- The argument vector: the list part, or a command for the shell.
local function vector(options, name)
  local count = #options
  if count == 0 then fail(name, "the command is missing: %s{\"ls\", \"-l\"}", name) end
  local list = {}
  for place = 1, count do list[place] = check_text(options[place], name, "argument at place " .. place) end
  if list[1] == "" then fail(name, "the command is empty") end
  if options.shell then
    if count > 1 then fail(name, "with the option 'shell' the command is one string, got %d", count) end
    return { "/bin/sh", "-c", list[1] }
  end
  return list
end

local function check_variable(key, name, option)
  if type(key) ~= "string" or key == "" or key:find("[=\0]") then
    fail(name, "option '%s': %s is no name of a variable", option, type(key) == "string" and ("%q"):format(key)
      or check.type_name(key))
  end
end

local function check_environment(value, name, option)
  if value ~= nil and type(value) ~= "table" then
    fail(name, "option '%s' must be a table, got %s", option, check.type_name(value))
  end
end

--- The environment of this process, which children get where nothing else is said.
---@return table<string, string>
function process.environment()
  local variables = {}
  for _, entry in ipairs(uv.process_environment()) do
    local key, value = entry:match("^([^=]+)=(.*)$")
    if key then variables[key] = value end
  end
  return variables
end

-- A list of "NAME=value", or nil for what this process has.
local function environment(options, name)
  check_environment(options.env, name, "env")
  check_environment(options.extra_env, name, "extra_env")
  if not options.env and not options.extra_env then return nil end
  local variables = {}
  for key, value in pairs(options.env or process.environment()) do
    check_variable(key, name, "env")
    variables[key] = check_text(value, name, "variable " .. key)
  end
  for key, value in pairs(options.extra_env or {}) do
    check_variable(key, name, "extra_env")
    variables[key] = value and check_text(value, name, "variable " .. key) or nil
  end
  local list = {}
  for key, value in pairs(variables) do list[#list + 1] = key .. "=" .. value end
  table.sort(list)
  return list
end

-- Names of the metatables of what has a descriptor.
local descriptors = { ["agather.File"] = true, ["agather.Stream"] = true, ["FILE*"] = true }

local words = {
  stdin = { pipe = true, null = true, inherit = true },
  stdout = { pipe = true, null = true, inherit = true },
  stderr = { pipe = true, null = true, inherit = true, stdout = true },
}

-- What a channel is to be: a word, something with a descriptor, { path = }, or for stdin data to be fed as { data = }.
local function channel(options, name, which, default)
  local value = options[which]
  if value == nil then return default end
  if type(value) == "string" then
    if words[which][value] then return value end
    if which == "stdin" then return { data = value } end
    fail(name, "option '%s' must be \"pipe\", \"null\", \"inherit\", a file or { path = }, got %q", which, value)
  end
  if type(value) == "table" and which == "stdin" and type(value.data) == "string" then return { data = value.data } end
  if type(value) == "table" and type(value.path) == "string" then
    check_text(value.path, name, "path of option '" .. which .. "'")
    return value
  end
  if type(value) ~= "userdata" or not descriptors[check.type_name(value)] then
    fail(name, "option '%s' cannot be a %s", which, check.type_name(value))
  end
  local problem = uv.process_problem(value)
  if problem then fail(name, "option '%s': %s", which, problem) end
  return value
end

-- ---- children ----

---@class agather.Child
---@field pid integer
---@field stdin agather.Stream? where it is a pipe, as the two below
---@field stdout agather.Stream?
---@field stderr agather.Stream?
local Child = {}
Child.__index = Child
Child.__name = "agather.Child"

function Child:__tostring()
  return ("agather.Child (%s, pid %d%s)"):format(self.command, self.pid, self.handle:running() and "" or ", ended")
end

--- Waits until the child has ended, and reaps it. A child that writes into a pipe nobody reads waits in turn. Raises
--- OSError (ECHILD) where the host program has reaped it before; while this waits, nobody else may.
---@async
---@return integer? status nil where a signal ended it
---@return string? signal such as "SIGKILL"
function Child:wait() return self.handle:wait() end

--- Whether it has not ended yet.
---@return boolean
function Child:running() return self.handle:running() end

--- Sends a signal; to the whole group of a detached child.
---@param signal? string|integer "SIGTERM" by default
---@return boolean sent false where the child has ended
function Child:kill(signal)
  signal = signal or "SIGTERM"
  local problem = uv.signal_problem(signal)
  if problem then check.fail(1, "kill", problem) end
  return self.handle:kill(signal)
end

local function wait_in_grace(handle, seconds)
  local _ <close> = agather.timeout(seconds)
  handle:wait()
end

-- Ends the child. A cancellation takes what is left of the grace time, but not the end: it goes on afterwards.
local function finish(self)
  local handle = self.handle
  if not handle:running() then return end
  handle:end_group()
  handle:kill("SIGTERM")
  local ok, err = pcall(wait_in_grace, handle, self.grace)
  if handle:running() then
    handle:kill("SIGKILL")
    handle:wait()
  end
  if not ok and not agather.is_error(err, agather.TimeoutError) then error(err, 0) end
end

-- At once: what the child has not read by now it never will.
local function close_streams(self)
  for _, which in ipairs { "stdin", "fed", "stdout", "stderr" } do
    if self[which] then self[which]:abort() end
  end
end

--- Ends the child if it has not ended yet: SIGTERM, then SIGKILL after the grace time; reaps it and closes its streams.
--- Again is harmless. Also <close>.
---@async
function Child:close()
  local _ <close> = setmetatable({}, { __close = function() close_streams(self) end })
  finish(self)
end

Child.__close = Child.close

-- What the child gets for a channel; files that are opened here go to [opened].
local function open_channel(value, which, opened)
  if type(value) ~= "table" then
    if check.type_name(value) == "agather.File" then value:flush() end
    return value
  end
  if value.data then return "pipe" end
  local file = fs.open(value.path, which == "stdin" and "r" or value.append and "a" or "w")
  opened[#opened + 1] = file
  return file
end

-- Starts the child with files opened for it, which are closed here whatever comes of it.
local function start_with(child, arguments, variables, cwd, detached, name, channels)
  local opened = {}
  local started, err = pcall(function()
    child.handle, child.stdin, child.stdout, child.stderr = uv.process_spawn(arguments, variables, cwd, detached,
      "process." .. name, open_channel(channels[1], "stdin", opened), open_channel(channels[2], "stdout", opened),
      open_channel(channels[3], "stderr", opened))
    child.pid = child.handle:pid()
  end)
  for _, file in ipairs(opened) do
    local closed, problem = pcall(file.close, file) -- waits, so the task may be cancelled here
    err = err or not closed and problem or nil
  end
  if err == nil then return end
  if started then child:close() end
  error(err, 0)
end

local function start(options, name, default_stdin)
  local arguments, variables = vector(options, name), environment(options, name)
  local cwd = options.cwd and check_text(options.cwd, name, "option 'cwd'")
  local grace = check_seconds(options.grace, name, "grace") or GRACE
  local channels = {
    channel(options, name, "stdin", default_stdin),
    channel(options, name, "stdout", "pipe"),
    channel(options, name, "stderr", "pipe"),
  }
  local detached = options.detached
  if detached == nil then detached = options.shell end
  local child = setmetatable({ command = arguments[1], grace = grace }, Child)
  start_with(child, arguments, variables, cwd, detached, name, channels)
  return child, type(channels[1]) == "table" and channels[1].data
end

local function write_all(stream, data)
  stream:write(data)
  stream:flush()
end

-- Writes what a child is to read. That it ends, or is closed, without reading it all is no error.
local function feed(stream, data)
  local _ <close> = stream
  local ok, err = pcall(write_all, stream, data)
  local unread = agather.is_error(err, agather.OSError) and (err.code == "EPIPE" or err.code == "EBADF")
  if not ok and not unread then error(err, 0) end
end

local spawn_options = {
  cwd = true, env = true, extra_env = true, stdin = true, stdout = true, stderr = true, shell = true, detached = true,
  grace = true,
}
local run_options = { timeout = true, max_output = true, check = true }
for option in pairs(spawn_options) do run_options[option] = true end

local function check_options(options, known, name)
  if type(options) ~= "table" then
    fail(name, "table with a command expected, got %s", check.type_name(options))
  end
  local count = #options
  for key in pairs(options) do
    local place = math.type(key) == "integer"
    if place and (key < 1 or key > count) then fail(name, "the argument before place %d is missing", key) end
    if not place and not known[key] then fail(name, "unknown option '%s'", tostring(key)) end
  end
end

--- Starts a child: process.spawn{ "command", "argument", ... }. The command is looked for in the PATH of the child's
--- environment; no shell takes part unless shell = true, with one string for /bin/sh, which is detached then so that
--- ending it ends its commands. Options:
---   cwd                     folder to start in
---   env                     table that is the whole environment
---   extra_env               table of what it has beside that (or beside ours); false takes a variable away
---   stdin, stdout, stderr   "pipe" (the default), "null", "inherit", an open file of agather.fs or of io, { path = },
---                           { path =, append = true }; a stream, which the child takes over: it is closed here;
---                           stdin also a string or { data = } to be fed; stderr also "stdout"
---   detached                in a session and process group of its own: signals go to all of the group, and what is
---                           left of it when the child is ended is killed
---   grace                   seconds between SIGTERM and SIGKILL when it is ended (2)
---@async
---@param options table
---@return agather.Child child also <close>; one that is not closed is reaped when it ends
function process.spawn(options)
  check_options(options, spawn_options, "spawn")
  local child, data = start(options, "spawn", "pipe")
  if data then
    child.stdin, child.fed = nil, child.stdin
    local ok, err = pcall(agather.spawn, feed, child.fed, data)
    if not ok then
      child:close()
      error(err, 0)
    end
  end
  return child
end

-- ---- run ----

-- Reads a stream to its end into result[which].
local function collect(stream, result, which, limit, command)
  local parts, total = {}, 0
  result[which] = parts
  for bytes in stream:lines(CHUNK) do
    total = total + #bytes
    if total > limit then
      error(agather.LimitOverrunError(("process.run %s: more than %d bytes on %s (max_output)"):format(command, limit,
        which), { consumed = limit }), 0)
    end
    parts[#parts + 1] = bytes
  end
end

local function communicate(child, data, result, limit)
  local jobs = {}
  if data then jobs[#jobs + 1] = agather.async(feed)(child.stdin, data) end
  for _, which in ipairs { "stdout", "stderr" } do
    local stream = child[which]
    if stream then jobs[#jobs + 1] = agather.async(collect)(stream, result, which, limit, child.command) end
  end
  agather.gather_list(jobs, { cancel_on_error = true }):await()
  result.status, result.signal = child:wait()
end

local function communicate_in_time(seconds, ...)
  local _ <close> = agather.timeout(seconds)
  communicate(...)
end

local function join(result)
  for _, which in ipairs { "stdout", "stderr" } do
    if result[which] then result[which] = table.concat(result[which]) end
  end
  return result
end

local function check_limit(value)
  if value == nil then return MAX_OUTPUT end
  if value == math.huge then return math.maxinteger end
  if math.type(value) ~= "integer" or value < 0 then
    fail("run", "option 'max_output' must be a number of bytes, got %s", tostring(value))
  end
  return value
end

--- Runs a child to its end and returns how it ended and what it wrote. Options are those of spawn and
---   timeout      seconds, after which it is ended and TimeoutError raised, with .stdout and .stderr
---   max_output   bytes of stdout, and of stderr, after which it is ended and LimitOverrunError raised (256 MiB)
---   check        raise CalledProcessError unless the status is 0
--- stdin is "null" where nothing else is said. As long as somebody holds the pipes open, a command that the child put
--- into the background, say, the output has not ended.
---@async
---@param options table
---@return { status: integer?, signal: string?, stdout: string?, stderr: string? } result
function process.run(options)
  check_options(options, run_options, "run")
  local seconds, limit = check_seconds(options.timeout, "run", "timeout"), check_limit(options.max_output)
  if options.stdin == "pipe" then fail("run", "option 'stdin' cannot be \"pipe\": give what is to be read, or use spawn") end
  local child <close>, data = start(options, "run", "null")
  local result = {}
  if seconds then
    local ok, err = pcall(communicate_in_time, seconds, child, data, result, limit)
    if not ok and agather.is_error(err, agather.TimeoutError) then
      err = agather.TimeoutError(("process.run %s: not ended after %g s"):format(child.command, seconds), join(result))
    end
    if not ok then error(err, 0) end
  else
    communicate(child, data, result, limit)
  end
  join(result)
  if options.check and result.status ~= 0 then
    local how = result.signal and "ended by " .. result.signal or "status " .. result.status
    result.command = child.command
    error(process.CalledProcessError(("process.run %s: %s"):format(child.command, how), result), 0)
  end
  return result
end

return process
