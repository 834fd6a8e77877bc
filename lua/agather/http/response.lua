-- Responses: what came back, all of it or (of a stream) piece by piece.
local agather = require "agather"
local errors = require "agather.http.errors"
local Headers = require "agather.http.headers"

---@class agather.http.Response
---@field status integer
---@field reason string
---@field headers table names without case; headers["content-type"], headers:get_all("set-cookie"), pairs(headers)
---@field url string where it came from, after redirects
---@field http_version string "1.1" or "2"
---@field elapsed number seconds from the request to the end of the response (of a stream: of its head)
---@field history agather.http.Response[] the redirects before it
---@field request { method: string, url: string }
local methods = {}

local metatable = { __name = "agather.http.Response" }

-- Fields with an underscore: _head (text), _body (text, when all has come), _transfer (while it comes), _limits; _upload,
-- which sends the rest of the request's body, and _close_body, which closes its files; and _done, the client's places that
-- it holds.
function metatable.__index(self, name)
  local method = methods[name]
  if method then return method end
  if name == "headers" then
    local headers = Headers.parse(rawget(self, "_head"))
    rawset(self, "headers", headers)
    return headers
  end
end

function metatable.__tostring(self)
  return ("Response: %d %s (%s)"):format(self.status, self.reason, self.url)
end

local function finish(self)
  local transfer, done, close_body = rawget(self, "_transfer"), rawget(self, "_done"), rawget(self, "_close_body")
  self._transfer, self._done, self._upload, self._close_body = nil, nil, nil, nil
  if transfer then transfer:close() end
  if done then done:give_back() end
  if close_body then close_body() end
end

--- Ends a stream: the connection is given up unless all has been read. Again is harmless.
function methods:close()
  if rawget(self, "_transfer") then self._closed = true end
  finish(self)
end

metatable.__close = methods.close

-- A stream that is forgotten gives its connection back, too.
local stream_metatable = { __gc = function(self) pcall(finish, self) end } -- the loop may be gone
for name, value in pairs(metatable) do stream_metatable[name] = value end

local function closed(self)
  error(agather.OSError("read " .. self.url .. ": the response is closed (EBADF)",
    { code = "EBADF", operation = "read", address = self.url }), 0)
end

-- The next piece of a stream; nil at its end.
local function next_piece(self)
  local transfer = rawget(self, "_transfer")
  if not transfer then
    if rawget(self, "_closed") then closed(self) end
    return nil
  end
  local piece = transfer:read()
  while piece == false do
    rawget(self, "_upload")("upload")
    piece = transfer:read()
  end
  if piece then return piece end
  local kind, cause, code, number = transfer:failure()
  self._closed = kind and true or nil
  finish(self)
  if kind then errors.raise_failure(self.request, self._limits, kind, cause, code, number) end
  return nil
end

--- The pieces of the body as they come: `for chunk in response:chunks() do`. The peer waits while they are not taken.
--- With [size]: pieces of that length, but for the last.
---@async
---@param size? integer
function methods:chunks(size)
  if size ~= nil and (math.type(size) ~= "integer" or size < 1) then
    error("bad argument #1 to 'chunks' (positive integer expected, got " .. tostring(size) .. ")", 2)
  end
  local whole = rawget(self, "_body")
  local function source()
    if whole then
      local piece = whole
      whole = nil
      return piece ~= "" and piece or nil
    end
    return next_piece(self)
  end
  if not size then return source end
  local kept, from, over = "", 1, false
  local function fill()
    local pieces, length = { kept:sub(from) }, #kept - from + 1
    while length < size and not over do
      local piece = source()
      if piece then
        pieces[#pieces + 1] = piece
        length = length + #piece
      else
        over = true
      end
    end
    kept, from = table.concat(pieces), 1
  end
  return function()
    if #kept - from + 1 < size and not over then fill() end
    if from > #kept then return nil end
    local piece = kept:sub(from, from + size - 1)
    from = from + #piece
    return piece
  end
end

--- The lines of the body as they come, without their ends.
---@async
function methods:lines()
  local next_chunk, kept, from, over = self:chunks(), "", 1, false
  return function()
    local searched = from
    while true do
      local stop = kept:find("\n", searched, true)
      if stop or over then
        if not stop and from > #kept then return nil end
        local line = kept:sub(from, stop and stop - 1)
        from = (stop or #kept) + 1
        return (line:gsub("\r$", ""))
      end
      local piece = next_chunk()
      kept = kept:sub(from)
      from, searched = 1, #kept + 1
      if piece then kept = kept .. piece else over = true end
    end
  end
end

--- The whole body; of a stream, what has not been taken yet. Bytes as they came, decompressed.
---@async
---@return string
function methods:text()
  local whole = rawget(self, "_body")
  if whole then return whole end
  local pieces = {}
  for piece in self:chunks() do pieces[#pieces + 1] = piece end
  self._body = table.concat(pieces)
  return self._body
end

--- The body as JSON; agather.json.decode.
---@async
function methods:json()
  local text = self:text()
  local ok, value = pcall(agather.json.decode, text)
  if not ok then errors.raise(errors.ProtocolError, self.request, tostring(value)) end
  return value
end

--- Raises HTTPStatusError for a status of 400 and more; otherwise returns the response.
---@return agather.http.Response
function methods:raise_for_status()
  if self.status >= 400 then
    local cause = ("%d %s"):format(self.status, self.reason):gsub(" $", "")
    errors.raise(errors.HTTPStatusError, { method = self.request.method, url = self.url }, cause,
      { status = self.status, response = self })
  end
  return self
end

local Response = {}

--- Makes a response of the fields and the head that curl gave; nil where that is no head.
function Response.new(fields, head)
  if not head then return nil end
  local version, status, reason = head:match("^HTTP/([%d.]+) (%d%d%d) ?([^\r\n]*)")
  if not version then return nil end
  fields._head = head
  fields.http_version, fields.status, fields.reason = version, math.tointeger(tonumber(status)), reason
  return setmetatable(fields, fields._transfer and stream_metatable or metatable)
end

return Response
