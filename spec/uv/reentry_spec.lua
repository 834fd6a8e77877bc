-- Re-entrancy: from the callbacks of input and output, whatever user code may do. See spec/support/reentry.lua.
local agather = require "agather"
local reentry = require "spec.support.reentry"
local servers = require "spec.support.servers"
local system = require "spec.support.system"

local kind = reentry.kind

-- Has client(host, port) connect to a server with this handler, and closes it.
local function serving(world, handler, options, client)
  local server = agather.net.start_server("127.0.0.1", 0, handler, options)
  local task = agather.spawn(server.serve_forever, server)
  world.close = function() server:close() end
  local _ <close> = setmetatable({}, { __close = function()
    server:close()
    task:cancel()
  end })
  client(server:local_address())
end

-- Until the callback was called, and a little longer.
local function called(world)
  while world.calls == 0 do agather.sleep(0.0005) end
  for _ = 1, 3 do agather.sleep(0) end
end

kind { "the handler of a server", errors = "reported", waits = true, elsewhere = true,
  run = function(call, world)
    serving(world, function(stream) call() stream:write("x") end, nil, function(...)
      local stream <close> = agather.net.connect(...)
      pcall(stream.read, stream, 1)
      called(world)
    end)
  end }

kind { "the on_error of a server", errors = "reported", elsewhere = true,
  run = function(call, world)
    serving(world, function() error "failed" end, { on_error = call }, function(...)
      local stream <close> = agather.net.connect(...)
      pcall(stream.read, stream, 1)
      called(world)
    end)
  end }

kind { "the on_listen of a server", errors = "raised", waits = true,
  run = function(call, world)
    agather.net.serve("127.0.0.1", 0, function() end, { on_listen = function(server)
      world.close = function() server:close() end
      local _ <close> = setmetatable({}, { __close = function() server:close() end })
      call()
    end })
    agather.sleep(0)
  end }

local made

-- A certificate and its key, made once.
local function certificate()
  if not made then
    local folder <close> = system.folder()
    assert(os.execute(("unset LD_PRELOAD; cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
      .. "-nodes -subj /CN=localhost -keyout key -out cert 2>log"):format(folder.path)), "openssl failed")
    made = { system.slurp(folder:at("cert")), system.slurp(folder:at("key")) }
  end
  return made[1], made[2]
end

kind { "the on_error of a listener with TLS", errors = "reported", waits = true, elsewhere = true,
  run = function(call, world)
    local cert, key = certificate()
    local listener <close> = agather.net.listen("127.0.0.1", 0, {
      tls = { cert = cert, key = key },
      on_error = function() if world.calls == 0 then call() end end,
    })
    world.close = function() listener:close() end
    local accepting = agather.spawn(pcall, listener.accept, listener)
    local stream <close> = agather.net.connect(listener:local_address())
    stream:write("this is no TLS\n\n\n\n\n")
    called(world)
    accepting:cancel()
  end }

kind { "the function of a signal", errors = "reported", waits = true, elsewhere = true,
  run = function(call, world)
    local handler <close> = agather.signal.on("SIGUSR1", call)
    world.close = function() handler:close() end
    os.execute("kill -USR1 " .. system.pid)
    called(world)
  end }

local function answering(client)
  return function(call, world)
    serving(world, function(stream)
      while servers.read_request(stream) do
        stream:write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody")
      end
    end, { on_error = function() end }, function(host, port)
      client(call, world, ("http://%s:%d/"):format(host, port))
      called(world)
    end)
  end
end

kind { "the progress function of a download", errors = "raised", waits = true,
  run = answering(function(call, _, url)
    local folder <close> = system.folder()
    agather.http.download(url, folder:at("file"), { progress = call })
  end) }

kind { "the function that gives a body to be sent", errors = "raised", waits = true, elsewhere = true,
  run = answering(function(call, _, url)
    local given = false
    agather.http.post(url, {
      body = function()
        if given then return nil end
        given = true
        call()
        return "piece"
      end,
    })
  end) }

kind { "a finalizer while streams are read and written", errors = "nobody's",
  run = function(call, world)
    local one, other = agather.net.pair()
    world.close = function() one:close() other:close() end
    local reading = agather.spawn(pcall, other.read_exactly, other, 1000)
    agather.sleep(0)
    setmetatable({}, { __gc = call })
    collectgarbage()
    pcall(one.write, one, ("x"):rep(1000))
    agather.sleep(0)
    one:close()
    reading:await()
    other:close()
  end }

kind { "a done callback of a task that reads", errors = "reported",
  run = function(call, world)
    local one, other = agather.net.pair()
    world.close = function() one:close() other:close() end
    local reading = agather.spawn(other.read, other)
    reading:add_done_callback(call)
    one:write("line\n")
    agather.wait { reading }
    agather.sleep(0)
    one:close()
    other:close()
  end }

kind { "a __close while a task that reads is cancelled", errors = "raised", waits = true, elsewhere = true,
  run = function(call, world)
    local one <close>, other = agather.net.pair()
    local task = agather.spawn(function()
      local _ <close> = setmetatable({}, { __close = function() call() other:close() end })
      other:read()
    end)
    world.close = function() one:close() other:close() end
    agather.sleep(0)
    task:cancel()
    local ok, err = pcall(task.await, task)
    other:close()
    if not ok and not task:cancelled() then error(err, 0) end
  end }
