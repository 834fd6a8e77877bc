-- The errors of agather.http. Each names the method, the URL (which has no credentials by then) and the cause.
local agather = require "agather"

local errors = {}

--- What went wrong with a request; the base of all below but TLSError and TimeoutError, which agather itself has.
errors.Error = agather.Error:subclass("HTTPError")
--- No connection: the name is unknown, nobody listens, the network is away. .code as an OSError's ("ECONNREFUSED"), where
--- the system gave one, and .errno.
errors.ConnectError = errors.Error:subclass("ConnectError")
--- The peer's certificate, or the TLS connection; an agather.TLSError.
errors.TLSError = agather.TLSError:subclass("TLSError")
--- The peer broke off, or what it sent is not HTTP.
errors.ProtocolError = errors.Error:subclass("ProtocolError")
errors.TooManyRedirects = errors.Error:subclass("TooManyRedirects")
--- The body, decoded, or the head is longer than allowed.
errors.BodyTooLarge = errors.Error:subclass("BodyTooLarge")
--- raise_for_status: a status of 400 or more; .status, .response.
errors.HTTPStatusError = errors.Error:subclass("HTTPStatusError")
--- agather.TimeoutError, with .phase: "total", "connect" or "read".
errors.TimeoutError = agather.TimeoutError:subclass("TimeoutError")

--- Raises an object of the class.
---@param class table
---@param request { method: string, url: string }
---@param cause string
---@param fields? table
function errors.raise(class, request, cause, fields)
  fields = fields or {}
  cause = cause:gsub("%s+$", "")
  fields.method, fields.url, fields.cause = request.method, request.url, cause
  error(class(("%s %s: %s"):format(request.method, request.url, cause), fields), 0)
end

-- What transfer:failure() tells -> class and what is said before curl's words.
local kinds = {
  connect = { errors.ConnectError },
  tls = { errors.TLSError },
  protocol = { errors.ProtocolError },
  closed = { errors.ProtocolError },
  body = { errors.BodyTooLarge },
  head = { errors.BodyTooLarge },
  total = { errors.TimeoutError, "total" },
  connecting = { errors.TimeoutError, "connect" },
  read = { errors.TimeoutError, "read" },
}

local phases = {
  total = "no complete response after %g s",
  connect = "no connection after %g s",
  read = "no byte for %g s",
}

--- Raises the error of a phase that took too long.
function errors.timed_out(request, phase, seconds)
  errors.raise(errors.TimeoutError, request, phases[phase]:format(seconds), { phase = phase })
end

--- Raises the error of a transfer that failed; [limits] holds timeouts and max_body.
function errors.raise_failure(request, limits, kind, cause, code, number)
  if kind == "memory" then error("not enough memory", 0) end
  local class, phase = kinds[kind][1], kinds[kind][2]
  if phase then errors.timed_out(request, phase, limits["timeout_" .. phase] or 0) end
  if kind == "body" then cause = ("the body is longer than %d bytes"):format(limits.max_body) end
  if kind == "head" then cause = "the head of the response is too long" end
  if kind == "closed" then cause = "the loop has closed" end
  if code then cause = ("%s (%s)"):format(cause, code) end
  errors.raise(class, request, cause, { code = code, errno = number })
end

return errors
