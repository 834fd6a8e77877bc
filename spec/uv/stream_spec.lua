local agather = require "agather"

local function with_server(handler, client)
  return agather.run(function()
    local port = agather.future()
    local server = agather.spawn(agather.net.serve, "127.0.0.1", 0, handler, {
      on_listen = function(listener) port:set_result(select(2, listener:local_address())) end,
    })
    local results = table.pack(client(agather.await(port)))
    server:cancel()
    pcall(agather.await, server)
    return table.unpack(results, 1, results.n)
  end)
end

local function echo(stream)
  for line in stream:lines() do stream:write(line, "\n") end
end

describe("stream", function()
  it("brings lines there and back", function()
    with_server(echo, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      stream:write("one\n", "two\n")
      assert.equal("one", stream:read())
      assert.equal("two\n", stream:read("L"))
      stream:shutdown()
      assert.is_nil(stream:read())
    end)
  end)

  it("reads by number, to a separator, and all", function()
    with_server(function(stream) stream:write("abcdef--rest of it") end, function(port)
      local stream <close> = agather.net.connect("localhost", port)
      assert.equal("abc", stream:read_exactly(3))
      assert.equal("def--", stream:read_until("--"))
      assert.equal("rest of it", stream:read("a"))
      assert.error_matches(function() stream:read_exactly(1) end, "ended")
    end)
  end)

  it("iterates by a read format", function()
    with_server(function(stream) stream:write("one\ntwo\n") end, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      local lines = {}
      for line in stream:lines("L") do lines[#lines + 1] = line end
      assert.same({ "one\n", "two\n" }, lines)
    end)
  end)

  it("carries a megabyte both ways", function()
    local blob = ("0123456789abcdef"):rep(65536)
    with_server(function(stream) stream:write(stream:read_exactly(#blob)) end, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      stream:write(blob)
      assert.is_true(stream:read("a") == blob)
    end)
  end)

  it("serves many at once", function()
    local n = with_server(echo, function(port)
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

  it("raises OSError with a code", function()
    agather.run(function()
      local listener = agather.net.listen("127.0.0.1", 0)
      local _, port = listener:local_address()
      listener:close()
      local ok, err = pcall(agather.net.connect, "127.0.0.1", port)
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.OSError))
      assert.equal("ECONNREFUSED", err.code)
    end)
  end)

  it("is cancelled while it reads, accepts and connects, and used again after a cancelled read", function()
    with_server(echo, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      local reader = agather.spawn(stream.read, stream)
      agather.sleep(0.01)
      reader:cancel()
      assert.is_false((pcall(agather.await, reader)))
      assert.is_true(reader:cancelled())
      stream:write("still here\n")
      assert.equal("still here", stream:read())
      local connecting = agather.spawn(agather.net.connect, "127.0.0.1", port)
      agather.sleep(0)
      connecting:cancel()
      assert.is_false((pcall(agather.await, connecting)))
    end)
  end)

  it("refuses use after close", function()
    with_server(echo, function(port)
      local stream = agather.net.connect("127.0.0.1", port)
      stream:close()
      stream:close()
      local ok, err = pcall(stream.read, stream)
      assert.is_false(ok)
      assert.equal("EBADF", err.code)
      assert.error_matches(function() agather.net.connect("127.0.0.1", 99999) end, "port must be")
    end)
  end)
end)
