-- agather.stream: the whole interface of a stream over anything that has read, write, shutdown and close. TLS, files
-- and pipes in memory stand on it; what it adds to streams in C is at the end.
--
-- A transport is a table or userdata with
--   transport:read(n)        some bytes, at most n, or nil at the end; one task at a time
--   transport:write(bytes)   returns when there is room for more; one task at a time
--   transport:shutdown()     no more will be written
--   transport:close()        whoever waits in read or write gets an error; twice is harmless
-- and, if it has them, flush, abort, peer_address, local_address and set_write_buffer_limits.
local agather = require "agather"
local check = require "agather.check"
local uv = require "agather.uv"

local stream = {}

local CHUNK = 65536
local read_limits, write_limits = { line = true, all = true }, { high = true, low = true }

---@class agather.Stream
---@field transport table what it stands on
local Stream = { __name = "agather.Stream" }
local methods = {}

-- The method of the transport where it has one.
local function optional(self, name)
  local transport = self.transport
  local method = transport[name]
  if method then return method, transport end
end

local function check_open(self, operation)
  if self.closed then
    error(agather.OSError(operation .. ": the stream is closed (EBADF)", {
      code = "EBADF", errno = 9, operation = operation,
    }))
  end
end

local function check_format(format)
  if format == nil or math.type(format) == "integer" and format >= 0 then return end
  if math.type(format) == "integer" then check.fail(1, "read", "number of bytes must not be negative") end
  if type(format) ~= "string" or not format:find("^%*?[lLa]") then
    check.fail(1, "read", "invalid format (\"l\", \"L\", \"a\" or a number expected)")
  end
end

-- ---- reading ----

-- Fills the buffer until it has what is asked for.
local function take(self, operation, kind, argument)
  check_open(self, operation)
  local buffer = self.buffer
  local value, wanted, searched = buffer:take(kind, argument)
  if value ~= false then return value end
  if self.reading.now then
    error(agather.RuntimeError(operation .. ": another task reads from this stream already"))
  end
  self.reading.now = true
  local _ <close> = self.reading
  local transport = self.transport
  repeat
    local bytes = transport:read(CHUNK)
    check_open(self, operation)
    if bytes == nil then
      buffer:finish()
      wanted = 0
    end
    if buffer:feed(bytes or "") >= wanted then
      value, wanted, searched = buffer:take(kind, argument, searched)
    end
  until value ~= false
  return value
end

--- Reads by one of Lua's formats: "l", a line without its newline (the default), "L", a line with it, "a", all up to
--- the end, or a number: some bytes and at most so many. nil at the end, "" for "a". One task reads at a time.
--- LimitOverrunError: a line is longer than the limit (set_limits); it can still be read otherwise.
---@async
---@param format? string|integer
---@return string?
function methods:read(format)
  check_format(format)
  return take(self, "read", format)
end

--- Exactly n bytes. IncompleteReadError, with .partial and .expected, where the stream ends before.
---@async
---@param n integer
---@return string
function methods:read_exactly(n)
  if math.type(n) ~= "integer" or n < 0 then
    check.fail(1, "read_exactly", "number of bytes expected, got " .. (type(n) == "number" and n or check.type_name(n)))
  end
  return take(self, "read_exactly", "exactly", n)
end

--- All up to and with the separator. IncompleteReadError, with .partial, where the stream ends before;
--- LimitOverrunError where it does not come within the limit.
---@async
---@param separator string
---@return string
function methods:read_until(separator)
  if type(separator) ~= "string" then
    check.fail(1, "read_until", "string expected, got " .. check.type_name(separator))
  end
  if separator == "" then check.fail(1, "read_until", "separator must not be empty") end
  return take(self, "read_until", "until", separator)
end

--- An iterator over read(format).
---@param format? string|integer
---@return fun(): string?
function methods:lines(format)
  check_open(self, "lines")
  check_format(format)
  return function() return take(self, "read", format) end
end

--- line: most bytes of a line or up to a separator (64 KiB); all: most that "a" and read_exactly gather (no limit).
---@param limits { line?: integer, all?: integer }
function methods:set_limits(limits)
  check.sizes(limits, read_limits, 1, math.maxinteger, "set_limits")
  self.buffer:set_limits(limits)
end

-- ---- writing ----

--- Writes strings and numbers, in one piece, whoever else writes; waits while too much is on its way. Where the task is
--- cancelled while it waits, a socket still sends what was given. Raises OSError.
---@async
---@param ... string|number
---@return agather.Stream self
function methods:write(...)
  local count = select("#", ...)
  for place = 1, count do
    local value = select(place, ...)
    if type(value) ~= "string" and type(value) ~= "number" then
      check.fail(place, "write", "string expected, got " .. check.type_name(value))
    end
  end
  local bytes = count == 1 and tostring((...)) or table.concat({ ... })
  check_open(self, "write")
  local _ <close> = self.writing:acquire()
  check_open(self, "write")
  if self.shut then
    error(agather.OSError("write: the stream is shut down for writing (EPIPE)", {
      code = "EPIPE", errno = 32, operation = "write",
    }))
  end
  if bytes ~= "" then self.transport:write(bytes) end
  return self
end

--- Waits until all that was written is on its way.
---@async
---@return agather.Stream self
function methods:flush()
  check_open(self, "flush")
  local _ <close> = self.writing:acquire()
  check_open(self, "flush")
  local flush, transport = optional(self, "flush")
  if flush then flush(transport) end
  return self
end

--- Marks of the bytes that are on their way: over high, write waits until there are no more than low.
---@param limits { high?: integer, low?: integer }
function methods:set_write_buffer_limits(limits)
  check.sizes(limits, write_limits, 0, 0x7fffffff, "set_write_buffer_limits")
  local low, high = limits.low, limits.high
  if low and high and low > high then check.fail(1, "set_write_buffer_limits", "low must not be more than high") end
  local set, transport = optional(self, "set_write_buffer_limits")
  if set then set(transport, limits) end
end

--- Says that no more will be written; reading goes on. Twice is harmless.
---@async
function methods:shutdown()
  check_open(self, "shutdown")
  if self.shut then return end
  local _ <close> = self.writing:acquire()
  if self.shut or self.closed then return end
  self.shut = true
  self.transport:shutdown()
end

-- ---- closing, addresses ----

--- Closes it: what was written is still sent, by a socket for at most 30 s, and one more second when the loop closes
--- (flush first to be sure). Whoever reads or writes gets an OSError (EBADF). Twice is harmless.
function methods:close()
  if self.closed then return end
  self.closed = true
  self.transport:close()
end

--- Closes it at once and drops what was not sent.
function methods:abort()
  local abort, transport = optional(self, "abort")
  if not abort then return self:close() end
  self.closed = true
  abort(transport)
end

--- Host and port of the other side, or the path of a Unix socket; nothing where there is none.
function methods:peer_address()
  check_open(self, "peer_address")
  local address, transport = optional(self, "peer_address")
  if address then return address(transport) end
end

--- Host and port of this side, or the path of a Unix socket; nothing where there is none.
function methods:local_address()
  check_open(self, "local_address")
  local address, transport = optional(self, "local_address")
  if address then return address(transport) end
end

Stream.__index = methods
function Stream:__close() self:close() end
function Stream:__tostring()
  return ("agather.Stream (%s%s)"):format(self.closed and "closed " or "", tostring(self.transport))
end

local ends_reading = { __close = function(reading) reading.now = false end }

--- A stream over a transport. [more] are methods that it has beside those of every stream; they get the stream.
---@param transport table
---@param more? table<string, function>
---@return agather.Stream
function stream.wrap(transport, more)
  if type(transport) ~= "table" and type(transport) ~= "userdata" then
    check.fail(1, "wrap", "transport expected, got " .. check.type_name(transport))
  end
  if more and type(more) ~= "table" then check.fail(2, "wrap", "table expected, got " .. check.type_name(more)) end
  local self = {
    transport = transport,
    buffer = uv.buffer(),
    reading = setmetatable({ now = false }, ends_reading),
    writing = agather.Lock(),
    closed = false,
    shut = false,
  }
  if more then
    for name, method in pairs(more) do self[name] = method end
  end
  return setmetatable(self, Stream)
end

-- ---- what is the same for all ----

local function has_write(value) return type(value.write) == "function" end

local function is_written(value)
  local ok, has = pcall(has_write, value)
  return ok and has
end

--- Copies what comes to another stream until the end or [limit] bytes, as fast as that one takes it, and then shuts
--- that one down, unless shutdown=false or it is no stream that can be.
---@async
---@param self agather.Stream
---@param other agather.Stream
---@param options? { limit?: integer, shutdown?: boolean }
---@return integer bytes copied
local function pipe(self, other, options)
  if type(other) ~= "table" and type(other) ~= "userdata" or not is_written(other) then
    check.fail(1, "pipe", "stream expected, got " .. check.type_name(other))
  end
  options = check.options(options, { limit = true, shutdown = true }, 2, "pipe")
  local limit = options.limit or math.maxinteger
  if options.limit then check.count(limit, 2, "pipe", "limit") end
  local copied = 0
  while copied < limit do
    local bytes = self:read(math.min(CHUNK, limit - copied))
    if not bytes then break end
    other:write(bytes)
    copied = copied + #bytes
  end
  if options.shutdown ~= false and other.shutdown then other:shutdown() end
  return copied
end

methods.pipe = pipe
uv.stream_methods.pipe = pipe

return stream
