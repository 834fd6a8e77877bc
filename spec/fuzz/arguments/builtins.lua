-- What the fuzz target `arguments` calls: every function of the library and every method of its objects, found in the
-- tables of the modules and in the metatables of one object of each type; and the names of options, found in the
-- sources. What is new in the library is found without a change here, unless it is a type of object.
local agather = require "agather"
local net, fs, process, signal = agather.net, agather.fs, agather.process, agather.signal
local worker, json, http, tls = agather.worker, agather.json, agather.http, agather.tls

local builtins = {}

builtins.modules = {
  { "agather", agather }, { "agather.coroutine", agather.coroutine }, { "agather.net", net }, { "agather.dns", agather.dns },
  { "agather.fs", fs }, { "agather.process", process }, { "agather.signal", signal }, { "agather.worker", worker },
  { "agather.json", json }, { "agather.http", http }, { "agather.tls", tls }, { "agather.stream", agather.stream },
  { "agather.testing", agather.testing },
}

local function coroutine_of(f) return agather.async(f or function() agather.sleep(0.0001) end)() end

local function answer(stream)
  local _ <close> = stream
  repeat local line = stream:read("l") until not line or line == "\r" or line == ""
  stream:write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Type: application/json\r\n")
  stream:write("Set-Cookie: a=b\r\nConnection: close\r\n\r\n[1]\n")
  stream:flush()
end

-- One object of each type, by name; those that are closed have names of their own. They are made inside a run.
builtins.objects = {
  loop = function() return agather.get_running_loop() end,
  other_loop = function() return agather.new_event_loop() end,
  runner = function() return agather.Runner() end,
  task = function() return agather.spawn(agather.sleep, 0.001) end,
  failing = function() return agather.spawn(error, "fuzz: raised") end,
  this_task = function() return agather.current_task() end,
  future = function() return agather.future() end,
  done = function()
    local future = agather.future()
    future:set_result(1, nil, "three")
    return future
  end,
  cancelled = function()
    local future = agather.future()
    future:cancel("fuzz: cancelled")
    return future
  end,
  coro = function() return coroutine_of() end,
  used = function()
    local coro = coroutine_of(function() end)
    agather.await(coro)
    return coro
  end,
  handle = function() return agather.get_running_loop():call_later(0.0005, function() end) end,
  gather = function() return agather.gather(coroutine_of(), agather.future()) end,
  made = function() return agather.async(function(...) return ... end) end,
  lock = agather.Lock, event = agather.Event, semaphore = agather.Semaphore, condition = agather.Condition,
  bounded = function() return agather.BoundedSemaphore(2) end,
  barrier = function() return agather.Barrier(2) end,
  queue = function() return agather.Queue(2) end,
  lifo = agather.LifoQueue, priority = agather.PriorityQueue,
  variable = function() return agather.ContextVar("fuzz", 1) end,
  token = function() return agather.ContextVar("fuzz"):set(1) end,
  context = agather.copy_context,
  scope = function() return agather.timeout() end,
  group = agather.TaskGroup,
  iterator = function() return (agather.as_completed { coroutine_of() }) end,
  pair = function() return (net.pair()) end,
  listener = function() return net.listen("127.0.0.1", 0) end,
  unix_listener = function() return net.listen_unix("socket", { replace = true }) end,
  server = function() return net.start_server("127.0.0.1", 0, answer) end,
  stream = function()
    local listener <close> = net.listen("127.0.0.1", 0)
    local stream = net.connect(listener:local_address())
    local other = listener:accept()
    other:write("line\n12.5 rest\n")
    other:flush()
    other:shutdown()
    return stream
  end,
  closed_stream = function()
    local listener <close> = net.listen("127.0.0.1", 0)
    local stream = net.connect(listener:local_address())
    stream:close()
    return stream
  end,
  udp = function() return net.udp { local_address = { "127.0.0.1", 0 } } end,
  file = function() return fs.open("file", "w+") end,
  closed_file = function()
    local file = fs.open("file", "w+")
    file:close()
    return file
  end,
  watch = function() return fs.watch(".") end,
  stat = function() return fs.stat(".") end,
  child = function() return process.spawn { "true" } end,
  signals = function() return signal.on("SIGUSR1", function() end) end,
  pool = function() return worker.Pool { size = 1 } end,
  client = function() return http.Client() end,
  headers = function() return http.Headers { a = "b" } end,
  response = function()
    local server <close> = net.start_server("127.0.0.1", 0, answer)
    local host, port = server:local_address()
    agather.spawn(function() pcall(server.serve_forever, server) end)
    return http.get(("http://%s:%d/"):format(host, port), { timeout = 1 })
  end,
  open_response = function()
    local server <close> = net.start_server("127.0.0.1", 0, answer)
    local host, port = server:local_address()
    agather.spawn(function() pcall(server.serve_forever, server) end)
    return http.stream("GET", ("http://%s:%d/"):format(host, port), { timeout = 1 })
  end,
  tls_context = function() return tls.Context and tls.Context() or tls.context() end,
  error = function() return agather.Error("fuzz: an error") end,
  limit_error = function() return agather.LimitError("fuzz: a limit", { limit = "tasks", value = 3 }) end,
}

-- What belongs to no one input, or ends the program: not called with foreign values.
local left_out = {
  ["agather.companion"] = true, -- is for ever
  ["agather.testing.it"] = true, -- for busted
  ["agather.tls.prepare_client"] = true, ["agather.tls.prepare_server"] = true, -- the library's own
}

-- Metamethods that scripts reach by the language; __gc is not one of them.
local reachable = { __close = true, __tostring = true, __call = true, __len = true, __eq = true, __pairs = true }

local function methods_of(object)
  local found, metatable = {}, debug.getmetatable(object)
  if type(metatable) ~= "table" then return found end
  for name, value in pairs(metatable) do
    if reachable[name] and type(value) == "function" then found[name] = value end
  end
  local sources = { metatable.__index }
  if type(metatable.__index) == "function" then -- the methods are behind it
    for place = 1, 20 do
      local name, value = debug.getupvalue(metatable.__index, place)
      if not name then break end
      if name == "methods" then sources[#sources + 1] = value end
    end
  end
  for _, source in pairs(sources) do
    if type(source) == "table" and source ~= agather then
      for name, value in pairs(source) do
        if type(name) == "string" and type(value) == "function" and name ~= "__gc" then found[name] = value end
      end
    end
  end
  return found
end

-- The names of options in the sources of one file, and in all.
local function words(text, into)
  for list in text:gmatch('set "([%w_ ]+)"') do
    for word in list:gmatch("[%w_]+") do into[word] = true end
  end
  for _, pattern in ipairs { "([%a_]+) = true", "([%a_]+)%?:", "option[s]?%.([%a_]+)", "opts%.([%a_]+)", "^%-%-%-   ([%a_]+)  " } do
    for word in text:gmatch(pattern) do into[word] = true end
  end
end

local function sorted(set)
  local list = {}
  for word in pairs(set) do list[#list + 1] = word end
  table.sort(list)
  return list
end

-- Files of the library in Lua, by the name of the module that they are part of.
local files = {
  agather = { "meta", "wait", "timeout", "group", "map", "barrier", "callback", "progress" },
  ["agather.net"] = { "net", "server", "tls", "tls_context" }, ["agather.tls"] = { "tls", "tls_context" },
  ["agather.http"] = { "http.options", "http.client", "http.download", "http.body" },
}

local function options_of(module)
  local found = {}
  for _, name in ipairs(files[module] or { (module:gsub("^agather%.", "")) }) do
    local path = package.searchpath("agather." .. name, package.path)
    local file = path and io.open(path)
    if file then
      words(file:read("a"), found)
      file:close()
    end
  end
  return sorted(found)
end

-- Lists what there is to call: { name =, f =, self = name of an object or nil, module = }, in the same order always.
function builtins.list()
  local list, options = {}, {}
  for _, module in ipairs(builtins.modules) do
    local name, functions = module[1], module[2]
    options[name] = options_of(name)
    for key, f in pairs(functions) do
      local full = name .. "." .. tostring(key)
      local class = type(f) == "table" and debug.getmetatable(f)
      local callable = type(f) == "function" or class and type(class) == "table" and class.__call
      if callable and not left_out[full] then list[#list + 1] = { name = full, f = f, module = name } end
    end
  end
  local owners = {
    server = "agather.net", stream = "agather.net", listener = "agather.net", udp = "agather.net", file = "agather.fs",
    child = "agather.process", client = "agather.http", response = "agather.http", pool = "agather.worker",
  }
  agather.run(function()
    agather.get_running_loop():set_exception_handler(function() end)
    for name, make in pairs(builtins.objects) do
      local object = make()
      for method, f in pairs(methods_of(object)) do
        list[#list + 1] = { name = name .. ":" .. method, f = f, self = name, module = owners[name] or "agather" }
      end
    end
  end)
  table.sort(list, function(a, b) return a.name < b.name end)
  return list, options
end

-- Lazy functions of the module are found only once they were used.
for _, key in ipairs { "timeout", "timeout_at", "wait_for", "wait", "as_completed", "shield", "TaskGroup", "Barrier", "map",
  "from_callback" } do assert(agather[key], key) end

return builtins
