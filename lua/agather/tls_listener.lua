-- What net.listen gives with the option tls: accept returns streams that have shaken hands. Handshakes go on beside each
-- other, so a peer that is slow or silent keeps nobody waiting.
local agather = require "agather"
local uv = require "agather.uv"

local SHAKING = 128 -- handshakes at a time; more connections wait in the system

---@class agather.tls.Listener
local Listener = { __name = "agather.tls.Listener" }
Listener.__index = Listener

local function raise_closed(operation)
  error(agather.OSError(operation .. ": the listener is closed (EBADF)", {
    code = "EBADF", errno = 9, operation = operation,
  }), 0)
end

local function report(self, err, peer)
  if self.on_error then
    self.on_error(err, peer)
  else
    agather.get_running_loop():call_exception_handler {
      message = ("the TLS handshake with %s failed"):format(peer), exception = err, peer = peer,
    }
  end
end

local function shake(self, inner)
  local peer = uv.stream_name(inner) or "a peer"
  local ok, stream = agather.pcall(self.prepare, inner)
  if not ok then
    report(self, stream, peer)
  elseif self.closed then
    stream:close()
  else
    self.ready:put_nowait { stream = stream }
  end
end

local function accept_one(self)
  local inner = self.inner:accept()
  local ok, task = pcall(agather.spawn, shake, self, inner)
  if not ok then
    inner:close()
    error(task, 0)
  end
  self.shaking[task] = inner
  task:add_done_callback(self.on_shaken)
end

-- Accepts while somebody waits in accept.
local function accept_all(self)
  while true do
    self.places:acquire()
    local ok, err = pcall(accept_one, self)
    if not ok then
      self.places:release()
      if agather.is_error(err, agather.CancelledError) then error(err, 0) end
      if not self.closed then self.ready:put_nowait { failure = err } end
      return
    end
  end
end

--- The next connection that has shaken hands. Handshakes that fail go to on_error(err, peer), or to the loop's exception
--- handler. Any number of tasks may wait.
---@async
---@return agather.Stream
function Listener:accept()
  if self.closed then raise_closed "accept" end
  self.waiting = self.waiting + 1
  local _ <close> = self.leaving
  if not self.accepting or self.accepting:done() then self.accepting = agather.spawn(accept_all, self) end
  local ok, item = agather.pcall(self.ready.get, self.ready)
  if not ok then
    if agather.is_error(item, agather.QueueShutDown) then raise_closed "accept" end
    error(item, 0)
  end
  if item.failure then error(item.failure, 0) end
  return item.stream
end

--- Where it listens: host and port, or the path of a Unix socket.
function Listener:local_address() return self.inner:local_address() end

--- Accepts no more and ends handshakes; whoever waits in accept gets an OSError (EBADF). Twice is harmless.
function Listener:close()
  if self.closed then return end
  self.closed = true
  self.inner:close()
  if self.accepting then self.accepting:cancel() end
  for task, inner in pairs(self.shaking) do
    task:cancel()
    inner:close() -- a task that had no step yet does not
  end
  while not self.ready:empty() do
    local item = self.ready:get_nowait()
    if item.stream then item.stream:close() end
  end
  self.ready:shutdown()
end

function Listener:__close() self:close() end

function Listener:__tostring() return ("agather.tls.Listener (%s)"):format(tostring(self.inner)) end

---@param inner any a listener
---@param prepare fun(inner: any): agather.Stream of tls.prepare_server
---@param on_error? fun(err: any, peer: string)
---@return agather.tls.Listener
return function(inner, prepare, on_error)
  local self = setmetatable({
    inner = inner,
    prepare = prepare,
    on_error = on_error,
    ready = agather.Queue(), -- { stream = } that have shaken hands, { failure = } of accepting
    places = agather.Semaphore(SHAKING),
    shaking = {}, -- task -> the stream below
    accepting = nil, -- a task, while somebody waits
    waiting = 0,
    closed = false,
  }, Listener)
  function self.on_shaken(task)
    self.shaking[task] = nil
    self.places:release()
  end
  self.leaving = setmetatable({}, { __close = function()
    self.waiting = self.waiting - 1
    if self.waiting > 0 or not self.accepting then return end
    self.accepting:cancel()
    self.accepting = nil
  end })
  return self
end
