-- Two joined streams of every kind that there is, for specs and fuzz targets that must not care which. Listeners and TLS
-- contexts are kept for the next ones: use one loop.
local agather = require "agather"

-- A link is a table: name, one, other (the streams), aborted (what the other end sees of one:abort(), see
-- read_model.lua), takes_at_once (whether write has taken the bytes when it first waits), channel (of a stream in memory:
-- where its bytes are), finish (ends what else there is), one_way (only from one to other).
local links = {}

-- Those that cost little are there more often.
links.names = {
  "memory", "unix", "tcp", "tls_memory", "memory", "unix", "tcp", "tls_unix",
  "memory", "unix", "tcp", "pipe", "memory", "unix", "tcp", "memory", "unix", "tcp", "memory", "unix",
}

local kept = {}

local function keep(name, make)
  kept[name] = kept[name] or make()
  return kept[name]
end

local function channel_of(stream) return stream.transport.outgoing end

function links.memory()
  local one, other = agather.net.pair()
  return { name = "memory", one = one, other = other, aborted = "reset", channel = channel_of }
end

function links.unix()
  local path = keep("path", function()
    local free = os.tmpname()
    os.remove(free)
    return free .. ".socket"
  end)
  local listener = keep("unix", function() return agather.net.listen_unix(path) end)
  local one = agather.net.connect_unix(path)
  return { name = "unix", one = one, other = listener:accept(), aborted = "cut", takes_at_once = true }
end

local last_address = 0

-- Each connection comes from another address: those that are over still hold theirs.
function links.tcp()
  local listener = keep("tcp", function() return agather.net.listen("127.0.0.1", 0) end)
  local _, port = listener:local_address()
  last_address = (last_address + 1) % 62500
  local from = ("127.9.%d.%d"):format(last_address // 250, last_address % 250 + 1)
  local one = agather.net.connect("127.0.0.1", port, { local_address = from })
  return { name = "tcp", one = one, other = listener:accept(), aborted = "reset", takes_at_once = true }
end

-- Of nobody, for nothing else.
local key = [[
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2lrydXcgI8Y91lbU
bC1UcptLrObQfs8meH2FelODbWOhRANCAASEFZcAUJcL3wQ5IpeL9HafeQoeCkW4
+U26SpLC6DTWYybiwONe4DEsqr5DvzZ67IUQ4CY0WFdDm6fcw/AGv4HV
-----END PRIVATE KEY-----
]]
local certificate = [[
-----BEGIN CERTIFICATE-----
MIIBnjCCAUSgAwIBAgIUeA3tU6XMwI3EL5tWLhhB/LyieKswCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMZnV6ei5leGFtcGxlMCAXDTI2MTEyMTEzMDc0NFoYDzIxMjYx
MDI4MTMwNzQ0WjAXMRUwEwYDVQQDDAxmdXp6LmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAASEFZcAUJcL3wQ5IpeL9HafeQoeCkW4+U26SpLC6DTWYybi
wONe4DEsqr5DvzZ67IUQ4CY0WFdDm6fcw/AGv4HVo2wwajAdBgNVHQ4EFgQUIdBL
536RzlzOPbwhFd476cKy7QUwHwYDVR0jBBgwFoAUIdBL536RzlzOPbwhFd476cKy
7QUwDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggxmdXp6LmV4YW1wbGUwCgYI
KoZIzj0EAwIDSAAwRQIhAPNzHE3wcPGvjjuQexs9unuhfUJ3j25u0GgRNDTeDbPH
AiAF9H83FiUWKngx+6A3+jusAWpmVhLZtsrBm0kJUjyeMw==
-----END CERTIFICATE-----
]]

-- TLS over another link; its client is [one].
local function tls_over(below, name)
  local client = keep("client", function() return agather.tls.Context { verify = false } end)
  local server = keep("server", function() return agather.tls.Context { cert = certificate, key = key } end)
  local ends = agather.gather(function()
    return agather.tls.client(below.one, { context = client })
  end, function()
    return agather.tls.server(below.other, { context = server })
  end):await()
  return { name = name, one = ends[1], other = ends[2], aborted = "reset" }
end

function links.tls_memory() return tls_over(links.memory(), "tls_memory") end

function links.tls_unix() return tls_over(links.unix(), "tls_unix") end

-- What is written goes through a program.
function links.pipe()
  local child = agather.process.spawn { "cat", stderr = "null" }
  return {
    name = "pipe", one = child.stdin, other = child.stdout, aborted = "cut", takes_at_once = true, one_way = true,
    finish = function() child:wait() end,
  }
end

return links
