-- A TLS engine at work over a stream: the transport that agather.stream makes a whole stream of. Knows nothing of
-- options and contexts (tls.lua does), and of the stream below only read(n), write(bytes) and close().
--
-- What is to be sent goes through one task of the filter's own, so that a writer who is cancelled leaves no half of a
-- record behind: what was given to write is still sent, as streams do.
local agather = require "agather"

local Filter = {}
Filter.__index = Filter

local CHUNK = 65536
local TURN = 262144 -- bytes that are decrypted before other tasks get a turn
local LINGER = 30 -- seconds that a closed stream has to send what was written
local LAST_LINGER = 2 -- and when its loop ends

function Filter:__tostring()
  return ("TLS %s over %s"):format(self.address or "", tostring(self.inner))
end

local function tls_error(self, operation, code, text)
  local where = self.address and " " .. self.address or ""
  return agather.TLSError(("%s%s: %s (%s)"):format(operation, where, text, code), {
    code = code, reason = text, operation = operation, address = self.address,
  })
end

-- ---- sending ----

-- Gives the stream below all that is to be sent, in order.
local function send_all(self)
  while self.engine do
    local bytes = self.engine:take()
    local next_string = self.queue[self.first]
    if bytes then
      self.inner:write(bytes)
    elseif next_string then
      local at, code, text = self.engine:encrypt(next_string, self.at)
      if not at then error(tls_error(self, "write", code, text), 0) end
      if at > #next_string then
        self.queue[self.first] = nil
        self.first, at = self.first + 1, 1
      end
      self.at = at
    elseif self.ending then
      self.ending = false
      local done, code, text = self.engine:shutdown()
      if not done then error(tls_error(self, "shutdown", code, text), 0) end
    else
      return
    end
  end
end

-- Closes the stream below and frees the keys. Twice is harmless.
local function finish(self)
  if self.limit then self.limit:cancel() end
  if not self.engine then return end
  self.engine:free()
  self.engine = nil
  self.queue = {}
  self.inner:close()
end

-- Nothing can be written any more.
local function fail(self, err)
  self.write_error = self.write_error or err
  self.queue, self.first, self.last, self.at = {}, 1, 0, 1
end

local sender_options = { name = "TLS sender", eager_start = true }

-- Reads and drops what comes until the peer ends.
local function drain(self)
  while self.engine do
    local came = self.inner:read(CHUNK)
    if not came or not self.engine then return end
    self.engine:feed(came)
    local bytes
    repeat bytes = self.engine:decrypt(CHUNK) until not bytes
    if bytes == nil then return end
  end
end

-- A socket that is closed while something lies there unread is reset, and what the peer has not got yet is lost. A
-- server of TLS 1.3 sends tickets that a client who only writes never reads: so that one waits for the peer's end.
-- A loop that ends gives it less time. Where another task reads, all was read, and the error ends this.
local function wait_for_end(self)
  local ok, err = pcall(drain, self)
  if not ok and self.engine and agather.is_error(err, agather.CancelledError) then
    self.limit:cancel()
    self.limit = agather.get_running_loop():call_later(LAST_LINGER, finish, self)
    pcall(drain, self)
  end
end

local function run_sender(self)
  local ok, err = pcall(send_all, self)
  if not ok then fail(self, err) end
  local idle = self.idle
  self.idle = nil
  if idle and not idle:done() then idle:set_result() end
  if ok and self.closing and self.unread and self.written then wait_for_end(self) end
  self.sending = false
  if self.closing then finish(self) end
end

-- Sends now what can be sent now; the rest follows.
local function send(self)
  if self.sending then return end
  self.sending = true
  local ok, err = pcall(agather.create_task, self.run_sender, sender_options)
  if ok then return end
  self.sending = false
  fail(self, err)
end

-- Waits until all is sent; one task at a time does.
local function wait_sent(self)
  if self.sending then
    self.idle = agather.future()
    self.idle:await()
  end
  if self.write_error then error(self.write_error, 0) end
end

function Filter:write(bytes)
  if self.write_error then error(self.write_error, 0) end
  self.written = true
  self.last = self.last + 1
  self.queue[self.last] = bytes
  send(self)
  wait_sent(self)
end

function Filter:flush()
  wait_sent(self)
  local inner = self.inner
  if inner.flush then inner:flush() end
end

--- Tells the peer that no more comes; the stream below stays open both ways.
function Filter:shutdown()
  self.ending = true
  send(self)
  wait_sent(self)
end

-- ---- reading ----

function Filter:read(n)
  if self.turn >= TURN then
    self.turn = 0
    agather.sleep(0)
  end
  while self.engine do
    local engine = self.engine
    local bytes, code, text = engine:decrypt(n)
    if engine:has_output() then send(self) end -- answers of the protocol's own, and alerts
    if bytes then
      self.turn = self.turn + #bytes
      return bytes
    end
    if code then error(tls_error(self, "read", code, text), 0) end
    if bytes == nil then return nil end
    local came = self.inner:read(CHUNK)
    if not self.engine then return nil end -- closed meanwhile: the stream says so
    self.unread = false
    if came then engine:feed(came) else engine:feed_end() end
  end
end

-- ---- closing ----

--- What was written is still sent, then close_notify; then the stream below is closed.
function Filter:close()
  if self.closing then return end
  self.closing, self.ending = true, true
  local running, loop = pcall(agather.get_running_loop)
  if not running then return finish(self) end
  running, self.limit = pcall(loop.call_later, loop, LINGER, finish, self)
  if not running then -- without memory nothing can be sent
    self.limit = nil
    return finish(self)
  end
  if not self.write_error then send(self) end
  if not self.sending then finish(self) end
end

function Filter:abort()
  self.closing = true
  local inner = self.inner
  if self.engine and inner.abort then inner:abort() end
  finish(self)
end

-- ---- the handshake ----

-- f(...), but what it raises is returned, unless it was cancelled.
local function try(f, ...)
  local ok, result = pcall(f, ...)
  if ok then return result end
  if agather.is_error(result, agather.CancelledError) then error(result, 0) end
  return nil, result
end

-- Errors of writing after which reading will come to an end.
local gone = { EPIPE = true, ECONNRESET = true }

local function is_gone(err) return agather.is_error(err, agather.OSError) and gone[err.code] or false end

-- Where the peer has gone, writing fails before its alert, which says why, was read: what fails is raised only when there
-- is nothing better to be said. Any other error of writing is the end: the peer waits for what was not sent.
local function shake(self)
  local inner, failure = self.inner, nil
  while true do
    local done, code, text = self.engine:handshake()
    local bytes = not failure and self.engine:take() -- also the alert that says why it failed
    if bytes then failure = select(2, try(inner.write, inner, bytes)) end
    if failure and not is_gone(failure) then error(failure, 0) end
    if done == nil then
      if code == nil or code == "UNEXPECTED_EOF" then
        if failure then error(failure, 0) end
        code, text = "UNEXPECTED_EOF", "the peer ended the connection during the handshake"
      end
      error(tls_error(self, "handshake", code, text), 0)
    end
    if done then break end
    local came, unread = try(inner.read, inner, CHUNK)
    if unread then error(failure or unread, 0) end
    if came then self.engine:feed(came) else self.engine:feed_end() end
  end
  if failure then error(failure, 0) end
end

local function shake_within(self, seconds)
  local scope <close> = agather.timeout(seconds)
  self.scope = scope
  shake(self)
end

--- Shakes hands. Where that fails, or is cancelled, nobody can use the stream below any more: it is closed.
---@async
---@param seconds number|false how long it may take
---@param is_client boolean
function Filter:handshake(seconds, is_client)
  local ok, err
  if seconds then ok, err = pcall(shake_within, self, seconds) else ok, err = pcall(shake, self) end
  local scope = self.scope
  self.scope = nil
  if ok then
    self.unread = is_client and self.engine:version() == "TLSv1.3"
    return
  end
  self.closing = true
  pcall(finish, self) -- what went wrong first is what counts
  if scope and scope:expired() and agather.is_error(err, agather.TimeoutError) then
    local where = self.address and " " .. self.address or ""
    err = agather.TimeoutError(("handshake%s: not done after %g seconds"):format(where, seconds))
  end
  error(err, 0)
end

-- ---- what the stream below knows ----

function Filter:set_write_buffer_limits(limits)
  local inner = self.inner
  if inner.set_write_buffer_limits then inner:set_write_buffer_limits(limits) end
end

function Filter:peer_address()
  local inner = self.inner
  if inner.peer_address then return inner:peer_address() end
end

function Filter:local_address()
  local inner = self.inner
  if inner.local_address then return inner:local_address() end
end

---@param engine userdata of agather.ssl
---@param inner any the stream below
---@param address? string for errors
return function(engine, inner, address)
  local self = setmetatable({
    engine = engine, -- nil once it is freed
    inner = inner,
    address = address,
    queue = {}, -- strings queue[first..last] are to be sent, the first from place `at` on
    first = 1, last = 0, at = 1,
    sending = false, -- the task that sends is at work
    idle = nil, -- a future of who waits until it is not
    write_error = nil,
    turn = 0, -- bytes that were decrypted in this turn
    written = false,
    unread = false, -- tickets may come that nobody has read
    closing = false,
    ending = false, -- close_notify is to be sent after the queue
  }, Filter)
  function self.run_sender() run_sender(self) end
  return self
end
