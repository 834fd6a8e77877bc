local agather = require "agather"
local net = require "spec.support.net"
local stream = require "agather.stream"
local support = require "spec.support"

-- A transport that gives [pieces] one at a time and remembers what is done to it.
local function scripted(pieces)
  local transport = { log = {}, next = 1 }
  function transport:read(n)
    local piece = pieces[self.next]
    self.next = self.next + 1
    if type(piece) == "function" then return piece(self, n) end
    return piece
  end
  function transport:write(bytes) self.log[#self.log + 1] = bytes end
  function transport:shutdown() self.log[#self.log + 1] = "shutdown" end
  function transport:close() self.log[#self.log + 1] = "close" end
  return transport
end

local function raising(message) return function() error(message, 0) end end

describe("a wrapped transport", function()
  it("is read by every format, however its bytes come", function()
    support.virtual(function()
      local wrapped = stream.wrap(scripted { "o", "ne\ntw", "o\nfive", "5--x", "12345", "67", "8" })
      assert.equal("one", wrapped:read())
      assert.equal("two\n", wrapped:read("L"))
      assert.equal("five5--", wrapped:read_until("--"))
      assert.equal("x", wrapped:read(1))
      assert.equal("1234", wrapped:read_exactly(4))
      assert.equal("5", wrapped:read(100))
      assert.equal("678", wrapped:read("a"))
      assert.is_nil(wrapped:read())
      assert.is_nil(wrapped:read(1))
      assert.equal("", wrapped:read("a"))
    end)
  end)

  it("iterates over its lines", function()
    support.virtual(function()
      local got = {}
      for line in stream.wrap(scripted { "a\nb", "\nc" }):lines() do got[#got + 1] = line end
      assert.same({ "a", "b", "c" }, got)
    end)
  end)

  it("raises as streams do where the end comes first or a line is too long", function()
    support.virtual(function()
      local wrapped = stream.wrap(scripted { "abc" })
      assert.equal("abc", support.raises("ended after 3 of 5 bytes", wrapped.read_exactly, wrapped, 5).partial)
      wrapped = stream.wrap(scripted { "abcdefg", "hi\n" })
      wrapped:set_limits { line = 4 }
      support.raises("more than 4 bytes", wrapped.read, wrapped)
      assert.equal("abcdefg", wrapped:read(100))
      assert.equal("hi", wrapped:read())
    end)
  end)

  it("raises the transport's error and can be read after it", function()
    support.virtual(function()
      local wrapped = stream.wrap(scripted { "half ", raising("try again"), "a line\n" })
      assert.equal("try again", support.raises("try again", wrapped.read, wrapped))
      assert.equal("half a line", wrapped:read())
    end)
  end)

  it("is cancelled while it reads, and read again", function()
    support.virtual(function()
      local wrapped = stream.wrap(scripted { "half ", function() agather.sleep(1) return "lost" end, "a line\n" })
      local task = agather.spawn(wrapped.read, wrapped)
      agather.sleep(0.5)
      support.raises("another task reads from this stream already", wrapped.read, wrapped)
      task:cancel()
      support.raises("CancelledError", task.await, task)
      assert.equal("half a line", wrapped:read())
    end)
  end)

  it("writes in one piece and one task after the other", function()
    support.virtual(function()
      local transport = scripted {}
      local busy = false
      function transport:write(bytes)
        assert.is_false(busy)
        busy = true
        agather.sleep(1)
        busy = false
        self.log[#self.log + 1] = bytes
      end
      local wrapped = stream.wrap(transport)
      for i = 1, 3 do agather.spawn(wrapped.write, wrapped, i, "+", i) end
      local flushing = agather.spawn(wrapped.flush, wrapped)
      agather.sleep(2.5)
      assert.same({ "1+1", "2+2" }, transport.log)
      assert.is_false(flushing:done())
      assert.equal(wrapped, flushing:await())
      assert.same({ "1+1", "2+2", "3+3" }, transport.log)
      assert.equal(wrapped, wrapped:write(""))
      assert.equal(3, #transport.log)
    end)
  end)

  it("lets the next task write when one is cancelled", function()
    support.virtual(function()
      local transport = scripted {}
      function transport:write(bytes)
        agather.sleep(1)
        self.log[#self.log + 1] = bytes
      end
      local wrapped = stream.wrap(transport)
      local first = agather.spawn(wrapped.write, wrapped, "first")
      local second = agather.spawn(wrapped.write, wrapped, "second")
      agather.sleep(0.5)
      first:cancel()
      second:await()
      assert.is_true(first:cancelled())
      assert.same({ "second" }, transport.log)
    end)
  end)

  it("is shut down and closed once", function()
    support.virtual(function()
      local transport = scripted {}
      local wrapped = stream.wrap(transport)
      wrapped:shutdown()
      wrapped:shutdown()
      net.fails("EPIPE", wrapped.write, wrapped, "x")
      do local _ <close> = wrapped end
      wrapped:close()
      wrapped:abort()
      assert.same({ "shutdown", "close" }, transport.log)
      for _, name in ipairs { "read", "lines", "flush", "shutdown", "peer_address", "local_address" } do
        net.fails("EBADF", wrapped[name], wrapped)
      end
      net.fails("EBADF", wrapped.write, wrapped, "x")
      net.fails("EBADF", wrapped.read_exactly, wrapped, 1)
      net.fails("EBADF", wrapped.read_until, wrapped, "x")
    end)
  end)

  it("refuses what was read by a transport that was closed meanwhile", function()
    support.virtual(function()
      local wrapped = stream.wrap(scripted { function() agather.sleep(1) return "late\n" end })
      local task = agather.spawn(wrapped.read, wrapped)
      agather.sleep(0.5)
      wrapped:close()
      net.fails("EBADF", task.await, task)
    end)
  end)

  it("hands on what else the transport can, and has methods of its own", function()
    support.virtual(function()
      local transport = scripted {}
      function transport.peer_address() return "host", 7 end
      function transport:set_write_buffer_limits(limits) self.limits = limits end
      function transport:flush() self.log[#self.log + 1] = "flush" end
      function transport:abort() self.log[#self.log + 1] = "abort" end
      local wrapped = stream.wrap(transport, { secret = function(self) return self.transport.log end })
      assert.same({ "host", 7 }, { wrapped:peer_address() })
      assert.is_nil(wrapped:local_address())
      wrapped:set_write_buffer_limits { high = 5 }
      assert.same({ high = 5 }, transport.limits)
      wrapped:flush()
      wrapped:abort()
      assert.same({ "flush", "abort" }, wrapped:secret())
      assert.matches("^agather.Stream %(closed table", tostring(wrapped))
    end)
  end)

  it("refuses bad arguments with names", function()
    support.virtual(function()
      local wrapped = stream.wrap(scripted {})
      support.raises("bad argument #1 to 'read' (invalid format", wrapped.read, wrapped, "x")
      support.raises("bad argument #1 to 'read' (number of bytes must not be negative", wrapped.read, wrapped, -1)
      support.raises("bad argument #1 to 'read' (invalid format", wrapped.read, wrapped, 1.5)
      support.raises("bad argument #1 to 'read_exactly'", wrapped.read_exactly, wrapped)
      support.raises("separator must not be empty", wrapped.read_until, wrapped, "")
      support.raises("bad argument #2 to 'write' (string expected, got table)", wrapped.write, wrapped, "x", {})
      support.raises("transport expected, got nil", stream.wrap)
      support.raises("bad argument #2 to 'wrap' (table expected, got boolean)", stream.wrap, scripted {}, true)
      for kind, other in pairs { table = {}, string = "x", ["json.null"] = agather.json.null, Lock = agather.Lock() } do
        support.raises("bad argument #1 to 'pipe' (stream expected, got " .. kind, wrapped.pipe, wrapped, other)
      end
      local here = debug.getinfo(1, "S").short_src
      for _, name in ipairs { "set_limits", "set_write_buffer_limits" } do
        for what, limits in pairs { ["table expected, got boolean"] = true, ["unknown option 'x'"] = { x = 1 },
          ["must be a number of bytes, got -1"] = { [name == "set_limits" and "line" or "low"] = -1 } } do
          local text = support.raises(("bad argument #1 to '%s' ("):format(name), function() wrapped[name](wrapped, limits) end)
          assert.truthy(text:find(what, 1, true), text)
          assert.equal(1, text:find(here, 1, true), text)
        end
      end
      support.raises("low must not be more than high", wrapped.set_write_buffer_limits, wrapped, { low = 2, high = 1 })
    end)
  end)
end)
