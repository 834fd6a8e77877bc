-- Numbers that are used again: two descriptors become ready in one look at the system; the first whose task has its turn
-- closes the other, and something new gets its number at once. The new owner hears nothing that was meant for the old
-- one, and nobody closes it. The same for children, timers, tasks, slots, and what watches a folder.
local agather = require "agather"
local sanitized = require("spec.support.host").sanitized
local support = require "spec.support"
local system = require "spec.support.system"

-- The numbers of the descriptors that are open.
local function numbers()
  local open = {}
  for number = 0, 255 do
    local file = io.open("/proc/self/fdinfo/" .. number)
    if file then
      file:close()
      open[number] = true
    end
  end
  return open
end

local function added(before, after)
  local found = {}
  for number in pairs(after) do
    if not before[number] then found[number] = true end
  end
  return found
end

local function raises_closed(ok, err)
  assert.is_false(ok, "what was closed gave something")
  assert.is_true(agather.is_error(err, agather.OSError) or agather.is_error(err, agather.CancelledError), tostring(err))
end

-- What has a descriptor: prepare() makes what it needs besides, and open(that) gives an object with wait(), which waits
-- for what fire(word) sends and gives the word, close() and close_all(). Its descriptor is the first that open makes,
-- but for [spare] others.
local kinds = {}

local function stream_kind(listen, connect)
  return {
    prepare = listen,
    open = function(listener)
      local self = {}
      self.stream = connect(listener)
      self.peer = listener:accept()
      listener:close()
      function self.wait() return self.stream:read() end
      function self.fire(word) self.peer:write(word, "\n") end
      function self.close() self.stream:close() end
      function self.close_all() self.stream:close() self.peer:close() end
      return self
    end,
  }
end

local function tcp_listener() return agather.net.listen("127.0.0.1", 0) end

local function unix_listener()
  local path = os.tmpname()
  os.remove(path)
  return agather.net.listen_unix(path)
end

kinds["a TCP stream"] = stream_kind(tcp_listener, function(listener)
  return agather.net.connect(listener:local_address())
end)

kinds["a stream of a Unix socket"] = stream_kind(unix_listener, function(listener)
  return agather.net.connect_unix((listener:local_address()))
end)

local function listener_kind(listen, connect)
  return {
    open = function()
      local self = { listener = listen(), streams = {} }
      local address = table.pack(self.listener:local_address())
      function self.wait()
        self.listener:accept():close()
        return self.word
      end
      function self.fire(word)
        self.word = word
        agather.spawn(function() -- at once with those that are fired in the same iteration
          self.streams[#self.streams + 1] = connect(table.unpack(address, 1, address.n))
        end)
      end
      function self.close() self.listener:close() end
      function self.close_all()
        self.listener:close()
        for _, stream in ipairs(self.streams) do stream:close() end
      end
      return self
    end,
  }
end

kinds["a listener"] = listener_kind(tcp_listener, function(...) return agather.net.connect(...) end)
kinds["a listener of a Unix socket"] = listener_kind(unix_listener, function(path) return agather.net.connect_unix(path) end)

kinds["a datagram socket"] = {
  prepare = function() return agather.net.udp() end,
  open = function(sender)
    local self = { socket = agather.net.udp { local_address = { "127.0.0.1", 0 } } }
    local host, port = self.socket:local_address()
    function self.wait() return (self.socket:recv()) end
    function self.fire(word) sender:send(word, host, port) end
    function self.close() self.socket:close() end
    function self.close_all() self.socket:close() sender:close() end
    return self
  end,
}

kinds["a child's output"] = {
  spare = 2, -- its input comes first
  open = function()
    local self = { child = agather.process.spawn { "cat", stderr = "null" } }
    function self.wait() return self.child.stdout:read() end
    function self.fire(word)
      self.child.stdin:write(word, "\n")
      self.child.stdin:flush()
    end
    function self.close() self.child.stdout:close() end
    function self.close_all() self.child:close() end
    return self
  end,
}

local function open(kind) return kind.open(kind.prepare and kind.prepare()) end

-- Opens files until no number is free below those of [ours]: the next that is closed is the next to be used.
local function fill(ours)
  local files, highest, used = {}, 0, numbers()
  for number in pairs(ours) do highest = math.max(highest, number) end
  for number = 0, highest do
    if not used[number] then files[#files + 1] = assert(io.open("/dev/null")) end
  end
  return files
end

-- Looks away until what was fired has come to the kernel, so that the next look finds both.
local function let_it_come() os.execute("sleep 0.003") end

-- Both [old] ones are ready; the first to run closes the other and opens a [new] one, which gets its number.
local function replaced(old, new)
  local spare = {}
  for i = 1, new.spare or 0 do spare[i] = assert(io.open("/dev/null")) end
  local before = numbers()
  local one, two = open(old), open(old)
  local prepared = new.prepare and new.prepare()
  local fillers = fill(added(before, numbers()))
  local first, loser, fresh
  local function waiter(me, other)
    return agather.spawn(function()
      local ok, result = pcall(me.wait)
      if first then return { ok, result } end
      assert(ok, result)
      first, loser = me, other
      local open_before = numbers()
      other.close()
      local freed = added(numbers(), open_before)
      for _, file in ipairs(spare) do file:close() end
      local left = numbers()
      fresh = new.open(prepared)
      local again = next(freed)
      assert(next(freed, again) == nil and not left[again] and numbers()[again], "its number was not used again")
      return { false, agather.OSError "the first" }
    end)
  end
  local tasks = { waiter(one, two), waiter(two, one) }
  agather.sleep(0)
  agather.sleep(0)
  one.fire("old")
  two.fire("old")
  let_it_come()
  agather.sleep(0)
  for _, outcome in ipairs(agather.gather_list(tasks):await()) do raises_closed(table.unpack(outcome, 1, 2)) end
  local hearing = agather.spawn(fresh.wait)
  for _ = 1, 5 do agather.sleep(0) end
  agather.sleep(0.001)
  assert.is_false(hearing:done(), "the new one heard what was meant for the old one")
  loser.close()
  fresh.fire("new")
  assert.equal("new", hearing:await())
  first.close_all()
  loser.close_all()
  hearing = agather.spawn(fresh.wait)
  fresh.fire("again")
  assert.equal("again", hearing:await())
  fresh.close_all()
  for _, file in ipairs(fillers) do file:close() end
end

local names = {}
for name in pairs(kinds) do names[#names + 1] = name end
table.sort(names)

describe("the number of", function()
  for _, old in ipairs(names) do
    for _, new in ipairs(names) do
      it(("%s, used again by %s, brings it nothing"):format(old, new), function()
        agather.run(function()
          agather.net.udp():close() -- what the loop itself opens is there
          replaced(kinds[old], kinds[new])
        end)
      end)
    end
  end

  it("a stream that a child has taken over, used again, brings nothing of the child's", function()
    agather.run(function()
      local listener = unix_listener()
      local at_first = numbers()
      local given = kinds["a stream of a Unix socket"].open(listener)
      local given_number
      for number in pairs(added(at_first, numbers())) do
        if not given_number or number < given_number then given_number = number end
      end
      local fillers = fill(added(at_first, numbers()))
      local before = numbers()
      local child <close> = agather.process.spawn { "cat", stdin = given.stream, stdout = "pipe", stderr = "null" }
      local fresh = open(kinds["a stream of a Unix socket"])
      assert.is_true(before[given_number] and numbers()[given_number])
      local task = agather.spawn(fresh.wait)
      given.fire("for the child")
      assert.equal("for the child", child.stdout:read())
      assert.is_false(task:done())
      fresh.fire("new")
      assert.equal("new", task:await())
      fresh.close_all()
      given.close_all()
      for _, file in ipairs(fillers) do file:close() end
    end)
  end)
end)

describe("what is closed twice", function()
  for _, name in ipairs(names) do
    it(name .. " leaves the next owner of its number alone", function()
      agather.run(function()
        local old = open(kinds[name])
        old.close()
        local new = open(kinds["a datagram socket"])
        old.close()
        old.close_all()
        old = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        agather.sleep(0)
        new.fire("here")
        assert.equal("here", new.wait())
        new.close_all()
      end)
    end)
  end
end)

describe("a watcher", function()
  it("made while another one's event waits for its task hears nothing of it", function()
    agather.run(function()
      local folder <close> = system.folder()
      local one, two = agather.fs.watch(folder.path), agather.fs.watch(folder.path)
      local fresh
      local function wait_for(me, other)
        return agather.spawn(function()
          local ok, err = pcall(me.wait, me)
          if fresh then return raises_closed(ok, err) end
          assert(ok, err)
          other:close()
          fresh = agather.fs.watch(folder.path)
        end)
      end
      local tasks = { wait_for(one, two), wait_for(two, one) }
      agather.sleep(0)
      system.spill(folder:at("old"), "")
      let_it_come()
      agather.gather_list(tasks):await()
      local task = agather.spawn(function() return select(2, fresh:wait()) end)
      agather.sleep(0.002)
      assert.is_false(task:done())
      system.spill(folder:at("new"), "")
      assert.equal("new", task:await())
      for _, watcher in ipairs { one, two, fresh } do watcher:close() end
    end)
  end)
end)

describe("a child that was reaped", function()
  it("is sent nothing, whoever has its number now", function()
    local output, status = support.script [[
      agather.run(function()
        local child = agather.process.spawn { "true" }
        child:wait()
        for _ = 1, 3 do assert(child:kill("SIGKILL") == false) end
        child:close()
        local detached = agather.process.spawn { "true", detached = true }
        detached:wait()
        assert(detached:kill() == false)
        detached:close()
      end)
      print "over"
    ]]
    assert.equal("over\n", output)
    assert.equal(0, status or 0)
    if sanitized then return end -- strace's child could not load the library
    local traced = os.tmpname()
    local script = os.tmpname()
    system.spill(script, [[
      local agather = require "agather"
      agather.run(function()
        for _, detached in ipairs { false, true } do
          local child = agather.process.spawn { "true", detached = detached }
          child:wait()
          child:kill("SIGKILL")
          child:close()
          agather.sleep(0.001)
        end
      end)
    ]])
    assert(os.execute(("strace -qq -e trace=kill,tgkill -o %s lua5.4 %s"):format(traced, script)))
    assert.is_nil(system.slurp(traced):find("kill(", 1, true))
    os.remove(traced)
    os.remove(script)
  end)

  it("together with another leaves that one its own status", function()
    agather.run(function()
      local one = agather.process.spawn { "sh", "-c", "read line; exit 3" }
      local two = agather.process.spawn { "sh", "-c", "read line; exit 4" }
      local fresh
      local function waiter(me, other)
        return agather.spawn(function()
          local status = me:wait()
          if not fresh then
            fresh = agather.process.spawn { "sh", "-c", "exit 5" }
            other:close()
          end
          return status
        end)
      end
      local tasks = agather.gather(waiter(one, two), waiter(two, one))
      agather.sleep(0)
      one.stdin:close()
      two.stdin:close()
      let_it_come()
      assert.same({ 3, 4, n = 2 }, tasks:await())
      assert.equal(5, (fresh:wait()))
      for _, child in ipairs { one, two, fresh } do child:close() end
    end)
  end)
end)

describe("a timer", function()
  it("that is cancelled when it is due with another one does not fire, nor does what gets its place", function()
    support.virtual(function()
      local loop, fired = agather.get_running_loop(), {}
      local handles = {}
      for i = 1, 2 do
        handles[i] = loop:call_later(1, function()
          fired[#fired + 1] = i
          handles[3 - i]:cancel()
          handles[3 - i] = nil
          collectgarbage()
          handles[3] = loop:call_later(1, function() fired[#fired + 1] = loop:time() end)
        end)
      end
      local start = loop:time()
      agather.sleep(1.5)
      assert.same({ 1 }, fired)
      agather.sleep(1)
      assert.same({ 1, start + 2 }, fired)
    end)
  end)

  it("of a sleep that was cancelled when it was due does not end the next sleep", function()
    support.virtual(function()
      local loop = agather.get_running_loop()
      local slept
      local second
      agather.spawn(function()
        agather.sleep(1)
        second:cancel()
      end)
      second = agather.spawn(function()
        assert(not pcall(agather.sleep, 1))
        local start = loop:time()
        agather.sleep(5)
        slept = loop:time() - start
      end)
      agather.wait { second }
      assert.equal(5, slept)
    end)
  end)
end)

describe("a task", function()
  it("at the address and in the slot of another one that was collected is a new one in every respect", function()
    agather.run(function()
      local variable = agather.ContextVar("variable", "none")
      local seen, again = {}, 0
      for round = 1, 300 do
        local task = agather.create_task(function()
          assert(variable:get() == "none")
          variable:set(round)
          agather.current_task():set_name("name " .. round)
          agather.future():await()
        end)
        assert.is_nil(tostring(task):find("name '", 1, true))
        agather.sleep(0)
        task:add_done_callback(function() end)
        task:cancel("message " .. round)
        agather.wait { task }
        local address = ("%p"):format(task)
        if seen[address] then again = again + 1 end
        seen[address] = true
        local ok, err = pcall(task.result, task)
        assert(not ok and err.message == "message " .. round, tostring(err))
        task, err = nil, nil -- luacheck: ignore
        if round % 20 == 0 then collectgarbage() end

        local other = agather.spawn(function() agather.sleep(100) end)
        address = ("%p"):format(other)
        if seen[address] then again = again + 1 end
        agather.sleep(0)
        assert(other:cancelling() == 0 and not other:done())
        other:cancel()
        local _, plain = pcall(other.await, other)
        assert(tostring(plain) == "CancelledError", tostring(plain))
      end
      assert.is_true(again > 50 or sanitized, again) -- whose allocator keeps what is freed
    end)
  end)

  it("that took the slot of one that ended with an error is not told of it", function()
    agather.run(function()
      agather.get_running_loop():set_exception_handler(function() end)
      for _ = 1, 100 do
        local failed = agather.spawn(error, "of another one")
        agather.wait { failed }
        failed = nil -- luacheck: ignore
        local task = agather.spawn(function() agather.sleep(0) return 1 end)
        assert(task:await() == 1 and task:exception() == nil)
      end
    end)
  end)
end)

describe("a job of a worker", function()
  it("that was cancelled does not answer the next", function()
    agather.run(function()
      local pool <close> = agather.worker.Pool { size = 1 }
      for round = 1, 20 do
        local lost = agather.spawn(function()
          return pool:run(function(n) local x = 0 for i = 1, 1000 do x = x + i end return "lost " .. n end, round)
        end)
        agather.sleep(round % 3 == 0 and 0.001 or 0)
        lost:cancel()
        lost = nil -- luacheck: ignore
        collectgarbage()
        assert.equal("kept " .. round, pool:run(function(n) return "kept " .. n end, round))
      end
    end)
  end)
end)
