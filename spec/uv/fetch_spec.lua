-- Many connections at once, to a real HTTP server and to one that drops some.
local agather = require "agather"

local function get(host, port, path)
  local stream <close> = agather.net.connect(host, port)
  stream:write("GET ", path, " HTTP/1.0\r\nHost: ", host, "\r\n\r\n")
  local response = stream:read("a")
  local status = tonumber(response:match("^HTTP/%d%.%d (%d+)"))
  if not status then error(agather.Error("no answer for " .. path), 0) end
  return response:match("\r\n\r\n(.*)$"), status
end

local function have_python() return (os.execute("command -v python3 >/dev/null 2>&1")) end

-- Starts python3's http.server over `count` JSON files; returns its port and a function that ends it. Its listen
-- queue of 5 makes the kernel drop most of 200 connections that come at once, so it gets a longer one.
local function start_python_server(count)
  local directory = os.tmpname()
  os.remove(directory)
  assert(os.execute("mkdir " .. directory))
  for id = 1, count do
    local file <close> = assert(io.open(("%s/%d.json"):format(directory, id), "w"))
    file:write(('{"id": %d, "title": "post %d"}'):format(id, id))
  end
  local program = "import http.server as s; s.ThreadingHTTPServer.request_queue_size = 512; "
    .. "s.test(s.SimpleHTTPRequestHandler, s.ThreadingHTTPServer, port=0, bind='127.0.0.1')"
  local pipe = assert(io.popen(([[cd %s; echo $$; exec python3 -u -c "%s" 2>/dev/null]]):format(directory, program)))
  local pid = pipe:read("l")
  local port = assert(pipe:read("l"):match("port (%d+)"))
  return math.tointeger(port), function()
    os.execute("kill " .. pid)
    pipe:close()
    os.execute("rm -r " .. directory)
  end
end

describe("two hundred requests at once", function()
  it("are answered by python3 -m http.server", function()
    if not have_python() then return pending("python3 is missing: 200 requests not made") end
    local port, stop = start_python_server(200)
    local ok, err = pcall(agather.run, function()
      local jobs = {}
      for id = 1, 200 do jobs[id] = function() return get("127.0.0.1", port, ("/%d.json"):format(id)) end end
      local bodies = agather.gather_list(jobs):await()
      assert.equal(200, bodies.n)
      for id = 1, 200 do assert.equal(('{"id": %d, "title": "post %d"}'):format(id, id), bodies[id]) end
    end)
    stop()
    assert.is_true(ok, err)
  end)

  it("fail exactly where the server drops the connection", function()
    agather.run(function()
      local address = agather.future()
      local server = agather.spawn(function()
        agather.net.serve("127.0.0.1", 0, function(stream)
          local id = math.tointeger(stream:read("l"):match("GET /(%d+)"))
          repeat local line = stream:read("l") until line == nil or line == "\r" or line == ""
          if id % 10 ~= 0 then stream:write("HTTP/1.0 200 OK\r\n\r\npost ", tostring(id)) end
        end, { on_listen = function(listener) address:set_result(listener:local_address()) end })
      end)
      local _, port = address:await()
      local jobs = {}
      for id = 1, 200 do jobs[id] = function() return get("127.0.0.1", port, "/" .. id) end end
      local results = agather.gather_list(jobs, { return_exceptions = true }):await()
      for id = 1, 200 do
        if id % 10 == 0 then
          assert.is_true(agather.is_error(results[id]), "post " .. id)
          assert.equal("no answer for /" .. id, tostring(results[id]))
        else
          assert.equal("post " .. id, results[id])
        end
      end
      server:cancel()
    end)
  end)
end)
