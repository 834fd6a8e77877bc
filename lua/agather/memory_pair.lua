-- Two streams in memory: what is written to one is read from the other, with back-pressure. No descriptor is used.
local agather = require "agather"
local stream = require "agather.stream"

-- One direction: chunks[first..last] were written and not read.
local Channel = {}
Channel.__index = Channel

local function new_channel(high)
  return setmetatable({
    chunks = {}, first = 1, last = 0,
    size = 0, -- bytes in the chunks
    offset = 0, -- bytes of the first chunk that were read
    high = high, low = high // 4,
    ended = false, -- nothing more will be written
    broken = false, -- nothing more will be read
  }, Channel)
end

local function failure(operation, code, number, text)
  error(agather.OSError(("%s: %s (%s)"):format(operation, text, code), {
    code = code, errno = number, operation = operation,
  }))
end

-- The one who waits under [name] waits no more.
local function wake(self, name)
  local future = self[name]
  self[name] = nil
  if future and not future:done() then future:set_result() end
end

local function wait(self, name)
  local future = agather.future()
  self[name] = future
  future:await()
end

function Channel:read(n)
  while self.size == 0 do
    if self.reset then failure("read", "ECONNRESET", 104, "connection reset by peer") end
    if self.broken then failure("read", "EBADF", 9, "the stream is closed") end
    if self.ended then return nil end
    wait(self, "reader")
  end
  local chunk = self.chunks[self.first]
  local bytes
  if self.offset == 0 and #chunk <= n then
    bytes = chunk
  else
    bytes = chunk:sub(self.offset + 1, self.offset + n)
  end
  self.offset = self.offset + #bytes
  if self.offset == #chunk then
    self.chunks[self.first] = nil
    self.first = self.first + 1
    self.offset = 0
  end
  self.size = self.size - #bytes
  if self.size <= self.low then wake(self, "writer") end
  if self.size == 0 then wake(self, "flusher") end
  return bytes
end

local function check_taken(self)
  if self.broken then failure("write", "EPIPE", 32, "broken pipe") end
  if self.ended then failure("write", "EBADF", 9, "the stream is closed") end
end

function Channel:write(bytes)
  check_taken(self)
  self.last = self.last + 1
  self.chunks[self.last] = bytes
  self.size = self.size + #bytes
  wake(self, "reader")
  if self.size <= self.high then return end
  while self.size > self.low do
    wait(self, "writer")
    check_taken(self)
  end
end

function Channel:flush()
  while self.size > 0 do
    wait(self, "flusher")
    check_taken(self)
  end
end

function Channel:wake_all()
  wake(self, "reader")
  wake(self, "writer")
  wake(self, "flusher")
end

function Channel:finish()
  self.ended = true
  self:wake_all()
end

-- Its reader is gone: what was written is dropped.
function Channel:tear()
  self.broken = true
  self.chunks, self.first, self.last, self.size, self.offset = {}, 1, 0, 0, 0
  self:wake_all()
end

local End = { __tostring = function() return "memory" end }
End.__index = End

function End:read(n) return self.incoming:read(n) end
function End:write(bytes) self.outgoing:write(bytes) end
function End:flush() self.outgoing:flush() end
function End:shutdown() self.outgoing:finish() end

function End:close()
  self.incoming:tear()
  self.outgoing:finish()
end

function End:abort()
  self.outgoing.reset = true
  self.outgoing:tear()
  self:close()
end

function End:set_write_buffer_limits(limits)
  local high = limits.high or self.outgoing.high
  self.outgoing.high, self.outgoing.low = high, limits.low or high // 4
end

--- Two streams in memory that are joined: for tests, and for what is written over streams and needs no socket.
---@return agather.Stream
---@return agather.Stream
local function pair()
  local there, back = new_channel(65536), new_channel(65536)
  return stream.wrap(setmetatable({ incoming = back, outgoing = there }, End)),
    stream.wrap(setmetatable({ incoming = there, outgoing = back }, End))
end

return pair
