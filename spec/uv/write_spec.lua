local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"

local block = ("x"):rep(65536)

-- Writes until the writer waits; returns its task.
local function stuck_writer(stream)
  local sent = 0
  local task = agather.spawn(function()
    while true do
      stream:write(block)
      sent = sent + #block
    end
  end)
  local before
  repeat
    before = sent
    agather.sleep(0.02)
  until sent == before and sent > 0
  return task, sent
end

describe("writing", function()
  it("takes strings and numbers, any number of them, and returns the stream", function()
    net.with_connection(function(one, other)
      assert.equal(one, one:write("a", 1, "b", 2.5, ""))
      assert.equal("a1b2.5", other:read_exactly(6))
      assert.equal(one, one:write())
      assert.equal(one, one:write(""))
      local many = {}
      for i = 1, 200 do many[i] = i end
      one:write(table.unpack(many))
      one:close()
      assert.equal(table.concat(many), other:read("a"))
    end)
  end)

  it("keeps the order and the pieces of several strings that do not fit at once", function()
    net.with_connection(function(one, other)
      local numbers, pieces = {}, {}
      for i = 1, 60000 do numbers[i] = i end
      local text = table.concat(numbers, " ") -- no part of it is like another
      for i = 1, 14 do pieces[i] = text:sub(i * 1000) end
      local writer = agather.spawn(function()
        one:write(table.unpack(pieces))
        one:write("end")
        one:close()
      end)
      assert.is_true(other:read("a") == table.concat(pieces) .. "end")
      writer:await()
    end)
  end)

  it("waits over the high-water mark until the low one", function()
    net.with_connection(function(one, other)
      one:set_write_buffer_limits { high = 100000, low = 1000 }
      local writer, sent = stuck_writer(one)
      assert.is_false(writer:done())
      assert.is_true(sent < 64e6, sent) -- what the system takes, and little more
      local reader = agather.spawn(function() while other:read(65536) do end end)
      agather.sleep(0.01)
      writer:cancel()
      support.raises("CancelledError", writer.await, writer)
      one:flush()
      one:close()
      reader:await()
    end)
  end)

  it("does not wait below the mark, however slow the peer", function()
    net.with_connection(function(one)
      one:set_write_buffer_limits { high = 64 * 1024 * 1024 }
      for _ = 1, 200 do one:write(block) end
      one:abort()
    end)
  end)

  it("refuses marks that make no sense", function()
    net.with_connection(function(one)
      support.raises("low must not be more than high", one.set_write_buffer_limits, one, { high = 1, low = 2 })
      support.raises("option 'high' must be a number of bytes", one.set_write_buffer_limits, one, { high = "x" })
      support.raises("unknown option 'hihg'", one.set_write_buffer_limits, one, { hihg = 1 })
      support.raises("table expected", one.set_write_buffer_limits, one)
    end)
  end)

  it("keeps what each of several tasks writes in one piece", function()
    net.with_connection(function(one, other)
      local writers = {}
      for i = 1, 20 do
        local bytes = string.char(64 + i):rep(200000)
        writers[i] = agather.spawn(function() one:write(bytes:sub(1, 100000), bytes:sub(100001)) end)
      end
      for i = 1, 20 do
        local run = other:read_exactly(200000)
        assert.is_true(run == string.char(64 + i):rep(200000))
      end
      agather.wait(writers)
      for _, writer in ipairs(writers) do writer:await() end
    end)
  end)

  it("is cancelled while it waits, and the stream goes on with all that was written", function()
    net.with_connection(function(one, other)
      local writer, sent = stuck_writer(one)
      collectgarbage()
      writer:cancel()
      support.raises("CancelledError", writer.await, writer)
      collectgarbage()
      local reader = agather.spawn(other.read, other, "a")
      one:write("the end")
      one:close()
      local all = reader:await()
      assert.equal(sent + 65536 + 7, #all)
      assert.equal("the end", all:sub(-7))
    end)
  end)

  it("ends with an error when the stream is closed under it, in all tasks that wait", function()
    net.with_connection(function(one)
      local first = stuck_writer(one)
      local second = agather.spawn(one.write, one, block)
      local third = agather.spawn(one.flush, one)
      agather.sleep(0)
      one:close()
      net.fails("EBADF", first.await, first)
      net.fails("EBADF", second.await, second)
      net.fails("EBADF", third.await, third)
      one:abort()
    end)
  end)

  it("ends with an error when the peer resets while it waits", function()
    net.with_connection(function(one, other)
      local writer = stuck_writer(one)
      other:abort()
      local ok, err = pcall(writer.await, writer)
      assert.is_false(ok)
      assert.is_true(err.code == "ECONNRESET" or err.code == "EPIPE", err.code)
      assert.equal("write", err.operation)
      ok, err = pcall(one.write, one, "more")
      assert.is_false(ok)
      assert.is_true(err.code == "ECONNRESET" or err.code == "EPIPE", err.code)
    end)
  end)

  it("to a peer that is gone is an error and not the end of the process", function()
    net.with_connection(function(one, other)
      other:close()
      local err
      net.eventually(function()
        local ok
        ok, err = pcall(one.write, one, "x")
        return not ok
      end, "writing fails")
      assert.is_true(err.code == "EPIPE" or err.code == "ECONNRESET", err.code)
    end)
  end)

  it("flushes until the system has all", function()
    net.with_connection(function(one, other)
      assert.equal(one, one:flush())
      one:set_write_buffer_limits { high = 100000000 }
      one:write(("y"):rep(12000000))
      local flushed = agather.spawn(one.flush, one)
      agather.sleep(0.01)
      assert.is_false(flushed:done())
      assert.equal(12000000, #other:read_exactly(12000000))
      assert.equal(one, flushed:await())
    end)
  end)

  it("sends after close what was written before", function()
    net.with_connection(function(one, other)
      one:set_write_buffer_limits { high = 100000000 }
      one:write(("z"):rep(8000000))
      one:close()
      one:close()
      assert.equal(8000000, #other:read("a"))
    end)
  end)

  it("sends what was written before the stream was collected", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local reader = agather.spawn(function()
        local other <close> = listener:accept()
        agather.sleep(0.01)
        return #other:read("a")
      end)
      local host, port = listener:local_address()
      agather.spawn(function()
        local one = agather.net.connect(host, port)
        one:set_write_buffer_limits { high = 100000000 }
        one:write(("z"):rep(8000000))
      end):await()
      collectgarbage()
      collectgarbage()
      assert.equal(8000000, reader:await())
    end)
  end)

  it("sends the rest when the loop closes, too, to a peer that reads", function()
    local output, status = support.script([[
      agather.run(function()
        local listener <close> = agather.net.listen("127.0.0.1", 0)
        local _, port = listener:local_address()
        local pipe = io.popen("exec python3 -c 'import socket\ns=socket.create_connection((\"127.0.0.1\"," .. port ..
          "))\nn=0\nwhile True:\n  d=s.recv(65536)\n  if not d: break\n  n+=len(d)\nprint(n)'", "r")
        local stream = listener:accept()
        stream:set_write_buffer_limits { high = 100000000 }
        stream:write(("z"):rep(16000000))
        stream:close()
        result = pipe
      end)
      print(result:read("l"))]])
    assert.equal("16000000\n", output)
    assert.equal(0, status)
  end)

  it("lets the loop close, after a second, where the peer does not read", function()
    local stream
    local before = net.descriptors()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      stream = agather.net.connect("127.0.0.1", select(2, listener:local_address()))
      PEER = listener:accept() -- luacheck: ignore
      stream:set_write_buffer_limits { high = 100000000 }
      stream:write(("z"):rep(16000000))
      stream:close()
    end)
    net.fails("EBADF", stream.write, stream, "x")
    PEER = nil -- luacheck: ignore
    assert.equal(before, net.descriptors())
  end)

  it("drops the rest with abort, and the peer sees a reset", function()
    net.with_connection(function(one, other)
      one:set_write_buffer_limits { high = 100000000 }
      one:write(("z"):rep(16000000))
      one:abort()
      one:abort()
      net.fails("ECONNRESET", function() while other:read(65536) do end end)
    end)
  end)

  it("drops with abort also what close had left to be sent", function()
    net.with_connection(function(one, other)
      one:set_write_buffer_limits { high = 100000000 }
      one:write(("z"):rep(16000000))
      one:close()
      one:abort()
      net.fails("ECONNRESET", function() while other:read(65536) do end end)
    end)
  end)

  it("shuts the pipe to a child once all is sent, and the stream itself is open until it is closed", function()
    agather.run(function()
      local child <close> = agather.process.spawn { "cat" }
      local text = ("x"):rep(300000)
      local reading = agather.spawn(child.stdout.read, child.stdout, "a")
      local writing = agather.spawn(child.stdin.write, child.stdin, text)
      agather.sleep(0)
      child.stdin:shutdown()
      child.stdin:shutdown()
      assert.equal(child.stdin, writing:await())
      assert.is_true(agather.wait_for(reading, 10) == text)
      assert.equal(0, child:wait())
      collectgarbage()
      net.fails("EPIPE", child.stdin.write, child.stdin, "more")
      assert.equal(child.stdin, child.stdin:flush())
      child.stdin:shutdown()
      assert.is_nil(tostring(child.stdin):find("closed", 1, true))
      child.stdin:close()
      child.stdin:close()
      net.fails("EBADF", child.stdin.write, child.stdin, "more")
    end)
    collectgarbage()
  end)

  it("shuts the pipe to a child at the end of what is copied to it", function()
    agather.run(function()
      local child <close> = agather.process.spawn { "cat" }
      local one, other = agather.net.pair()
      one:write("through it")
      one:shutdown()
      assert.equal(10, other:pipe(child.stdin))
      assert.equal("through it", agather.wait_for(agather.async(child.stdout.read)(child.stdout, "a"), 10))
    end)
  end)

  it("copies one stream to another with pipe, and ends it", function()
    net.with_connection(function(one, other)
      net.with_server(net.echo, function(port)
        local echo <close> = agather.net.connect("127.0.0.1", port)
        local blob = ("0123456789"):rep(300000)
        agather.spawn(function()
          one:write(blob)
          one:close()
        end)
        local copied = agather.spawn(other.pipe, other, echo)
        assert.is_true(echo:read("a") == blob)
        assert.equal(#blob, copied:await())
      end)
    end)
  end)

  it("pipes a number of bytes and leaves the rest", function()
    net.with_connection(function(one, other)
      local there, here = agather.net.pair()
      one:write("0123456789")
      assert.equal(4, other:pipe(there, { limit = 4, shutdown = false }))
      assert.equal("0123", here:read(10))
      assert.equal(3, other:pipe(there, { limit = 3 }))
      assert.equal("456", here:read("a"))
      assert.equal("789", other:read(10))
      support.raises("unknown option 'x'", other.pipe, other, there, { x = 1 })
      support.raises("stream expected, got nil", other.pipe, other)
      support.raises("option 'limit' must be a positive integer", other.pipe, other, there, { limit = 0 })
    end)
  end)

  it("holds a pipe back where the other side is slow, and is cancelled", function()
    net.with_connection(function(one, other)
      local there = agather.net.pair()
      local writer = agather.spawn(function() while true do one:write(block) end end)
      local piping = agather.spawn(other.pipe, other, there)
      agather.sleep(0.05)
      assert.is_false(piping:done())
      assert.is_false(writer:done())
      piping:cancel()
      support.raises("CancelledError", piping.await, piping)
      writer:cancel()
      support.raises("CancelledError", writer.await, writer)
    end)
  end)
end)
