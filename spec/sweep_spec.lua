-- Every wait of every builtin, cancelled, and ended by a timeout: nothing is lost, nobody else notices, and no task,
-- waiter or descriptor is left.
local agather = require "agather"
local sweep = require "spec.support.sweep"
local system = require "spec.support.system"

-- A scenario whose run waits in at least [places] places.
local function cancels(name, places, scenario)
  it(name, function()
    agather.run(function() agather.net.listen("127.0.0.1", 0):close() end) -- what stays open comes with the first use
    local before = system.descriptors()
    local found = sweep(scenario)
    assert.is_true(found >= places, ("%d waits were found"):format(found))
    collectgarbage()
    collectgarbage()
    assert.same(before, system.descriptors())
  end)
end

-- A listener, and a connection to it: one is ours, the other the peer's.
local function connection()
  local listener = agather.net.listen("127.0.0.1", 0)
  local host, port = listener:local_address()
  local one = agather.net.connect(host, port)
  return { listener = listener, host = host, port = port, one = one, other = listener:accept() }
end

local function close_all(world)
  for _, name in ipairs { "one", "other", "listener" } do world[name]:close() end
end

describe("cancelling", function()
  cancels("locks and conditions leaves them free", 4, {
    given = function()
      local lock = agather.Lock()
      lock:acquire()
      return { lock = lock, condition = agather.Condition(),
        keeps = { agather.spawn(function() agather.sleep(0.002) lock:release() end) } }
    end,
    run = function(world)
      do
        local _ <close> = world.lock:acquire()
        agather.sleep(0)
      end
      local _ <close> = world.condition:acquire()
      agather.spawn(function()
        local _ <close> = world.condition:acquire()
        world.condition:notify(1)
      end)
      world.condition:wait()
      agather.sleep(0)
    end,
    after = function(world)
      agather.sleep(0.004)
      assert(not world.lock:locked() and not world.condition:locked())
    end,
  })

  cancels("queues loses no item", 2, {
    given = function() return { queue = agather.Queue(1), taken = 0 } end,
    run = function(world)
      local queue = world.queue
      world.keeps = { agather.spawn(function()
        for i = 1, 3 do queue:put(i) end
      end) }
      for _ = 1, 3 do
        queue:get()
        world.taken = world.taken + 1
        agather.sleep(0)
      end
    end,
    after = function(world)
      agather.sleep(0)
      while world.queue:qsize() > 0 do
        world.queue:get()
        world.taken = world.taken + 1
        agather.sleep(0)
      end
      assert(world.taken == 3 or not world.keeps, world.taken)
    end,
  })

  cancels("semaphores, events and barriers leaves their counts right", 3, {
    given = function()
      return { semaphore = agather.Semaphore(1), event = agather.Event(), barrier = agather.Barrier(2) }
    end,
    run = function(world)
      do
        local _ <close> = world.semaphore:acquire()
        agather.sleep(0)
      end
      agather.get_running_loop():call_later(0.001, world.event.set, world.event)
      world.event:wait()
      world.keeps = { agather.spawn(function() pcall(world.barrier.wait, world.barrier) end) }
      world.barrier:wait()
    end,
    after = function(world)
      agather.sleep(0.002)
      assert(not world.semaphore:locked())
    end,
  })

  cancels("what combines tasks ends them", 6, {
    run = function()
      local function job() agather.sleep(0.001) return 1 end
      agather.await(agather.gather(job, job))
      agather.map(job, { 1, 2, 3 }, { limit = 2 })
      do
        local group <close> = agather.TaskGroup()
        group:spawn(job)
        group:spawn(job)
      end
      agather.wait_for(job, 1)
      local _ <close> = agather.timeout(1)
      job()
      agather.coroutine.wrap(job)()
    end,
  })

  cancels("streams leaves the peer a stream", 3, {
    given = connection,
    run = function(world)
      world.keeps = { agather.spawn(function()
        world.other:read_exactly(10)
        world.other:write("line\nmore")
        world.other:shutdown()
        agather.sleep(0.001)
        while world.other:read(1 << 20) do agather.sleep(0) end
      end) }
      world.one:write("0123456789")
      world.one:read()
      world.one:read_exactly(4)
      world.one:read("a")
      world.one:write(("x"):rep(8 << 20))
    end,
    after = close_all,
  })

  cancels("connecting, accepting and datagrams leaves no socket", 3, {
    given = function() return connection() end,
    run = function(world)
      local connecting = agather.spawn(function() return agather.net.connect("localhost", world.port) end)
      local _ <close> = setmetatable({}, { __close = function() connecting:cancel() end })
      local accepted <close> = world.listener:accept()
      local connected <close> = connecting:await()
      accepted:write("x")
      connected:read(1)
      local one <close> = agather.net.udp()
      local two <close> = agather.net.udp { local_address = { "127.0.0.1", 0 } }
      one:send("ping", two:local_address())
      two:recv()
    end,
    after = close_all,
  })

  cancels("files leaves none open", 5, {
    given = function()
      local folder = system.folder()
      return { folder = folder }
    end,
    run = function(world)
      local fs, path = agather.fs, world.folder:at("file")
      fs.write_file(path, "one\ntwo\n", { atomic = true })
      fs.stat(path)
      local file <close> = fs.open(path, "r+")
      file:read()
      file:write("x")
      file:flush()
      fs.scandir(world.folder.path)
      fs.read_file(path)
      fs.rename(path, path .. "2")
      fs.remove(path .. "2")
    end,
    after = function(world)
      agather.sleep(0.005) -- the pool ends what it was doing
      world.folder:__close()
    end,
  })

  cancels("children ends them", 2, {
    run = function()
      agather.process.run { "true" }
      local child <close> = agather.process.spawn { "cat" }
      child.stdin:write("line\n")
      child.stdout:read()
      child.stdin:close()
      child:wait()
    end,
    after = function() assert(#system.children() == 0, system.children()[1]) end,
  })

  cancels("workers, look-ups and signals frees their tasks", 2, {
    run = function()
      agather.worker.run(math.sqrt, 2)
      agather.dns.resolve("127.0.0.1")
      agather.worker.map(math.sqrt, { 1, 4, 9 })
      agather.get_running_loop():call_later(0.002, function() os.execute("kill -USR1 " .. system.pid) end)
      agather.signal.wait("SIGUSR1", "SIGCHLD")
    end,
    after = function()
      local heard <close> = agather.signal.on("SIGUSR1", function() end)
      agather.sleep(0.01) -- the signal may be on its way
      assert(heard)
    end,
  })

  cancels("requests leaves no connection", 3, {
    given = function()
      local server = agather.net.start_server("127.0.0.1", 0, function(stream)
        while stream:read("l") do
          while stream:read_exactly(1) ~= "\r" do stream:read("l") end
          stream:read("l")
          stream:write("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", ("x"):rep(100000))
        end
      end, { on_error = function() end })
      local _, port = server:local_address()
      return { server = server, url = "http://127.0.0.1:" .. port .. "/",
        keeps = { agather.spawn(server.serve_forever, server) } }
    end,
    run = function(world)
      local client <close> = agather.http.Client()
      client:get(world.url)
      local response <close> = client:stream("GET", world.url)
      for _ in response:chunks() do agather.sleep(0) end
    end,
    after = function(world)
      assert(#agather.http.get(world.url):text() == 100000)
      world.server:shutdown(0)
      world.keeps[1]:await()
      world.keeps = nil
    end,
  })
end)
