local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"
local uv = require "agather.uv"

-- A port of 127.0.0.1 on which connections neither succeed nor fail: its queue is full. f(port) runs meanwhile.
local function with_silent_port(f)
  local listener <close> = agather.net.listen("127.0.0.1", 0, { backlog = 1 })
  local _, port = listener:local_address()
  local held = {}
  local connecting
  repeat -- the system rounds the backlog up
    connecting = agather.spawn(function() held[#held + 1] = agather.net.connect("127.0.0.1", port) end)
    agather.wait({ connecting }, { timeout = 0.1 })
    support.turns(5) -- a machine that is slow may have both at once
  until not connecting:done()
  connecting:cancel()
  local results = table.pack(f(port))
  for _, stream in ipairs(held) do stream:close() end
  return table.unpack(results)
end

local function free_port()
  local listener <close> = agather.net.listen("127.0.0.1", 0)
  return select(2, listener:local_address())
end

describe("connecting", function()
  it("fails with the code, the operation and the address that was asked for", function()
    agather.run(function()
      local port = free_port()
      local err = net.fails("ECONNREFUSED", agather.net.connect, "127.0.0.1", port)
      assert.equal("connect", err.operation)
      assert.equal("127.0.0.1:" .. port, err.address)
      assert.equal(111, err.errno)
      err = net.fails("ECONNREFUSED", agather.net.connect, "localhost", port)
      assert.equal("localhost:" .. port, err.address)
    end)
  end)

  it("names a host that is unknown", function()
    agather.run(function()
      local ok, err = pcall(agather.net.connect, "no-such-host.invalid", 80)
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.OSError))
      assert.matches("no%-such%-host%.invalid", err.message)
      assert.matches("^EAI_", err.code)
    end)
  end)

  it("tries the next address where one refuses", function()
    net.with_server(net.echo, function(port)
      local stream <close> = uv.connect({ "127.0.0.2", "127.0.0.1" }, port, "two", 60, true)
      assert.equal("127.0.0.1", (stream:peer_address()))
    end)
  end)

  it("joins an attempt that takes long by the next one, and the first connection wins", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local _, port = listener:local_address()
      -- the same port of another address is silent
      local silent <close> = agather.net.listen("127.0.0.3", port, { backlog = 1 })
      local held = {}
      local connecting
      repeat
        connecting = agather.spawn(function() held[#held + 1] = agather.net.connect("127.0.0.3", port) end)
        agather.wait({ connecting }, { timeout = 0.1 })
        support.turns(5)
      until not connecting:done()
      connecting:cancel()
      local stream <close> = uv.connect({ "127.0.0.3", "127.0.0.1" }, port, "race", 0.02, true)
      assert.equal("127.0.0.1", (stream:peer_address()))
      local accepted <close> = listener:accept()
      assert.equal("hello", (accepted:write("hello") and stream:read_exactly(5)))
      for _, other in ipairs(held) do other:close() end
      silent:close()
    end)
  end)

  it("tells of the failure that says most when all fail", function()
    agather.run(function()
      local port = free_port()
      local err = net.fails("ECONNREFUSED", uv.connect, { "::1", "127.0.0.1", "127.0.0.2" }, port, "all", 0.01, true)
      assert.equal("all", err.address)
      net.fails("EADDRNOTAVAIL", uv.connect, {}, 80, "none", 0.01, true)
    end)
  end)

  it("is cancelled while it looks up and while it connects", function()
    agather.run(function()
      for _, host in ipairs { "localhost", "127.0.0.1" } do
        local connecting = agather.spawn(agather.net.connect, host, free_port())
        agather.sleep(0)
        connecting:cancel()
        support.raises("CancelledError", connecting.await, connecting)
        collectgarbage()
      end
      with_silent_port(function(port)
        local connecting = agather.spawn(agather.net.connect, "127.0.0.1", port)
        agather.sleep(0.01)
        collectgarbage()
        connecting:cancel()
        support.raises("CancelledError", connecting.await, connecting)
      end)
    end)
  end)

  it("closes a connection that was made when its task is cancelled at that moment", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local _, port = listener:local_address()
      local connecting = agather.spawn(agather.net.connect, "127.0.0.1", port)
      agather.sleep(0)
      local peer <close> = listener:accept()
      connecting:cancel() -- the connection stands, whether or not the task has heard of it
      local ok, stream = pcall(connecting.await, connecting)
      if ok then stream:close() end
      assert.is_nil(peer:read())
    end)
  end)

  it("closes a connection also when its task is cancelled as it has been woken", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local _, port = listener:local_address()
      for turns = 1, 4 do
        local connecting = agather.spawn(agather.net.connect, "127.0.0.1", port)
        support.turns(turns)
        local start = os.clock()
        repeat until os.clock() - start > 0.001 -- the loop looks at the system before the next turn
        agather.sleep(0)
        connecting:cancel()
        local ok, stream = pcall(connecting.await, connecting)
        if ok then stream:close() end
        local peer <close> = listener:accept()
        assert.is_nil(agather.wait_for(function() return peer:read() end, 5))
      end
    end)
  end)

  it("gives up after its timeout and says what took so long", function()
    agather.run(function()
      with_silent_port(function(port)
        local ok, err = pcall(agather.net.connect, "127.0.0.1", port, { timeout = 0.02 })
        assert.is_false(ok)
        assert.is_true(agather.is_error(err, agather.TimeoutError))
        assert.equal(("connect 127.0.0.1:%d: no answer in 0.02 s"):format(port), err.message)
      end)
      net.fails("ECONNREFUSED", agather.net.connect, "127.0.0.1", free_port(), { timeout = 5 })
    end)
  end)

  it("is ended by a scope's timeout", function()
    agather.run(function()
      with_silent_port(function(port)
        support.raises("TimeoutError", agather.wait_for, function() agather.net.connect("127.0.0.1", port) end, 0.01)
      end)
    end)
  end)

  it("comes from the local address that is asked for", function()
    net.with_server(function(stream) stream:write((stream:peer_address())) end, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port, { local_address = "127.0.0.9" })
      assert.equal("127.0.0.9", stream:read("a"))
      local from = free_port()
      local second <close> = agather.net.connect("127.0.0.1", port, { local_address = { "127.0.0.1", from } })
      assert.same({ "127.0.0.1", from }, { second:local_address() })
      net.fails("EADDRNOTAVAIL", agather.net.connect, "127.0.0.1", port, { local_address = "192.0.2.1" })
      local third <close> = agather.net.connect("localhost", port, { local_address = "127.0.0.8" })
      assert.equal("127.0.0.8", third:read("a"))
      local ok, err = pcall(agather.net.connect, "::1", port, { local_address = "127.0.0.8" })
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.OSError))
      support.raises("local_address 127.0.0.8 is not of the family ipv6", agather.net.connect, "localhost", port,
        { local_address = "127.0.0.8", family = "ipv6" })
    end)
  end)

  it("takes options for small writes and silent peers", function()
    net.with_server(net.echo, function(port)
      local stream <close> = agather.net.connect("127.0.0.1", port, { nodelay = false, keepalive = 30 })
      local _, from = stream:local_address()
      local timers = {}
      for line in io.lines("/proc/net/tcp") do -- local address, remote address, state, queues, timer
        local here, there, timer = line:match("%d+: %x+:(%x+) %x+:(%x+) 01 %S+ (%x+):")
        if here then timers[tonumber(here, 16) .. ">" .. tonumber(there, 16)] = timer end
      end
      assert.equal("02", timers[from .. ">" .. port]) -- 02: keepalive
      assert.equal("02", timers[port .. ">" .. from])
    end, { keepalive = true })
  end)

  it("keeps to the family that is asked for", function()
    net.with_server(net.echo, function(port)
      local stream <close> = agather.net.connect("localhost", port, { family = "ipv4" })
      assert.equal("127.0.0.1", (stream:peer_address()))
      local ok, err = pcall(agather.net.connect, "127.0.0.1", port, { family = "ipv6" })
      assert.is_false(ok)
      assert.is_true(agather.is_error(err, agather.OSError))
    end)
  end)

  it("ends with its loop", function()
    local task
    agather.run(function()
      with_silent_port(function(port)
        task = agather.spawn(agather.net.connect, "127.0.0.1", port)
        agather.sleep(0.01)
      end)
    end)
    assert.is_true(task:cancelled())
  end)

  it("refuses bad arguments with names", function()
    agather.run(function()
      local connect = agather.net.connect
      support.raises("bad argument #2 to 'connect' (port must be from 0 to 65535, got 99999)", connect, "h", 99999)
      support.raises("bad argument #2 to 'connect' (port expected, got string)", connect, "h", "80")
      support.raises("bad argument #1 to 'connect' (host expected, got nil)", connect)
      support.raises("host name must have 1 to 253 bytes", connect, "", 80)
      support.raises("host name must have 1 to 253 bytes", connect, ("x"):rep(254), 80)
      support.raises("host name contains a zero byte", connect, "example.com\0.evil", 80)
      support.raises("unknown option 'timeot'", connect, "h", 80, { timeot = 1 })
      support.raises("option 'timeout' must be a number of seconds, got x", connect, "h", 80, { timeout = "x" })
      support.raises("option 'nodelay' must be a boolean, got number", connect, "h", 80, { nodelay = 1 })
      support.raises("option 'keepalive' must be a positive integer, got 0", connect, "h", 80, { keepalive = 0 })
      support.raises("option 'local_address' must be a numeric address, got here", connect, "h", 80,
        { local_address = "here" })
      for _, bad in ipairs { 65536, -1, 1.5, "x" } do
        support.raises("bad argument #3 to 'connect' (option 'local_address' needs a port from 0 to 65535, got " .. bad,
          connect, "h", 80, { local_address = { "127.0.0.1", bad } })
      end
      support.raises("option 'family' must be", connect, "h", 80, { family = "ip" })
      support.raises("option 'tls' must be a boolean or a table", connect, "h", 80, { tls = 1 })
      support.raises("table of options expected", connect, "h", 80, 5)
    end)
    support.raises("no running event loop", agather.net.connect, "127.0.0.1", 80)
  end)

  it("tells numeric addresses from names", function()
    assert.equal("ipv4", uv.family("127.0.0.1"))
    assert.equal("ipv6", uv.family("::1"))
    assert.equal("ipv6", uv.family("fe80::1%lo"))
    assert.is_nil(uv.family("localhost"))
    assert.is_nil(uv.family("127.1"))
    assert.is_nil(uv.family("0x7f.0.0.1"))
  end)
end)
