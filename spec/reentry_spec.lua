-- Re-entrancy: from every kind of callback of the core, whatever user code may do. See spec/support/reentry.lua.
local agather = require "agather"
local reentry = require "spec.support.reentry"
local support = require "spec.support"

local kind = reentry.kind

-- Callbacks that the loop runs, in which nothing may wait and whose errors it reports.

kind { "a done callback of a future", errors = "reported", elsewhere = true,
  run = function(call, world)
    local future = agather.future()
    future:add_done_callback(call)
    world.close = function() future:remove_done_callback(call) future:cancel() end
    future:set_result(1)
    agather.sleep(0)
    agather.sleep(0)
  end }

kind { "a done callback of a task", errors = "reported",
  run = function(call, world)
    local task = agather.spawn(function() end)
    task:add_done_callback(call)
    world.close = function() task:cancel() end
    agather.wait { task }
    agather.sleep(0)
  end }

kind { "a done callback of a gather", errors = "reported",
  run = function(call, world)
    local group = agather.gather(function() end, function() end)
    group:add_done_callback(call)
    world.close = function() group:cancel() end
    group:await()
    agather.sleep(0)
  end }

kind { "a done callback of a task that is cancelled", errors = "reported",
  run = function(call, world)
    local task = agather.spawn(agather.sleep, 100)
    task:add_done_callback(call)
    world.close = function() task:cancel() end
    agather.sleep(0)
    task:cancel()
    agather.wait { task }
    agather.sleep(0)
  end }

kind { "a function of call_soon", errors = "reported",
  run = function(call, world)
    local handle = world.loop:call_soon(call)
    world.close = function() handle:cancel() end
    agather.sleep(0)
    agather.sleep(0)
  end }

kind { "a function of call_later", errors = "reported",
  run = function(call, world)
    local handle = world.loop:call_later(0, call)
    world.close = function() handle:cancel() end
    agather.sleep(0.001)
  end }

kind { "the exception handler, called for a callback", errors = "reported", reports = true,
  run = function(call, world)
    world.loop:set_exception_handler(function()
      local ok, err = pcall(call)
      if not ok then world.reports.raised = err end
    end)
    world.close = function() world.loop:set_exception_handler(nil) end
    world.loop:call_soon(error, "reported")
    agather.sleep(0)
    agather.sleep(0)
  end }

kind { "the exception handler, called for a task that nobody awaits", errors = "reported", reports = true,
  run = function(call, world)
    world.loop:set_exception_handler(function()
      local ok, err = pcall(call)
      if not ok then world.reports.raised = err end
    end)
    world.close = function() world.loop:set_exception_handler(nil) end
    agather.spawn(error, "reported")
    agather.sleep(0)
    while world.calls == 0 do agather.sleep(0.001) end
  end }

kind { "the exception handler, called by the script", errors = "reported", reports = true,
  run = function(call, world)
    world.loop:set_exception_handler(function()
      local ok, err = pcall(call)
      if not ok then world.reports.raised = err end
    end)
    world.close = function() world.loop:set_exception_handler(nil) end
    world.loop:call_exception_handler {}
    agather.sleep(0)
  end }

kind { "the function that from_callback calls on cancellation", errors = "reported",
  run = function(call, world)
    local future = agather.from_callback(function() return call end)
    world.close = function() future:cancel() end
    future:cancel()
    agather.sleep(0)
    agather.sleep(0)
  end }

kind { "a progress function", errors = "reported", waits = true, elsewhere = true,
  run = function(call, world)
    local group = agather.gather_list({ function() end, function() end }, { progress = call })
    world.close = function() group:cancel() end
    pcall(group.await, group)
  end }

kind { "a companion's join", errors = "reported",
  run = function(call, world)
    local _ <close> = support.closing(function()
      package.loaded["spec.companion"] = nil
      agather.companion("spec.companion", function() end)
    end)
    agather.companion("spec.companion", call)
    package.loaded["spec.companion"] = true
    while world.calls == 0 do agather.sleep(0.001) end
  end }

-- Within tasks, where nothing may wait: a C function of Lua's, or the collector, is between.

kind { "a finalizer", errors = "nobody's",
  run = function(call)
    setmetatable({}, { __gc = call })
    collectgarbage()
    collectgarbage()
    agather.sleep(0)
  end }

kind { "a finalizer that runs while a task is made", errors = "nobody's",
  run = function(call)
    setmetatable({}, { __gc = call })
    local mode = collectgarbage("incremental", 0, 1000)
    local tasks = {}
    for i = 1, 50 do tasks[i] = agather.spawn(function() return i, i, i, i end) end
    local group = agather.gather_list(tasks)
    collectgarbage(mode)
    collectgarbage()
    group:await()
  end }

kind { "a comparison function of table.sort", errors = "raised",
  run = function(call)
    table.sort({ 3, 1, 2 }, function(a, b) call() return a < b end)
    agather.sleep(0)
  end }

kind { "a function of string.gsub", errors = "raised",
  run = function(call)
    assert(("abc"):gsub("b", function() call() return "x" end) == "axc")
    agather.sleep(0)
  end }

kind { "a plain coroutine", errors = "raised",
  run = function(call)
    coroutine.wrap(call)()
    agather.sleep(0)
  end }

kind { "a __close that coroutine.close calls", errors = "raised",
  run = function(call)
    local co = coroutine.create(function()
      local _ <close> = support.closing(function() call() end)
      coroutine.yield()
    end)
    coroutine.resume(co)
    local ok, err = coroutine.close(co)
    agather.sleep(0)
    if not ok then error(err, 0) end
  end }

kind { "the comparison function of a PriorityQueue, in put", errors = "raised",
  run = function(call, world)
    local queue = agather.PriorityQueue(0, function(a, b) call() return a < b end)
    world.close = function() queue:shutdown() end
    queue:put(2)
    queue:put(1)
    agather.sleep(0)
  end }

kind { "the __lt of items of a PriorityQueue, in get", errors = "raised",
  run = function(call)
    local queue, armed = agather.PriorityQueue(), false
    local metatable = { __lt = function(a, b) if armed then call() end return a[1] < b[1] end }
    for i = 4, 1, -1 do queue:put(setmetatable({ i }, metatable)) end
    armed = true
    assert(queue:get()[1] == 1)
    armed = false
    for i = 2, 4 do assert(queue:get()[1] == i) end
    agather.sleep(0)
  end }

kind { "the __tostring of a task's name", errors = "raised",
  run = function(call)
    agather.current_task():set_name(setmetatable({}, { __tostring = function() call() return "name" end }))
    agather.sleep(0)
  end }

kind { "the __tostring of an error that is printed", errors = "raised",
  run = function(call)
    local err = agather.Error(setmetatable({}, { __tostring = function() call() return "text" end }))
    assert(tostring(err) == "text")
    agather.sleep(0)
  end }

kind { "the __index of options", errors = "raised",
  run = function(call)
    local options = setmetatable({}, { __index = function() call() end })
    agather.gather_list({ function() end }, options):await()
    agather.sleep(0)
  end }

kind { "the __pairs of options", errors = "raised",
  run = function(call)
    agather.map(function() end, { 1 }, setmetatable({}, { __pairs = function(t) call() return next, t end }))
    agather.sleep(0)
  end, waits = true }

kind { "the __len and __index of a list", errors = "raised",
  run = function(call)
    local list = setmetatable({}, {
      __len = function() return 2 end,
      __index = function(_, place) call() return place <= 2 and function() return place end or nil end,
    })
    assert(agather.gather_list(list):await()[2] == 2)
  end }

kind { "a message handler", errors = "nobody's",
  run = function(call)
    xpcall(error, function() call() end, "handled")
    agather.sleep(0)
  end }

kind { "a loader of require", errors = "raised",
  run = function(call)
    package.loaded["spec.required"] = nil
    package.preload["spec.required"] = function() call() return {} end
    local ok, err = pcall(require, "spec.required")
    package.preload["spec.required"] = nil
    package.loaded["spec.required"] = nil
    agather.sleep(0)
    if not ok then error(err, 0) end
  end }

kind { "a searcher of require", errors = "raised",
  run = function(call)
    local function searcher() call() return nil end
    table.insert(package.searchers, searcher)
    local _, err = pcall(require, "spec.missing")
    table.remove(package.searchers)
    agather.sleep(0)
    if type(err) ~= "string" then error(err, 0) end
  end }

kind { "a reader of load", errors = "raised",
  run = function(call)
    local read = false
    local chunk, err = load(function()
      if read then return nil end
      read = true
      call()
      return "return 1"
    end)
    agather.sleep(0)
    if not chunk then error(err, 0) end
    assert(chunk() == 1)
  end }

kind { "a debug hook", errors = "raised",
  run = function(call)
    local hook, mask, count = debug.gethook()
    local _ <close> = support.closing(function() debug.sethook(hook, mask, count) end)
    debug.sethook(function()
      debug.sethook(hook, mask, count)
      call()
    end, "", 1)
    local x = 1
    for i = 1, 10 do x = x + i end
    agather.sleep(0)
  end }

-- Where user code may wait.

kind { "a coro", errors = "raised", waits = true,
  run = function(call) agather.await(agather.async(call)()) end }

kind { "an eager task", errors = "raised", waits = true, elsewhere = true,
  run = function(call, world)
    local task = agather.create_task(call, { eager_start = true })
    world.close = function() task:cancel() end
    task:await()
  end }

kind { "a __close at the end of a block", errors = "raised", waits = true,
  run = function(call)
    do local _ <close> = support.closing(function() call() end) end
    agather.sleep(0)
  end }

kind { "a __close while an error unwinds", errors = "raised", waits = true,
  run = function(call)
    local _, err = pcall(function()
      local _ <close> = support.closing(function() call() end)
      error("unwinding", 0)
    end)
    agather.sleep(0)
    if err ~= "unwinding" then error(err, 0) end
  end }

kind { "a __close while a task is cancelled", errors = "raised", waits = true, elsewhere = true,
  run = function(call, world)
    local task = agather.spawn(function()
      local _ <close> = support.closing(function() call() end)
      agather.sleep(100)
    end)
    world.close = function() task:cancel() end
    agather.sleep(0)
    task:cancel()
    local ok, err = pcall(task.await, task)
    if not ok and not task:cancelled() then error(err, 0) end
    if agather.current_task():cancelling() > 0 then error(err, 0) end
  end }

kind { "a __close that agather.coroutine.close calls", errors = "raised", waits = true,
  run = function(call)
    local co = agather.coroutine.create(function()
      local _ <close> = support.closing(function() call() end)
      agather.coroutine.yield()
    end)
    agather.coroutine.resume(co)
    local ok, err = agather.coroutine.close(co)
    agather.sleep(0)
    if not ok then error(err, 0) end
  end }

kind { "a generator", errors = "raised", waits = true,
  run = function(call, world)
    local co = agather.coroutine.create(call)
    world.close = function() pcall(agather.coroutine.close, co) end
    local ok, err = agather.coroutine.resume(co)
    agather.sleep(0)
    if not ok then error(err, 0) end
  end }

kind { "a metamethod that the machine calls", errors = "raised", waits = true,
  run = function(call)
    local _ = setmetatable({}, { __index = function() call() end }).field
    agather.sleep(0)
  end }

kind { "the method __await of a value", errors = "raised", waits = true,
  run = function(call)
    agather.await(setmetatable({}, { __await = function() call() end }))
    agather.sleep(0)
  end }

kind { "the predicate of a condition", errors = "raised", waits = true,
  run = function(call)
    local condition = agather.Condition()
    local _ <close> = condition:acquire()
    condition:wait_for(function() call() return true end)
    agather.sleep(0)
  end }

kind { "a function of context:run", errors = "raised", waits = true,
  run = function(call)
    agather.copy_context():run(call)
    agather.sleep(0)
  end }

kind { "a function of agather.pcall", errors = "raised", waits = true,
  run = function(call)
    local ok, err = agather.pcall(call)
    agather.sleep(0)
    if not ok then error(err, 0) end
  end }

kind { "the function that from_callback starts", errors = "raised", waits = true,
  run = function(call)
    agather.from_callback(function(done) call() done(1) end):await()
    agather.sleep(0)
  end }

kind { "a function of map", errors = "raised", waits = true, elsewhere = true,
  run = function(call) agather.map(function() call() end, { 1, 2 }, { limit = 1 }) end }

kind { "an iterator of map", errors = "raised", waits = true, elsewhere = true,
  run = function(call)
    local n = 0
    agather.map(function() end, function()
      n = n + 1
      call()
      return n < 3 and n or nil
    end, { limit = 2 })
  end }

kind { "a task of a group", errors = "raised", waits = true, elsewhere = true,
  run = function(call, world)
    local group <close> = agather.TaskGroup()
    local task = group:spawn(call)
    world.close = function() task:cancel() end
  end }
