-- Servers: a task per connection, a bound on their number, errors that end one connection and not the server, and an
-- end that lets handlers finish.
local agather = require "agather"
local check = require "agather.check"
local uv = require "agather.uv"

---@class agather.Server
---@field private listener userdata
local Server = { __name = "agather.Server" }
Server.__index = Server

-- Errors of accept after which another accept may work: the machine or the process has run out of something.
local exhaustion = { EMFILE = true, ENFILE = true, ENOBUFS = true, ENOMEM = true }

-- So many connections are accepted before others have their turn.
local ACCEPTED_AT_ONCE = 64

local SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 1

-- Seconds between looks at what closed connections have left to send, where that keeps others from being accepted.
local LOOK = 0.1

local function report(self, message, err, task, peer)
  if self.on_error then
    self.on_error(err, peer)
  else
    agather.get_running_loop():call_exception_handler { message = message, exception = err, task = task, peer = peer }
  end
end

-- Wakes serve_forever where it waits for a connection to end.
local function wake(self)
  local waiter = self.waiter
  self.waiter = nil
  if waiter and not waiter:done() then waiter:set_result() end
end

local function wait_for_an_end(self)
  self.waiter = agather.future()
  if next(self.sending) then
    agather.wait({ self.waiter }, { timeout = LOOK })
  else
    self.waiter:await()
  end
end

-- How many connections are there though their handlers have ended: their peers have not taken all that was written.
local function count_sending(self)
  local count = 0
  for stream in pairs(self.sending) do
    if uv.stream_lingers(stream) then count = count + 1 else self.sending[stream] = nil end
  end
  return count
end

local function ended(self, task)
  local stream = self.tasks[task]
  self.tasks[task] = nil
  self.count = self.count - 1
  stream:close()
  if self.max_connections < math.huge and uv.stream_lingers(stream) then
    count_sending(self)
    self.sending[stream] = true
  end
  wake(self)
  local err = not task:cancelled() and task:exception()
  if err then
    local peer = uv.stream_name(stream)
    report(self, ("the handler of the connection from %s failed"):format(peer), err, task, peer)
  end
end

local function prepare_and_serve(handler, prepare, stream)
  local prepared <close> = prepare(stream)
  handler(prepared)
end

-- The stream is closed by `ended`, so that the handler stands alone on its Lua stack: that keeps idle ones small.
local function new_task(self, stream)
  local task
  if self.prepare then
    task = agather.spawn(prepare_and_serve, self.handler, self.prepare, stream)
  else
    task = agather.spawn(self.handler, stream)
  end
  local ok, err = pcall(task.add_done_callback, task, self.on_done)
  if not ok then
    task:cancel()
    error(err, 0)
  end
  return task
end

-- Accepts a connection and starts its handler.
local function accept(self)
  local stream = self.listener:accept()
  local ok, task = pcall(new_task, self, stream)
  if not ok then -- no task for it: a limit of the host's
    stream:close()
    error(task, 0)
  end
  self.tasks[task] = stream
  self.count = self.count + 1
end

-- Whether another accept may work after this error of one.
local function passes(err)
  return agather.is_error(err, agather.LimitError) or exhaustion[agather.is_error(err, agather.OSError) and err.code]
end

--- Accepts connections until the server is closed, and returns when their handlers have ended. Where the calling task
--- is cancelled, the server ends at once: shutdown(0).
---@async
function Server:serve_forever()
  if self.serving then error(agather.RuntimeError("serve_forever: the server serves already"), 0) end
  self.serving = true
  local _ <close> = self
  local pause, at_once = nil, 0
  while not self.closed do
    if self.count + count_sending(self) >= self.max_connections then
      wait_for_an_end(self)
    else
      local ok, err = agather.pcall(accept, self)
      if ok then
        pause, at_once = nil, at_once + 1
        if at_once % ACCEPTED_AT_ONCE == 0 then agather.sleep(0) end
      elseif not self.closed then
        if not passes(err) then error(err, 0) end
        if not pause then report(self, "accept failed; the server goes on when it can", err) end
        pause = math.min(LONGEST_PAUSE, (pause or SHORTEST_PAUSE / 2) * 2)
        agather.sleep(pause)
      end
    end
  end
  while self.count > 0 do wait_for_an_end(self) end
end

--- Accepts no more. Handlers go on. Twice is harmless.
function Server:close()
  if self.closed then return end
  self.closed = true
  self.listener:close()
  wake(self)
end

-- The tasks of handlers, but for the one that calls.
local function others(self)
  local list, me = {}, agather.current_task()
  for task in pairs(self.tasks) do
    if task ~= me then list[#list + 1] = task end
  end
  return list
end

--- Accepts no more, lets handlers end, cancels those that have not ended after [grace] seconds and waits for them.
---@async
---@param grace? number no limit unless given
---@return integer cancelled how many handlers were
function Server:shutdown(grace)
  check.seconds(grace, 1, "shutdown", true)
  self:close()
  local tasks = others(self)
  if #tasks > 0 and grace ~= 0 then
    local _, pending = agather.wait(tasks, { timeout = grace })
    tasks = pending
  end
  for _, task in ipairs(tasks) do task:cancel() end
  if #tasks > 0 then agather.wait(tasks) end
  return #tasks
end

--- Where it listens: host and port, or the path of a Unix socket.
function Server:local_address() return self.listener:local_address() end

--- How many connections have handlers now.
---@return integer
function Server:connections() return self.count end

function Server:__close() self:shutdown(0) end

function Server:__tostring()
  return ("agather.Server (%s, %d connections)"):format(tostring(self.listener), self.count)
end

local server = {}

--- A server over a listener. prepare(stream), if given, makes of a connection the stream that the handler gets.
---@param options { max_connections?: integer, on_error?: fun(err: any, peer?: string), prepare?: function }
---@return agather.Server
function server.new(listener, handler, options)
  local self = setmetatable({
    listener = listener,
    handler = handler,
    prepare = options.prepare,
    on_error = options.on_error,
    max_connections = options.max_connections or math.huge,
    tasks = {}, -- of handlers: task -> stream
    sending = {}, -- set of streams: see count_sending
    count = 0,
    closed = false,
    serving = false,
  }, Server)
  self.on_done = function(task) ended(self, task) end
  return self
end

return server
