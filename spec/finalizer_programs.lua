-- What spec/finalizer_spec.lua runs: calls, and what finalizers do within them.
local agather = require "agather"
local finalizer = require "spec.support.finalizer"

local programs = {}

local function quiet() end

local function still_runs(problem)
  local ok, err = pcall(agather.run, function()
    agather.sleep(0)
    return agather.gather(function() return 1 end):await()
  end)
  if not ok then problem("the next run: " .. tostring(err)) end
end

-- ---- a loop that does not run ----

function programs.idle()
  finalizer.run({
    call_soon = function(loop) loop:call_soon(quiet) end,
    call_later = function(loop) loop:call_later(0, quiet, 1, 2, 3) end,
    create_future = function(loop) loop:create_future():set_result(1, 2, 3) end,
    create_task = function(loop) loop:create_task(quiet) end,
    ["create_task of a coro"] = function(loop) loop:create_task(agather.async(quiet)(1, 2)) end,
    ["create_task with options"] = function(loop) loop:create_task(quiet, { name = "name" }) end,
    add_done_callback = function(loop)
      local future = loop:create_future()
      for _ = 1, 3 do future:add_done_callback(quiet) end
      future:set_result()
    end,
    set_exception = function(loop) loop:create_future():set_exception("failed") end,
    run_until_complete = function(loop)
      loop:run_until_complete(function() agather.sleep(0) return 1, 2, 3 end)
    end,
    run_forever = function(loop)
      loop:call_soon(loop.stop, loop)
      loop:run_forever()
    end,
    close = function(loop)
      loop:create_task(quiet)
      loop:call_soon(quiet)
      loop:close()
    end,
    cancel = function(loop) loop:create_task(quiet):cancel("why") end,
    call_exception_handler = function(loop) loop:call_exception_handler { message = "message" } end,
    ["a Runner"] = function()
      local runner <close> = agather.Runner()
      assert(runner:run(function() return 3 end) == 3)
    end,
  }, {
    ["closes the loop"] = function(loop) loop:close() end,
    ["runs the loop"] = function(loop) loop:run_until_complete(function() agather.sleep(0) end) end,
    ["runs another loop, and closes this"] = function(loop)
      agather.run(function() agather.sleep(0) loop:close() end)
    end,
    ["schedules"] = function(loop)
      loop:call_soon(quiet)
      loop:call_later(0, quiet)
      loop:create_task(quiet)
    end,
  }, function(f, problem)
    local loop = agather.new_event_loop()
    loop:set_exception_handler(quiet)
    f(loop)
    local ok, err = pcall(loop.close, loop)
    if not ok then problem(err) end
    if not loop:is_closed() then problem "the loop is open" end
    still_runs(problem)
  end)
end

-- ---- tasks ----

local function settle(f, ...)
  local ok, err = pcall(f, ...)
  if not ok and not agather.is_error(err, agather.InvalidStateError) then error(err, 0) end
end

function programs.tasks()
  finalizer.run({
    ["set_result"] = function(world)
      local value
      world.future:add_done_callback(function(future) value = future:result() end)
      world.future:set_result("call", 1, 2)
      agather.sleep(0)
      assert(value == "call")
    end,
    ["set_exception"] = function(world)
      world.future:set_exception("call")
      agather.sleep(0)
      assert(world.future:exception().value == "call")
    end,
    ["cancel with a message"] = function(world) world.future:cancel("message") end,
    ["await"] = function(world) world.future:await() end,
    ["gather"] = function(world)
      agather.gather(quiet, agather.async(quiet)(1), world.other, quiet, { return_exceptions = true }):await()
    end,
    ["gather that fails"] = function(world)
      pcall(function() agather.gather(quiet, error, world.other, { cancel_on_error = true }):await() end)
    end,
    ["map"] = function() assert(#agather.map(function(i) return i end, { 1, 2, 3 }, { limit = 2 }) == 3) end,
    ["a group"] = function(world)
      local group <close> = agather.TaskGroup()
      group:spawn(quiet)
      group:spawn(function() agather.await(agather.shield(world.other)) end)
    end,
    ["wait"] = function(world) agather.wait({ quiet, world.other, agather.spawn(quiet) }, { timeout = 1 }) end,
    ["wait_for"] = function(world) agather.wait_for(world.other, 1) end,
    ["as_completed"] = function(world)
      for task in agather.as_completed { quiet, world.other } do task:await() end
    end,
    ["timeout"] = function(world)
      local deadline <close> = agather.timeout(1)
      deadline:reschedule(agather.get_running_loop():time() + 2)
      world.other:await()
    end,
    ["queues"] = function(world)
      local putting = agather.spawn(function() for i = 1, 3 do world.queue:put(i) end end)
      for _ = 1, 3 do world.queue:get() end
      putting:await()
    end,
    ["a queue of priorities"] = function()
      local queue = agather.PriorityQueue(2, function(a, b) return tostring(a) .. "" < tostring(b) .. "" end)
      local putting = agather.gather_list { function() queue:put(3) end, function() queue:put(2) end }
      putting:await()
      putting = agather.spawn(queue.put, queue, 1)
      for _ = 1, 2 do queue:get() end
      putting:await()
      queue:get()
    end,
    ["locks"] = function(world)
      do local _ <close> = world.lock:acquire() agather.sleep(0) end
      local _ <close> = world.condition:acquire()
      world.condition:notify(1)
    end,
    ["a barrier"] = function()
      local barrier = agather.Barrier(2)
      local task = agather.spawn(barrier.wait, barrier)
      barrier:wait()
      task:await()
    end,
    ["context"] = function(world)
      local token = world.variable:set(1)
      agather.copy_context():run(function() world.variable:set(2) agather.sleep(0) end)
      world.variable:reset(token)
    end,
    ["generators"] = function()
      local sum = 0
      for i in agather.coroutine.wrap(function()
        for i = 1, 3 do agather.sleep(0) agather.coroutine.yield(i) end
      end) do sum = sum + i end
      assert(sum == 6)
    end,
    ["sleep"] = function() agather.sleep(0.00001, 1, 2, 3) end,
    ["a failing task"] = function()
      local task = agather.spawn(error, "failed")
      assert(not pcall(task.await, task))
    end,
    ["a deep chain"] = function()
      local function deep(n) return n == 0 and 0 or 1 + agather.await(agather.async(deep)(n - 1)) end
      assert(deep(40) == 40)
    end,
  }, {
    ["settles the future"] = function(world) settle(world.future.set_result, world.future, 1, 2, 3) end,
    ["fails the future"] = function(world)
      settle(world.future.set_exception, world.future, "by the finalizer")
      world.future:cancel()
    end,
    ["cancels the future"] = function(world) world.future:cancel("by the finalizer") end,
    ["cancels the task"] = function(world) world.subject:cancel() end,
    ["cancels all others"] = function(world)
      world.alone = true -- who waited for one of them may wait for ever
      for _, task in ipairs(agather.all_tasks()) do
        if task ~= world.subject and task ~= world.main and task ~= world.helper then task:cancel() end
      end
    end,
    ["runs a main function"] = function()
      assert(agather.run(function() agather.sleep(0) agather.sleep(0) return 5 end) == 5)
    end,
    ["stops the loop"] = function(world) world.loop:stop() end,
    ["puts and gets"] = function(world)
      pcall(world.queue.put_nowait, world.queue, 3)
      pcall(world.queue.get_nowait, world.queue)
      pcall(world.queue.put_nowait, world.queue, 4)
    end,
    ["makes tasks, and leaves a failed future"] = function()
      agather.gather(quiet, quiet)
      agather.future():set_exception("nobody's")
      agather.async(quiet)()
    end,
  }, function(f, problem)
    local world
    local ok, err = pcall(agather.run, function()
      local future = agather.future()
      world = {
        loop = agather.get_running_loop(), main = agather.current_task(), future = future,
        other = agather.spawn(function() agather.sleep(0) agather.sleep(0) return "other" end),
        queue = agather.Queue(1), lock = agather.Lock(), condition = agather.Condition(),
        variable = agather.ContextVar("variable", 0),
      }
      world.loop:set_exception_handler(quiet)
      world.subject = agather.spawn(f, world)
      world.helper = agather.spawn(function() -- what waits is woken in the end
        for _ = 1, 40 do agather.sleep(0) end
        if not future:done() then future:set_result() end
        for _ = 1, 3 do pcall(world.queue.get_nowait, world.queue) agather.sleep(0) end
      end)
      agather.wait { world.subject }
      if future:done() and not future:cancelled() then future:exception() end
    end)
    local stuck = world.alone and agather.is_error(err, agather.DeadlockError)
    if not ok and not stuck and not tostring(err):find("stopped before", 1, true) then problem(err) end
    if not world.loop:is_closed() then problem "the loop is open" end
    if not world.subject:done() then problem "the task has no outcome" end
    still_runs(problem)
  end)
end

-- ---- input and output ----

local function close_all(world)
  for _, thing in ipairs(world.things) do thing:close() end
end

local function io_actions()
  return {
    ["closes everything"] = close_all,
    ["cancels the task"] = function(world) world.subject:cancel() end,
    ["cancels everything"] = function(world)
      for _, task in ipairs(agather.all_tasks()) do
        if task ~= world.main then task:cancel() end
      end
    end,
    ["runs a main function"] = function()
      assert(agather.run(function() agather.sleep(0) agather.sleep(0.0001) return 5 end) == 5)
    end,
    ["closes everything, in a run"] = function(world)
      agather.run(function() close_all(world) agather.sleep(0.0001) end)
    end,
    ["opens and closes"] = function()
      local socket <close> = agather.net.udp()
      return socket
    end,
    ["stops the loop"] = function(world) world.loop:stop() end,
  }
end

-- A run with a connection; things are what the finalizer may close.
local function connected(f, problem)
  local world = { things = {} }
  local function thing(value)
    world.things[#world.things + 1] = value
    return value
  end
  world.thing = thing
  local ok, err = pcall(agather.run, function()
    world.loop, world.main = agather.get_running_loop(), agather.current_task()
    world.loop:set_exception_handler(quiet)
    world.listener = thing(agather.net.listen("127.0.0.1", 0))
    world.host, world.port = world.listener:local_address()
    world.one = thing(agather.net.connect(world.host, world.port))
    world.other = thing(world.listener:accept())
    world.subject = agather.spawn(f, world)
    local deadline = agather.get_running_loop():time() + 10
    while not world.subject:done() and agather.get_running_loop():time() < deadline do
      agather.wait({ world.subject }, { timeout = 0.02 })
      if world.acted and not world.subject:done() then close_all(world) end -- its peer may be gone
    end
    if not world.subject:done() then problem("the task hangs: " .. tostring(world.subject) .. world.subject:traceback()) end
    close_all(world)
  end)
  if not ok and not tostring(err):find("stopped before", 1, true) then problem(err) end
  if not world.loop:is_closed() then problem "the loop is open" end
  if world.subject and not world.subject:done() then problem "the task has no outcome" end
  still_runs(problem)
end

function programs.streams()
  finalizer.run({
    ["write and read"] = function(world)
      world.one:write("line\n", "more\n")
      assert(world.other:read("L") == "line\n")
      assert(world.other:read_exactly(5) == "more\n")
    end,
    ["read_until and lines"] = function(world)
      world.one:write("a;b\nc\n")
      world.one:shutdown()
      assert(world.other:read_until(";") == "a;")
      for line in world.other:lines() do assert(#line == 1) end
    end,
    ["read all"] = function(world)
      world.one:write(("x"):rep(10000))
      world.one:close()
      assert(#world.other:read("a") == 10000)
    end,
    ["a large write"] = function(world)
      local reading = agather.spawn(function() return #world.other:read_exactly(1 << 18) end)
      world.one:write(("x"):rep(1 << 18))
      reading:await()
    end,
    ["listen and connect"] = function(world)
      local listener <close> = world.thing(agather.net.listen("127.0.0.1", 0))
      local stream <close> = world.thing(agather.net.connect(listener:local_address()))
      local accepted <close> = world.thing(listener:accept())
      return tostring(stream) .. tostring(accepted) .. tostring(listener)
    end,
    ["connect by name"] = function(world)
      local stream <close> = world.thing(agather.net.connect("localhost", world.port))
      return stream:peer_address()
    end,
    ["connect to nobody"] = function()
      assert(not pcall(agather.net.connect, "127.0.0.1", 1))
    end,
    ["datagrams"] = function(world)
      local socket <close> = world.thing(agather.net.udp { local_address = { "127.0.0.1", 0 } })
      socket:send("ping", socket:local_address())
      socket:recv()
    end,
    ["a server"] = function(world)
      local server <close> = agather.net.start_server("127.0.0.1", 0, function(stream) stream:write(stream:read("L")) end,
        { on_error = quiet })
      local serving = agather.spawn(server.serve_forever, server)
      local stream <close> = world.thing(agather.net.connect(server:local_address()))
      stream:write("x\n")
      stream:read()
      server:shutdown()
      serving:await()
    end,
    ["a timeout"] = function(world)
      assert(not pcall(agather.wait_for, function() world.one:read() end, 0.0001))
    end,
  }, io_actions(), connected)
end

function programs.files()
  local folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir " .. folder)
  finalizer.run({
    ["files"] = function(world)
      local file <close> = world.thing(agather.fs.open(folder .. "/file", "w+"))
      file:write("one\ntwo\n")
      file:seek("set")
      file:read("l")
    end,
    ["whole files"] = function()
      agather.fs.write_file(folder .. "/whole", "text", { atomic = true })
      agather.fs.read_file(folder .. "/whole")
    end,
    ["paths"] = function()
      agather.fs.stat(folder)
      agather.fs.scandir(folder)
    end,
    ["watching"] = function(world)
      local watcher <close> = world.thing(agather.fs.watch(folder))
      agather.fs.write_file(folder .. "/watched", tostring(world))
      watcher:wait()
    end,
    ["names"] = function() agather.dns.resolve("127.0.0.1") agather.dns.resolve("localhost") end,
    ["signals"] = function(world)
      local handler <close> = world.thing(agather.signal.on("SIGUSR1", quiet))
      pcall(agather.wait_for, function() agather.signal.wait("SIGUSR2") end, 0.0001)
      return handler
    end,
    ["workers"] = function() agather.worker.run(math.max, 1, 2) end,
    ["json"] = function()
      local json = agather.json
      json.encode(json.decode(json.encode { a = { 1, 2, { b = "text" } }, c = 1.5 }), { sort = true })
    end,
  }, io_actions(), connected)
  os.execute("rm -r " .. folder)
end

function programs.children()
  finalizer.run({
    ["run"] = function() agather.process.run { "true" } end,
    ["spawn"] = function(world)
      local child <close> = agather.process.spawn { "cat" }
      world.thing { close = function() child:kill("SIGKILL") end }
      child.stdin:write("x\n")
      child.stdout:read()
      child.stdin:close()
      child:wait()
    end,
  }, io_actions(), connected)
end

return programs
