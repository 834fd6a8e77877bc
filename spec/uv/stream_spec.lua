local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"

local function lines(stream)
  for line in stream:lines() do stream:write(line, "\n") end
end

describe("a stream", function()
  it("brings lines there and back", function()
    net.with_server(lines, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      stream:write("one\n", "two\n")
      assert.equal("one", stream:read())
      assert.equal("two\n", stream:read("L"))
      stream:shutdown()
      assert.is_nil(stream:read())
      assert.is_nil(stream:read())
    end)
  end)

  it("reads by number, to a separator, and all", function()
    net.with_server(function(stream) stream:write("abcdef--rest of it") end, function(port)
      local stream <close> = agather.net.connect("localhost", port)
      assert.equal("abc", stream:read_exactly(3))
      assert.equal("def--", stream:read_until("--"))
      assert.equal("rest of it", stream:read("a"))
      assert.equal("", stream:read("a"))
      assert.error_matches(function() stream:read_exactly(1) end, "ended")
    end)
  end)

  it("iterates by a read format", function()
    net.with_server(function(stream) stream:write("one\ntwo\n") end, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      local got = {}
      for line in stream:lines("L") do got[#got + 1] = line end
      assert.same({ "one\n", "two\n" }, got)
    end)
  end)

  it("carries a megabyte both ways", function()
    local blob = ("0123456789abcdef"):rep(65536)
    net.with_server(function(stream) stream:write(stream:read_exactly(#blob)) end, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      stream:write(blob)
      assert.is_true(stream:read("a") == blob)
    end)
  end)

  it("serves many at once", function()
    local n = net.with_server(lines, function(port)
      local list = {}
      for i = 1, 200 do
        list[i] = function()
          local stream <close> = agather.net.connect("127.0.0.1", port)
          stream:write(i, "\n")
          return tonumber(stream:read())
        end
      end
      local r = agather.gather_list(list):await()
      local sum = 0
      for i = 1, r.n do sum = sum + r[i] end
      return sum
    end)
    assert.equal(20100, n)
  end)

  it("reads what comes byte by byte", function()
    net.with_connection(function(one, other)
      local text = "a line\n5bytes--the end"
      agather.spawn(function()
        for i = 1, #text do
          other:write(text:sub(i, i))
          agather.sleep(0)
        end
        other:close()
      end)
      assert.equal("a line", one:read())
      assert.equal("5byte", one:read_exactly(5))
      assert.equal("s--", one:read_until("--"))
      assert.equal("the end", one:read("a"))
    end)
  end)

  it("is cancelled while it reads in each way, and read again", function()
    net.with_connection(function(one, other)
      other:write("begin")
      for _, read in ipairs {
        function() return one:read("l") end, function() return one:read("a") end,
        function() return one:read_exactly(100) end, function() return one:read_until("--") end,
      } do
        local task = agather.spawn(read)
        agather.sleep(0.002)
        collectgarbage()
        task:cancel()
        support.raises("CancelledError", task.await, task)
        assert.is_true(task:cancelled())
      end
      other:write(" and end\n")
      assert.equal("begin and end", one:read())
    end)
  end)

  it("keeps what came for a reader that is cancelled at that moment", function()
    net.with_connection(function(one, other)
      local task = agather.spawn(one.read, one, 10)
      agather.sleep(0)
      other:write("bytes")
      net.eventually(function() -- woken by the bytes and cancelled before it runs
        task:cancel()
        return task:done()
      end, "the reader has ended")
      assert.is_true(task:cancelled())
      assert.equal("bytes", one:read(10))
    end)
  end)

  it("is not waited for by a task that has cancelled itself", function()
    net.with_connection(function(one, other)
      local task = agather.spawn(function()
        agather.current_task():cancel()
        one:read("l")
      end)
      agather.wait({ task }, { timeout = 5 })
      assert.is_true(task:cancelled())
      other:write("line\n")
      assert.equal("line", one:read("l"))
    end)
  end)

  it("ends a read at its timeout and loses nothing", function()
    net.with_connection(function(one, other)
      other:write("half a li")
      assert.error_matches(function() agather.wait_for(function() return one:read() end, 0.01) end, "TimeoutError")
      other:write("ne\n")
      assert.equal("half a line", one:read())
    end)
  end)

  it("refuses a second reader", function()
    net.with_connection(function(one, other)
      local task = agather.spawn(one.read, one)
      agather.sleep(0)
      support.raises("another task reads from this stream already", one.read, one)
      other:write("x\n")
      assert.equal("x", task:await())
    end)
  end)

  it("gives a reader an error when it is closed under it", function()
    net.with_connection(function(one)
      local task = agather.spawn(one.read, one)
      agather.sleep(0)
      one:close()
      net.fails("EBADF", task.await, task)
    end)
  end)

  it("raises LimitOverrunError for a line that is too long, and can go on", function()
    net.with_connection(function(one, other)
      local writer = agather.spawn(function()
        other:write(("x"):rep(100000), "\nnext\n")
        other:shutdown()
      end)
      local err = support.raises("more than 65536 bytes (the limit)", one.read, one)
      assert.is_true(agather.is_error(err, agather.LimitOverrunError))
      one:set_limits { line = 200000 }
      assert.equal(100000, #one:read())
      assert.equal("next", one:read())
      writer:await()
      support.raises("unknown option 'x'", one.set_limits, one, { x = 1 })
    end)
  end)

  it("takes no more from the system than somebody reads", function()
    net.with_connection(function(one, other)
      local sent = 0
      local writer = agather.spawn(function()
        while true do
          other:write(("x"):rep(65536))
          sent = sent + 65536
        end
      end)
      one:read(1)
      local before
      repeat
        before = sent
        agather.sleep(0.05)
      until sent == before
      collectgarbage()
      assert.is_true(sent < 16 * 1024 * 1024, sent)
      one:read_exactly(sent // 2)
      net.eventually(function() return sent > before end, "the writer goes on")
      writer:cancel()
    end)
  end)

  it("reads after a reset what came before, then raises", function()
    net.with_connection(function(one, other)
      other:write("a line\nhalf")
      assert.equal("a line", one:read())
      other:abort()
      net.fails("ECONNRESET", one.read, one)
      net.fails("ECONNRESET", one.read, one, "a")
      net.fails("ECONNRESET", one.read_exactly, one, 10)
      net.fails("ECONNRESET", one.read_until, one, "x")
      assert.equal("half", one:read(10))
      local err = net.fails("ECONNRESET", one.read, one, 10)
      assert.equal("read", err.operation)
      assert.matches("^127%.0%.0%.1:%d+$", err.address)
      assert.matches("connection reset by peer %(ECONNRESET%)$", err.message)
    end)
  end)

  it("wakes a reader by a reset", function()
    net.with_connection(function(one, other)
      local task = agather.spawn(one.read, one)
      agather.sleep(0.002)
      other:abort()
      net.fails("ECONNRESET", task.await, task)
    end)
  end)

  it("is half closed: what comes is read after a shutdown", function()
    net.with_connection(function(one, other)
      one:write("question")
      one:shutdown()
      one:shutdown()
      assert.equal("question", other:read("a"))
      other:write("answer")
      other:close()
      assert.equal("answer", one:read("a"))
      net.fails("EPIPE", one.write, one, "more")
    end)
  end)

  it("tells both addresses", function()
    net.with_connection(function(one, other)
      assert.same({ one:local_address() }, { other:peer_address() })
      assert.same({ other:local_address() }, { one:peer_address() })
      assert.equal("127.0.0.1", (one:peer_address()))
      assert.matches("^agather.Stream %(127%.0%.0%.1:%d+%)$", tostring(one))
      one:close()
      assert.matches("^agather.Stream %(closed 127", tostring(one))
      net.fails("EBADF", one.peer_address, one)
      net.fails("EBADF", one.local_address, one)
    end)
  end)

  it("refuses use after close", function()
    net.with_connection(function(one)
      one:close()
      one:close()
      one:abort()
      for _, call in ipairs {
        function() one:read() end, function() one:read_exactly(1) end, function() one:read_until("x") end,
        function() one:lines() end, function() one:write("x") end, function() one:flush() end,
        function() one:shutdown() end,
      } do
        assert.matches("the stream is closed", net.fails("EBADF", call).message)
      end
    end)
  end)

  it("refuses bad arguments with names", function()
    net.with_connection(function(one)
      support.raises("bad argument #1 to 'read' (invalid format", function() one:read("x") end)
      support.raises("number of bytes must not be negative", one.read, one, -1)
      support.raises("number has no integer representation", one.read, one, 1.5)
      support.raises("number expected", one.read_exactly, one, "x")
      support.raises("separator must not be empty", one.read_until, one, "")
      support.raises("string expected, got table", one.write, one, "x", {})
      support.raises("invalid format", one.lines, one, "x")
      support.raises("agather.Stream expected", one.read, {})
    end)
  end)

  it("is closed when it is garbage", function()
    net.with_connection(function(one)
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      agather.net.connect("127.0.0.1", select(2, listener:local_address()))
      local peer <close> = listener:accept()
      collectgarbage()
      collectgarbage()
      assert.is_nil(peer:read())
      one:close()
    end)
  end)

  it("is closed with its loop, and says so after it", function()
    local stream, listener
    agather.run(function()
      listener = agather.net.listen("127.0.0.1", 0)
      stream = agather.net.connect("127.0.0.1", select(2, listener:local_address()))
      agather.spawn(stream.read, stream)
      agather.sleep(0)
    end)
    net.fails("EBADF", stream.read, stream)
    net.fails("EBADF", listener.accept, listener)
    stream:close()
    listener:close()
  end)

  it("leaves no descriptor behind", function()
    local counts = {}
    for i = 1, 4 do
      net.with_connection(function(one, other)
        one:write("x")
        other:read(1)
        agather.net.connect("127.0.0.1", select(2, agather.net.listen("127.0.0.1", 0):local_address()))
      end)
      collectgarbage()
      collectgarbage()
      counts[i] = net.descriptors()
    end
    assert.same({ counts[1], counts[1], counts[1] }, { counts[2], counts[3], counts[4] })
  end)
end)
