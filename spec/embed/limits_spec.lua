-- src/core/limits.c, budget.c, ticker.c and memory.c, through a host that sets them: see limited.c.
local limited = require "spec.support.limited"

local function count(text, what) return select(2, text:gsub(what, "")) end

-- Prints 1, 2, 3 in steps of its own.
local others = "spawn=for i = 1, 3 do agather.sleep(0.002) print('other', i) end"
local catch_all = "spawn=local ok, e = pcall(function() %s end) print(ok, e.limit, e.value, e) "
  .. "print(agather.is_error(e, agather.LimitError))"

describe("the cap on memory", function()
  it("is an error that a script can catch, and the memory comes back", function()
    local output = limited("memory=4e6", "spawn=local ok, e = pcall(function() local t = {} "
      .. "while true do t[#t + 1] = ('x'):rep(1000) .. #t end end) print(ok, e)", "run=5", others, "run=1", "used")
    assert.truthy(output:find("false\tnot enough memory\n", 1, true), output)
    assert.equal(3, count(output, "other\t"))
    local used, peak, refused = output:match("used (%d+) peak (%d+) refused (%d+)")
    assert.is_true(tonumber(used) < 2000000 and tonumber(peak) <= 4000000 and tonumber(refused) > 0, output)
  end)

  it("leaves a reserve to clean up with", function()
    local script = "spawn=local all = {} local _ <close> = setmetatable({}, {__close = function() "
      .. "local t = {} for i = 1, 100 do t[i] = {i} end print('cleaned', #t) end}) "
      .. "local last while true do last = {last} all[1] = last end"
    local output = limited("memory=2e6", "reserve=65536", script, "run=5", others, "run=1", "used")
    assert.truthy(output:find("cleaned\t100\n", 1, true), output)
    assert.equal(3, count(output, "other\t"))
    assert.is_true(tonumber(output:match("peak (%d+)")) <= 2000000 + 65536)
  end)

  it("holds where a script goes on after the error, and the reserve too", function()
    local output = limited("memory=2e6", "reserve=65536", "spawn=local last for i = 1, 20 do "
      .. "pcall(function() while true do last = {last} end end) end last = nil print('gave up')",
      "run=5", others, "run=1", "used")
    assert.truthy(output:find("gave up", 1, true), output)
    assert.equal(3, count(output, "other\t"))
    assert.is_true(tonumber(output:match("peak (%d+)")) <= 2000000 + 65536)
  end)

  it("is reported with the task's name when nobody catches it", function()
    local output = limited("memory=2e6", "spawn=local last while true do last = {last} end", "run=5", "end")
    assert.truthy(output:find("<Task failed name='Task-1'", 1, true), output)
    assert.truthy(output:find("not enough memory", 1, true), output)
  end)
end)

for name, settings in pairs {
  ["instructions"] = { "instructions=3e6" },
  ["few instructions"] = { "instructions=300" },
  ["time that a hook looks at"] = { "seconds=0.02" },
  ["time that a timer looks at"] = { "seconds=0.02", "signal=1" },
} do
  describe("a budget of " .. name, function()
    local few = name == "few instructions"
    local function run(...)
      local steps = { "memory=16e6", table.unpack(settings) }
      steps[#steps + 1] = "limit"
      steps[#steps + 1] = "restrict"
      for _, script in ipairs { ... } do steps[#steps + 1] = "spawn=" .. script end
      steps[#steps + 1] = others
      steps[#steps + 1] = "run=10"
      steps[#steps + 1] = "end"
      return limited(table.unpack(steps))
    end

    for what, script in pairs {
      ["an endless loop"] = "while true do end",
      ["an endless loop inside pcall"] = "while true do pcall(function() while true do end end) end",
      ["an endless loop inside agather.pcall"] = "while true do agather.pcall(function() while true do end end) end",
      ["an endless loop in a coroutine"] = "coroutine.wrap(function() while true do end end)()",
      ["coroutines that catch all and nest"] =
        "local function f() coroutine.wrap(function() while true do pcall(f) end end)() end f()",
      ["short coroutines without end"] = "while true do coroutine.wrap(function() for _ = 1, 100 do end end)() end",
      ["short coroutines in short coroutines"] = "local function deep(n) for _ = 1, 100 do "
        .. "if n > 0 then coroutine.wrap(deep)(n - 1) end end end while true do deep(5) end",
      ["a loop in a <close> handler"] =
        "local x <close> = setmetatable({}, {__close = function() while true do end end}) error('leave')",
      ["loops in <close> handlers that it runs itself"] = "local function new() return setmetatable({}, {__close = "
        .. "function() while true do end end}) end local a <close> = new() local b <close> = new() while true do end",
      ["a loop in a comparator"] =
        "while true do pcall(table.sort, {3, 1, 2}, function() while true do end end) end",
      ["a loop in a replacement"] = "while true do pcall(string.gsub, 'abc', '.', function() while true do end end) end",
      ["a loop in a message handler"] = "local function f() while true do end end while true do xpcall(f, f) end",
      ["a loop in agather's message handler"] =
        "local function f() while true do end end while true do agather.xpcall(f, f) end",
      ["a loop in the text of its error"] =
        "error(setmetatable({}, {__tostring = function() while true do end end}))",
      ["a loop in what it changes of the error classes"] = "agather.LimitError.__index = function() while true do end end "
        .. "agather.LimitError.__tostring = agather.LimitError.__index agather.LimitError.__gc = agather.LimitError.__index "
        .. "while true do pcall(agather.LimitError) end",
      ["deep recursion that catches errors at each level"] =
        "local function f() while true do pcall(f) end end f()",
      ["deep recursion whose handler recurses"] = "local function f(...) return xpcall(f, f, ...) end while true do f() end",
      ["a circle of parents"] = "for _, c in pairs(agather) do if type(c) == 'table' and c.parent then "
        .. "c.parent = c c.__index = c end end while true do pcall(error, agather.LimitError()) end",
      ["deep awaits that catch errors"] = "local function f(n) if n == 0 then while true do pcall(f, 0) end end "
        .. "while true do pcall(agather.await, function() return f(n - 1) end) end end f(50)",
      ["a loop in a child that starts at once"] = "agather.create_task(agather.async(function() while true do end end)(), "
        .. "{eager_start = true}) while true do end",
    } do
      -- To raise an error on a deep stack takes much time and no instructions.
      if settings[1]:find("seconds", 1, true) or not what:find("^deep") then it("stops " .. what .. ", while others go on", function()
        local output = run(script)
        assert.equal(3, count(output, "other\t"), output)
        assert.truthy(output:find("<Task failed name='Task-1'", 1, true), output)
        if what:find("text of its error", 1, true) or what:find("error classes", 1, true) then
          assert.truthy(output:find("(error object that has no text)", 1, true), output)
        else
          assert.truthy(output:find("a step took more than its ", 1, true), output)
        end
      end) end
    end

    if few then return end

    it("stops a loop in a callback, and one in the handler that a host gave", function()
      local output = limited(settings[1], settings[2] or "tasks=10", "limit",
        "spawn=local loop = agather.get_running_loop() loop:set_exception_handler(function() while true do end end) "
        .. "loop:call_soon(function() while true do end end)", others, "run=10")
      assert.equal(3, count(output, "other\t"), output)
      assert.truthy(output:find("Exception in callback function <script", 1, true), output)
    end)

    it("leaves a tenth of itself for cleaning up", function()
      local output = run("local scope <close> = agather.timeout(5) local _ <close> = setmetatable({}, {__close = "
        .. "function() for i = 1, 100 do end print('cleaned') end}) while true do end")
      assert.truthy(output:find("cleaned\n", 1, true), output)
    end)

    it("lets go of locks that a task held when it was ended", function()
      local output = run("lock = agather.Lock() local _ <close> = lock:acquire() while true do pcall(function() "
        .. "while true do end end) end", "while not lock do agather.sleep(0) end local _ <close> = lock:acquire() print('mine')")
      assert.truthy(output:find("mine\n", 1, true), output)
    end)

    it("is what each step has anew", function()
      local output = run("local most = 0 for round = 1, 30 do for i = 1, 1e5 do end agather.sleep(0) end print('steps')")
      assert.truthy(output:find("steps\n", 1, true), output)
      assert.is_nil(output:find("took more", 1, true), output)
    end)

    it("leaves a script that has caught the error and waits to itself", function()
      local output = run("local ok, e = pcall(function() while true do end end) agather.sleep(0) "
        .. "print(ok, agather.is_error(e, agather.LimitError), e.limit, e.value)")
      local limit, value = settings[1]:match("(%a+)=(.*)")
      value = limit == "instructions" and ("%d"):format(tonumber(value)) or value
      assert.truthy(output:find(("false\ttrue\t%s\t%s\n"):format(limit, value), 1, true), output)
    end)

    it("ends tasks whose plain coroutines run away, outside of restricted mode", function()
      if settings[2] then return end -- a timer arms the hook of threads that it knows
      local output = limited(settings[1], "limit", "spawn=while true do coroutine.wrap(function() "
        .. "while true do pcall(function() while true do end end) end end)() end", others, "run=10", "end")
      assert.equal(3, count(output, "other\t"), output)
      assert.truthy(output:find("<Task failed name='Task-1'", 1, true), output)
    end)

    it("is not the host's", function()
      local output = limited(settings[1], settings[2] or "tasks=10", "limit",
        "spawn=while true do end", "run=5", "do=for i = 1, 1e7 do end print('done')", "run=1")
      assert.truthy(output:find("done\n", 1, true), output)
    end)

    it("ends with ag_set_limits(NULL)", function()
      local output = limited(settings[1], settings[2] or "tasks=10", "limit", "spawn=while true do end", "run=5",
        "unlimit", "spawn=for i = 1, 1e7 do end print('done')", "run=10")
      assert.truthy(output:find("done\n", 1, true), output)
    end)
  end)
end

describe("a limit on how many", function()
  for limit, script in pairs {
    tasks = "while true do agather.spawn(agather.sleep, 9) end",
    timers = "while true do agather.get_running_loop():call_later(9, print) end",
    callbacks = "while true do agather.get_running_loop():call_soon(function() end) end",
    items = "local q = agather.Queue() while true do q:put(1) end",
  } do
    it(limit .. " is a LimitError that names it, in who wants one more", function()
      local output = limited(limit .. "=20", "limit", catch_all:format(script), "run=0.05", "end", others, "run=1")
      assert.truthy(output:find(("false\t%s\t20\ttoo many %s: the limit is 20\ntrue\n"):format(limit, limit), 1, true),
        output)
      assert.equal(3, count(output, "other\t"), output)
    end)
  end

  it("tasks holds for coroutines that become tasks, and for the host", function()
    local output = limited("tasks=3", "limit", "spawn=local f = agather.async(agather.sleep) "
      .. "print(pcall(agather.create_task, f(9))) print(pcall(agather.create_task, f(9))) "
      .. "print(pcall(agather.create_task, f(9)))", "run=0.05", "spawn=agather.sleep(9)", "spawn=agather.sleep(9)")
    assert.equal(2, count(output, "true\t<Task"), output)
    assert.equal(1, count(output, "false\ttoo many tasks"), output)
    assert.equal(1, count(output, "ag_spawn: too many tasks: the limit is 3\n"), output)
  end)

  it("timers holds for sleeping tasks, which are not woken by it", function()
    local output = limited("timers=2", "limit", "spawn=agather.sleep(0.02) print('slept')",
      "spawn=agather.sleep(0.02) print('slept')", "spawn=print(pcall(agather.sleep, 9)) agather.sleep(0)", "run=1")
    assert.equal(2, count(output, "slept\n"), output)
    assert.equal(1, count(output, "false\ttoo many timers: the limit is 2\n"), output)
  end)

  it("items leaves those that wait in the queue, of each kind of queue", function()
    for _, kind in ipairs { "Queue", "LifoQueue", "PriorityQueue" } do
      local output = limited("items=2", "limit", ("spawn=local q = agather.%s() q:put(1) q:put_nowait(2) "
        .. "print(pcall(q.put, q, 3)) print(pcall(q.put_nowait, q, 3)) print(q:qsize(), q:get() + q:get())"):format(kind),
        "run=1")
      assert.equal(2, count(output, "false\ttoo many items: the limit is 2\n"), output)
      assert.truthy(output:find("2\t3\n", 1, true), output)
    end
  end)

  it("callbacks leaves a TaskGroup whole whose task could not be watched", function()
    local output = limited("callbacks=2", "limit", "spawn=local group <close> = agather.TaskGroup() for i = 1, 3 do "
      .. "print(pcall(group.spawn, group, function() agather.sleep(0.001) print('ran', i) end)) end", "spawn=agather.sleep(0.01) "
      .. "print('end')", "run=2")
    assert.equal(2, count(output, "true\t<Task"), output)
    assert.equal(1, count(output, "false\ttoo many callbacks: the limit is 2"), output)
    assert.truthy(output:find("ran\t1\nran\t2\nend\n$"), output)
  end)

  it("leaves nothing running of what could not be begun as a whole", function()
    local used = "agather.future():add_done_callback(print) "
    for call, settings in pairs {
      ["agather.wait, { f, g, h }, { timeout = 5 }"] = { "callbacks=2" },
      ["agather.wait, { f, g, h }"] = { "tasks=3" },
      ["agather.as_completed, { f, g, h }, { timeout = 5 }"] = { "callbacks=2" },
      ["agather.as_completed, { f, g }, { timeout = 5 }"] = { "callbacks=2" }, -- none is left for the timer
      ["agather.shield, f"] = { "callbacks=1" },
      ["agather.wait_for, f, 0"] = { "callbacks=1", used },
      ["agather.map, f, { 1, 2, 3, 4 }, { limit = 3 }"] = { "tasks=3" },
      ["agather.map, f, { 1, 2, 3, 4 }"] = { "tasks=3" },
      ["agather.gather, f, f, f"] = { "tasks=3" },
      ["agather.gather_list, { c, f, c, c, t, f, t }"] = { "tasks=4", "local c, t = agather.async(print)(), coroutine.create(print) " },
    } do
      local output = limited(settings[1], "limit", ("spawn=%s local function make() return function() "
        .. "agather.sleep(0.001) print('ran') end end local f, g, h = make(), make(), make() "
        .. "print(select(2, pcall(%s))) agather.sleep(0.003) print(#agather.all_tasks())"):format(settings[2] or "", call),
        "run=2")
      assert.matches("^too many %l+: the limit is %d\n1\n", output, call)
      assert.is_nil(output:find("ran", 1, true), call)
    end
  end)

  it("callbacks ends the handler of a connection that could not be watched", function()
    local output = limited("callbacks=2", "limit", "spawn=local net = agather.net "
      .. "local server = net.start_server('127.0.0.1', 0, function(s) agather.sleep(0.001) print('ran') end) "
      .. "server.on_error = function(e) print(e) end agather.future():add_done_callback(print) "
      .. "local serving = agather.spawn(server.serve_forever, server) local host, port = server.listener:local_address() "
      .. "agather.future():add_done_callback(print) "
      .. "local s = net.connect(host, port) print(s:read('a') == '') agather.sleep(0.01) server:close() os.exit()", "run=2")
    assert.truthy(output:find("too many callbacks: the limit is 2\n", 1, true), output)
    assert.is_nil(output:find("ran", 1, true), output)
  end)

  it("tasks lets a gather have as many as fit, counting once what stands there twice", function()
    local output = limited("tasks=4", "limit", "spawn=local c, t = agather.async(function() return 1 end)(), "
      .. "coroutine.create(function() return 2 end) local f = function() return 3 end "
      .. "print(table.concat(agather.await(agather.gather(c, t, f, c, t, agather.gather())), ' ', 1, 5))", "run=2")
    assert.equal("1 2 3 1 2\n", output)
    output = limited("tasks=3", "limit", "spawn=local f = agather.async(function() agather.sleep(0) return 1 end) "
      .. "local a, b = agather.create_task(f()), agather.create_task(f()) agather.sleep(0) "
      .. "print(table.concat(agather.await(agather.gather(a, b, a)), ' '))", "run=2")
    assert.equal("1 1 1\n", output)
  end)

  it("is counted down by what ends", function()
    local output = limited("tasks=3", "timers=3", "callbacks=3", "limit", "spawn=for i = 1, 50 do "
      .. "agather.await(agather.spawn(agather.sleep, 0.0001)) local handle = agather.get_running_loop():call_later(9, print) "
      .. "handle:cancel() handle:cancel() end print('done')", "run=5")
    assert.equal("done\n", output)
  end)
end)

describe("a limit on handles", function()
  it("is a LimitError in who opens one more, until one is closed", function()
    local output = limited("handles=3", "limit", "spawn=local net = agather.net local a = net.listen('127.0.0.1', 0) "
      .. "local b, c = net.listen('127.0.0.1', 0), net.udp() local ok, e = pcall(net.listen, '127.0.0.1', 0) "
      .. "print(ok, e.limit, e.value, e) print(pcall(net.udp)) print(pcall(net.connect, a:local_address())) "
      .. "print(pcall(a.accept, a)) b:close() c:close() agather.sleep(0.001) print(net.listen('127.0.0.1', 0) ~= nil)",
      "run=2")
    assert.equal("false\thandles\t3\ttoo many handles: the limit is 3\n" .. ("false\ttoo many handles: the limit is 3\n"):rep(3)
      .. "true\n", output)
  end)

  it("makes a server wait until there is room again, and serve who came meanwhile", function()
    local output = limited("handles=6", "limit", "spawn=local net = agather.net "
      .. "local server = net.start_server('127.0.0.1', 0, function(s) s:write(s:read('L')) end) "
      .. "server.on_error = function(e) print(e) end local serving = agather.spawn(server.serve_forever, server) "
      .. "local held = {} for i = 1, 3 do held[i] = net.connect(server.listener:local_address()) end agather.sleep(0.01) "
      .. "for i = 1, 3 do held[i]:write('hello\\n') print(held[i]:read('l')) held[i]:close() agather.sleep(0.05) end "
      .. "server:close() serving:await() print('served')", "run=5")
    assert.equal(3, count(output, "hello\n"), output)
    assert.truthy(output:find("too many handles: the limit is 6\n", 1, true), output)
    assert.truthy(output:find("served\n$"), output)
  end)
end)

describe("a loop that is destroyed", function()
  it("gives tasks the seconds that the limits say", function()
    local before = os.time()
    local output = limited("grace=0.01", "limit", "spawn=while true do pcall(agather.sleep, 9) end", "run=0.01", "end")
    assert.is_true(os.time() - before <= 2)
    assert.truthy(output:find("Task was destroyed but it is pending!", 1, true), output)
  end)

  it("reports each of many coroutines that nobody awaited, in no time", function()
    local output = limited("spawn=local f = agather.async(function() end) for _ = 1, 3e4 do f() end", "run=5", "end")
    assert.equal(30000, count(output, "was never awaited\n"))
  end)
end)

describe("setting limits", function()
  it("refuses a time that is none", function()
    local output = limited("seconds=-1", "limit", "seconds=nan", "limit")
    assert.equal(2, count(output, "ag_set_limits: seconds must not be negative"), output)
  end)

  it("refuses a signal that cannot be had", function()
    local output = limited("seconds=1", "signal=100", "limit")
    assert.truthy(output:find("no timer with the signal %d+ can be had"), output)
  end)
end)

describe("limits at their edges", function()
  it("are refused where they cannot be counted", function()
    assert.equal("ag_set_limits: ag_set_limits: instructions must fit 63 bits\n", limited("instructions=1e19", "limit"))
  end)

  it("may be longer than any step, and be set again", function()
    assert.equal("ran\nran\n", limited("seconds=2e8", "signal=3", "limit", "spawn=print('ran')", "run=1",
      "unlimit", "limit", "spawn=print('ran')", "run=1"))
  end)

  it("are those of the allocator that the memory comes from, too", function()
    local output = limited("from=1e5", "spawn=print(pcall(string.rep, 'x', 200000)) print(#string.rep('x', 50000))",
      "run=1")
    assert.equal("false\tnot enough memory\n50000\n", output)
  end)
end)
