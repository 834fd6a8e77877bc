-- Streams, listeners and sockets that end while something is under way: closed, cancelled, reset, collected, or with
-- their loop and their state, at any moment.
local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"

local block = ("x"):rep(65536)

-- Everything that can wait, waiting: in a task each.
local everything = [[
  local net = agather.net
  local path = os.tmpname()
  os.remove(path)
  local listener, unix = net.listen("127.0.0.1", 0), net.listen_unix(path)
  local _, port = listener:local_address()
  local stream, peer = net.connect("127.0.0.1", port), listener:accept()
  local unix_stream = net.connect_unix(path)
  local socket = net.udp { local_address = { "127.0.0.1", 0 } }
  local one, other = net.pair()
  local full, full_peer = net.connect("127.0.0.1", port), listener:accept()
  for _, f in ipairs {
    function() listener:accept() end, function() unix:accept():read("a") end,
    function() stream:read() end, function() peer:read("a") end, function() unix_stream:read(1) end,
    function() socket:recv() end, function() one:read() end, function() other:read_exactly(5) end,
    function() while true do full:write(("x"):rep(100000)) end end, function() full:flush() end,
    function() net.connect("localhost", port) end, function() net.connect("no-such-host.invalid", 1) end,
    function() net.serve("127.0.0.1", 0, function(s) s:read() end, {
      on_listen = function(server)
        agather.spawn(function() net.connect(server:local_address()):read() end)
      end,
    }) end,
  } do agather.spawn(function() agather.pcall(f) end) end
  agather.spawn(net.connect, "localhost", port)
]]

local function ends_well(text)
  local output, status = support.script(text)
  assert.equal("end\n", output)
  assert.equal(0, status)
end

describe("everything that waits", function()
  it("ends with its run", function()
    ends_well("agather.run(function()" .. everything .. " agather.sleep(0.02) end) print('end')")
  end)

  it("ends with its run at the first turn", function()
    ends_well("agather.run(function()" .. everything .. " end) print('end')")
  end)

  it("ends with a run that fails", function()
    ends_well("print((pcall(agather.run, function()" .. everything
      .. " agather.sleep(0) error('x') end) and 'no' or 'end'))")
  end)

  it("ends with its state, in the middle of the run", function()
    local output, status = support.script("agather.run(function()" .. everything
      .. " agather.sleep(0.01) print('end') os.exit(true, true) end)")
    assert.matches("^end\nTask was destroyed but it is pending!\n", output)
    assert.equal(0, status)
  end)

  it("ends with its process, in the middle of the run", function()
    ends_well("agather.run(function()" .. everything .. " agather.sleep(0.01) print('end') os.exit(true) end)")
  end)

  it("ends as garbage of a loop that was never run to its end", function()
    ends_well([[
      local loop = agather.new_event_loop()
      loop:create_task(agather.async(function()]] .. everything .. [[ end)())
      loop:call_later(0.02, function() loop:stop() end)
      loop:run_forever()
      loop:set_exception_handler(function() end)
      loop:close()
      loop = nil
      collectgarbage()
      collectgarbage()
      print("end")]])
  end)

  it("survives collections at every turn", function()
    ends_well("agather.run(function()" .. everything
      .. " for _ = 1, 20 do collectgarbage() agather.sleep(0.001) end end) print('end')")
  end)
end)

describe("a task of a client", function()
  -- Uses each wait of streams once.
  local function scenario(port)
    local stream <close> = agather.net.connect("localhost", port, { timeout = 5 })
    stream:write("hello\n")
    assert.equal("hello", stream:read())
    stream:set_write_buffer_limits { high = 1000 }
    local writer = agather.spawn(function() stream:write(("y"):rep(3000000)):flush() end)
    local _ <close> = support.closing(function() writer:cancel() end)
    stream:read_exactly(3000000)
    writer:await()
    stream:shutdown()
    return stream:read("a")
  end

  it("is cancelled at any turn and leaves nothing behind", function()
    local cancelled, finished = 0, 0
    local counts = {}
    for turns = 0, 60 do
      net.with_server(net.echo, function(port)
        local task = agather.spawn(scenario, port)
        support.turns(turns)
        if turns % 3 == 0 then agather.sleep(0.001) end
        task:cancel()
        agather.wait({ task })
        if task:cancelled() then cancelled = cancelled + 1 else finished = finished + 1 end
        if not task:cancelled() then task:await() end
      end, { on_error = function() end })
      if turns % 30 == 0 then
        collectgarbage()
        collectgarbage()
        counts[#counts + 1] = net.descriptors()
      end
    end
    assert.is_true(cancelled > 0)
    assert.same({ counts[1], counts[1] }, { counts[2], counts[3] })
  end)
end)

describe("a reset", function()
  it("before it is accepted is an error of the first read", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      agather.net.connect("127.0.0.1", select(2, listener:local_address())):abort()
      local stream <close> = listener:accept()
      net.fails("ECONNRESET", stream.read, stream)
      stream:shutdown() -- what could be said to whom
      stream:close()
    end)
  end)

  it("that comes with data is no end: the data is read, then the error", function()
    net.with_connection(function(one, other)
      other:write("data")
      other:abort()
      assert.equal("data", one:read(100))
      net.fails("ECONNRESET", one.read, one, 100)
    end)
    net.with_connection(function(one, other)
      local reading = agather.spawn(one.read, one, "a")
      agather.sleep(0.002)
      other:write("data")
      other:abort()
      net.fails("ECONNRESET", reading.await, reading)
      assert.equal("data", one:read(100))
    end)
  end)

  it("is an error of reading also when writing has met it first", function()
    net.with_connection(function(one, other)
      other:abort()
      local err
      net.eventually(function()
        local ok
        ok, err = pcall(one.write, one, "x")
        return not ok
      end, "writing fails")
      assert.equal("ECONNRESET", err.code)
      net.fails("ECONNRESET", one.read, one)
      net.fails("ECONNRESET", one.write, one, "x")
    end)
  end)

  it("after the end is none of reading: what came before the end is whole", function()
    net.with_connection(function(one, other)
      other:write("reply")
      other:close()
      agather.sleep(0.002)
      one:write("too late") -- which is answered by a reset
      net.eventually(function() return not pcall(one.write, one, "x") end, "the reset has come")
      assert.equal("reply", one:read("a"))
      assert.is_nil(one:read())
    end)
  end)

  it("after a shutdown is an error of the read that waits", function()
    net.with_connection(function(one, other)
      one:shutdown()
      local reading = agather.spawn(one.read, one, "a")
      agather.sleep(0.002)
      other:abort()
      net.fails("ECONNRESET", reading.await, reading)
    end)
  end)

  it("while a closed stream sends the rest ends that", function()
    local before
    for round = 1, 2 do
      net.with_connection(function(one, other)
        one:set_write_buffer_limits { high = 100000000 }
        one:write(("z"):rep(16000000))
        one:close()
        agather.sleep(0.002)
        other:abort()
        agather.sleep(0.002)
      end)
      if round == 1 then before = net.descriptors() end
    end
    assert.equal(before, net.descriptors())
  end)

  it("while it flushes is an error of the flush", function()
    net.with_connection(function(one, other)
      one:set_write_buffer_limits { high = 100000000 }
      one:write(("z"):rep(16000000))
      local flushing = agather.spawn(one.flush, one)
      agather.sleep(0.002)
      other:abort()
      local ok, err = pcall(flushing.await, flushing)
      assert.is_false(ok)
      assert.is_true(err.code == "ECONNRESET" or err.code == "EPIPE", err.code)
    end)
  end)

  it("of many at once ends each, and the server goes on", function()
    local errors = 0
    net.with_server(net.echo, function(port, server)
      local streams = {}
      for i = 1, 100 do
        streams[i] = agather.net.connect("127.0.0.1", port)
        streams[i]:write(block)
      end
      net.eventually(function() return server:connections() == 100 end, "all are accepted")
      for i = 1, 100 do streams[i]:abort() end
      net.eventually(function() return server:connections() == 0 end, "all have ended")
      local stream <close> = agather.net.connect("127.0.0.1", port)
      stream:write("x")
      assert.equal("x", stream:read(1))
    end, { on_error = function() errors = errors + 1 end })
    assert.is_true(errors > 0)
  end)
end)

describe("a stream", function()
  -- Both are readable in one look at the system; the first to run closes the other, whose descriptor is used anew.
  it("that is closed by another that woke at the same moment hears nothing of its successor", function()
    net.with_connection(function(one, one_peer)
      net.with_connection(function(two, two_peer)
        local successor
        local function replace(victim)
          return function(stream)
            local ok, got = pcall(stream.read, stream, 10)
            if ok and not successor then
              victim:close()
              successor = agather.net.udp { local_address = { "127.0.0.1", 0 } }
            end
            return ok and got or "closed"
          end
        end
        local first = agather.spawn(replace(two), one)
        local second = agather.spawn(replace(one), two)
        agather.sleep(0)
        one_peer:write("to one")
        two_peer:write("to two")
        local results = { first:await(), second:await() }
        assert.is_not_nil(successor)
        table.sort(results)
        assert.equal("closed", results[1])
        assert.matches("^to ", results[2])
        support.raises("TimeoutError", agather.wait_for, function() successor:recv() end, 0.005)
      end)
    end)
  end)

  it("wakes all that wait when it is closed by another task", function()
    net.with_connection(function(one)
      local reading = agather.spawn(one.read, one)
      local writers = {}
      for i = 1, 3 do writers[i] = agather.spawn(function() while true do one:write(block) end end) end
      agather.sleep(0.05)
      one:close()
      net.fails("EBADF", reading.await, reading)
      for i = 1, 3 do net.fails("EBADF", writers[i].await, writers[i]) end
    end)
  end)

  it("says where nobody can wait, and works on after that", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local host, port = listener:local_address()
      local one <close> = agather.net.connect(host, port)
      local other <close> = listener:accept()
      agather.get_running_loop():call_soon(function()
        support.raises("no running task", one.read, one)
        support.raises("no running task", listener.accept, listener)
        support.raises("no running task", agather.net.connect, host, port)
        one:write("written") -- does not wait
      end)
      assert.equal("written", other:read(7))
      local function compare(f) return function() table.sort({ 1, 2, 3 }, function() f() end) end end
      support.raises("cannot wait across table.sort", compare(function() one:read() end))
      support.raises("cannot wait across table.sort", compare(function() agather.net.connect(host, port) end))
      support.raises("cannot wait inside a plain coroutine", coroutine.wrap(function() one:read() end))
      other:write("works\n")
      assert.equal("works", one:read())
      agather.get_running_loop():call_soon(one.close, one)
      net.fails("EBADF", one.read, one)
    end)
  end)

  it("is not handed down to children of the process", function()
    net.with_connection(function()
      local path = net.path()
      local listener <close> = agather.net.listen_unix(path)
      local socket <close> = agather.net.udp { local_address = { "127.0.0.1", 0 } }
      local pipe = assert(io.popen("ls -l /proc/self/fd"))
      local text = pipe:read("a")
      pipe:close()
      assert.is_nil(text:find("socket:", 1, true), text)
      listener:close()
      socket:close()
    end)
  end)

  it("is idle in less than 3 KB, its handler's task included", function()
    local output = support.script([[
      local function resident()
        for line in io.lines("/proc/self/status") do
          local kilobytes = line:match("VmRSS:%s+(%d+)")
          if kilobytes then return kilobytes * 1024 end
        end
      end
      local FIRST, COUNT = 500, 1500 -- the first pay for what is there once
      local clients = "import socket,sys\nl=[socket.create_connection((\"127.0.0.1\",%d)) for _ in range(%d)]\n"
        .. "for s in l: s.sendall(b\"hi\\n\")\nfor s in l: assert s.recv(9)==b\"hi\\n\"\n"
        .. "print(\"served\")\nsys.stdout.close()\nl[0].recv(9)"
      agather.run(function()
        local server = agather.net.start_server("127.0.0.1", 0, function(stream)
          for line in stream:lines() do stream:write(line, "\n") end
        end)
        local serving = agather.spawn(server.serve_forever, server)
        local _, port = server:local_address()
        local function connect(count)
          local pipe = assert(io.popen("timeout 10 python3 -c '" .. clients:format(port, count) .. "'", "r"))
          local all = server:connections() + count
          while server:connections() < all do agather.sleep(0.01) end
          agather.sleep(0.2)
          collectgarbage()
          collectgarbage()
          return resident(), pipe
        end
        local before, first = connect(FIRST)
        local after, second = connect(COUNT)
        local each = (after - before) / COUNT
        local sanitized = os.getenv("AGATHER_PRESET") == "asan" -- which keeps what is freed
        print(each < (sanitized and 10 or 3) * 1024 or each)
        server:shutdown(0)
        print(first:read("l"), second:read("l"))
        serving:await()
      end)]], "ulimit -n 4096;")
    assert.equal("true\nserved\tserved\n", output)
  end)
end)
