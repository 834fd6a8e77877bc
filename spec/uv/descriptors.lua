-- Uses each kind of I/O while the process may open few descriptors or none: see descriptors_spec.lua. With the name of a
-- use it is tried once, from a cold start; else each of them with 0, 1, 2 ... descriptors to spare, in one process whose
-- limit prlimit(1) sets.
local loaded, agather = pcall(require, "agather")
if not loaded then return print("cannot be loaded") end

-- Enough for each use. All numbers up to it are tried under AGATHER_TORTURE=full, otherwise each third, others of each use.
local MOST_SPARE = 18
local STRIDE = os.getenv("AGATHER_TORTURE") == "full" and 1 or 3

-- What comes of EMFILE besides it: the other side's end, a name that the system could not look up.
local FOLLOW = { EMFILE = true, ECONNRESET = true, EPIPE = true, EAI_SYSTEM = true, EAI_AGAIN = true, EAI_NONAME = true,
  EAI_FAIL = true, EAI_MEMORY = true }

local certificates = { ca = os.getenv("CA"), cert = os.getenv("CERT"), key = os.getenv("KEY") }

local function echo(stream)
  for line in stream:lines() do stream:write(line, "\n") end
end

local function ask(stream)
  stream:write("a line\n")
  assert(stream:read() == "a line", "ended early")
end

local function answer(stream)
  repeat local line = stream:read("L") until not line or line == "\r\n"
  stream:write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
end

local function quiet() end

-- A server and what a client does. The server would go on to accept when it can, but nobody gives it a descriptor here.
local function serve(start, client)
  local failed = agather.future()
  local server <close> = start { on_error = function(err)
    if not failed:done() then failed:set_exception(err) end
  end }
  agather.gather(function() server:serve_forever() end, function()
    client(select(2, server:local_address()))
    server:shutdown(1)
    if not failed:done() then failed:set_result() end
  end, failed, { cancel_on_error = true }):await()
end

local uses = {
  tcp = function()
    serve(function(options) return agather.net.start_server("127.0.0.1", 0, echo, options) end, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      ask(stream)
    end)
  end,
  unix = function()
    local path = os.getenv("FILES") .. "/socket"
    serve(function(options) return agather.net.start_unix_server(path, echo, options) end, function()
      local stream <close> = agather.net.connect_unix(path)
      ask(stream)
    end)
  end,
  tls = function()
    serve(function(options)
      options.tls = { cert = certificates.cert, key = certificates.key }
      return agather.net.start_server("127.0.0.1", 0, echo, options)
    end, function(port)
      local options = { tls = { ca = certificates.ca, server_name = "a.example" } }
      local stream <close> = agather.net.connect("127.0.0.1", port, options)
      ask(stream)
    end)
  end,
  http = function()
    serve(function(options) return agather.net.start_server("127.0.0.1", 0, answer, options) end, function(port)
      local client <close> = agather.http.Client { timeout = 2 }
      assert(client:get(("http://127.0.0.1:%d/"):format(port)):text() == "hello")
    end)
  end,
  udp = function()
    local one <close> = agather.net.udp { local_address = { "127.0.0.1", 0 } }
    local other <close> = agather.net.udp { remote_address = { one:local_address() } }
    other:send("datagram")
    assert(one:recv() == "datagram")
  end,
  dns = function() agather.dns.reverse("127.0.0.1", { cache = false }) end,
  children = function() assert(agather.process.run { "cat", stdin = "fed" }.stdout == "fed") end,
  workers = function()
    local pool <close> = agather.worker.Pool { size = 1 }
    assert(pool:run(function(n) return n + 1 end, 1) == 2)
  end,
  files = function()
    local fs, path = agather.fs, os.getenv("FILES") .. "/f"
    fs.write_file(path, "text", { atomic = true })
    fs.copy_file(path, path .. "2")
    do
      local file <close> = fs.open(path .. "2")
      assert(file:read("a") == "text")
    end
    fs.scandir(os.getenv("FILES"))
    fs.remove(path .. "2", { recursive = true })
  end,
  watch = function() agather.fs.watch(os.getenv("FILES")):close() end,
  signal = function() agather.signal.on("SIGUSR1", quiet):close() end,
  sleep = function() agather.sleep(0) end,
}

-- "ok", "EMFILE", or what should not be.
local function outcome(use)
  local ok, err = pcall(agather.run, function()
    local _ <close> = agather.timeout(5)
    use()
  end)
  if ok then return "ok" end
  local code = type(err) == "table" and err.code
  -- curl has no number for a socket it does not get; Lua's loaders have only text
  local text = tostring(err)
  if FOLLOW[code] or text:find("Too many open files", 1, true) or text:find("Couldn't connect", 1, true)
    or text:find("Couldn't resolve", 1, true) or text:find("module 'agather%.[%w_.]+' not found")
    or text:find("ended early", 1, true) then
    return "EMFILE"
  end
  return text
end

if arg[1] then return print(outcome(uses[arg[1]])) end

local system = require "spec.support.system"

local function limit(number)
  assert(os.execute(("prlimit --pid %d --nofile=%d:1024"):format(system.pid, number)))
end

-- The first number that no descriptor has.
local function first_free()
  local number = 0
  while true do
    local file = io.open("/proc/self/fdinfo/" .. number)
    if not file then return number end
    file:close()
    number = number + 1
  end
end

local function names(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local failed, worked = 0, 0

local function try(name, free, spare, before)
  limit(math.max(free + spare, 4)) -- with 4 the shell begins that sets it back
  local result = outcome(uses[name])
  limit(1024)
  for number, target in pairs(system.descriptors()) do
    if before[number] ~= target then print(name, spare, "leaves", number, target) end
  end
  failed, worked = failed + (result == "EMFILE" and 1 or 0), worked + (result == "ok" and 1 or 0)
  if result ~= "ok" and (result ~= "EMFILE" or spare == MOST_SPARE) then print(name, spare, result) end
  if result == "ok" and spare == 0 then print(name, "works without descriptors") end
  local again = outcome(uses[name])
  if again ~= "ok" then print(name, spare, "afterwards", again) end
end

for place, name in ipairs(names(uses)) do
  assert(outcome(uses[name]) == "ok", name) -- what comes with the first use stays
  local before, free = system.descriptors(), first_free()
  for spare = 0, MOST_SPARE do
    if (spare + place) % STRIDE == 0 or spare == MOST_SPARE then try(name, free, spare, before) end
  end
end
print(failed > 20 and worked > 20 and "done" or ("%d failed, %d worked"):format(failed, worked))
