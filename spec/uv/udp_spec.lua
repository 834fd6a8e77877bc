local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"

local here = { "127.0.0.1", 0 }

-- Two sockets, the second connected to the first; f(one, port of one, other).
local function with_sockets(f, options)
  return agather.run(function()
    local given = { local_address = here }
    for name, value in pairs(options or {}) do given[name] = value end
    local one <close> = agather.net.udp(given)
    local _, port = one:local_address()
    local other <close> = agather.net.udp { remote_address = { "127.0.0.1", port } }
    f(one, port, other)
  end)
end

describe("a UDP socket", function()
  it("sends and receives datagrams as they are, with their sender", function()
    with_sockets(function(one, port, other)
      local loose <close> = agather.net.udp()
      loose:send("to you", "127.0.0.1", port)
      other:send("")
      other:send(("x"):rep(60000))
      local data, host, from = one:recv()
      assert.same({ "to you", "127.0.0.1" }, { data, host })
      assert.equal(select(2, loose:local_address()), from)
      data, host, from = one:recv()
      assert.same({ "", { other:local_address() } }, { data, { host, from } })
      assert.equal(60000, #one:recv())
      one:send("back", host, from)
      assert.same({ "back", "127.0.0.1", port }, { other:recv() })
      assert.same({ "127.0.0.1", port }, { other:peer_address() })
    end)
  end)

  it("waits for a datagram and is cancelled and timed out while it does", function()
    with_sockets(function(one, _, other)
      local receiving = agather.spawn(one.recv, one)
      agather.sleep(0.002)
      collectgarbage()
      support.raises("another task receives", one.recv, one)
      receiving:cancel()
      support.raises("CancelledError", receiving.await, receiving)
      support.raises("TimeoutError", agather.wait_for, function() one:recv() end, 0.005)
      receiving = agather.spawn(one.recv, one)
      agather.sleep(0)
      other:send("here")
      assert.equal("here", (receiving:await()))
    end)
  end)

  it("keeps a datagram for a receiver that is cancelled as it comes", function()
    with_sockets(function(one, _, other)
      local receiving = agather.spawn(one.recv, one)
      agather.sleep(0)
      other:send("kept")
      receiving:cancel()
      support.raises("CancelledError", receiving.await, receiving)
      assert.equal("kept", (one:recv()))
    end)
  end)

  it("hears that nobody is there, when connected", function()
    agather.run(function()
      local gone = agather.net.udp { local_address = here }
      local port = select(2, gone:local_address())
      gone:close()
      local socket <close> = agather.net.udp { remote_address = { "localhost", port }, family = "ipv4" }
      socket:send("anybody?")
      net.fails("ECONNREFUSED", socket.recv, socket)
    end)
  end)

  it("bounds what waits to be received and counts the rest", function()
    with_sockets(function(one, _, other)
      assert.equal(0, one:dropped())
      local sent = 300
      for _ = 1, sent do other:send(("x"):rep(1000)) end
      local dropped = one:dropped()
      assert.is_true(dropped > 0, dropped)
      for _ = 1, sent - dropped do one:recv() end
      support.raises("TimeoutError", agather.wait_for, function() one:recv() end, 0.005)
    end, { receive_buffer = 20000 })
  end)

  it("refuses what is too big for a datagram", function()
    with_sockets(function(_, port, other)
      assert.equal("send", net.fails("EMSGSIZE", other.send, other, ("x"):rep(70000)).operation)
      local loose <close> = agather.net.udp()
      local err = net.fails("EMSGSIZE", loose.send, loose, ("x"):rep(70000), "127.0.0.1", port)
      assert.equal("127.0.0.1:" .. port, err.address)
    end)
  end)

  it("gives who receives an error when it is closed, and refuses use after that", function()
    with_sockets(function(one)
      local receiving = agather.spawn(one.recv, one)
      agather.sleep(0)
      one:close()
      one:close()
      net.fails("EBADF", receiving.await, receiving)
      for _, name in ipairs { "recv", "local_address", "peer_address", "dropped" } do
        net.fails("EBADF", one[name], one)
      end
      net.fails("EBADF", one.send, one, "x", "127.0.0.1", 1)
    end)
  end)

  it("is closed with its loop and as garbage", function()
    local socket, receiving
    local before
    for round = 1, 2 do
      agather.run(function()
        socket = agather.net.udp { local_address = here }
        receiving = agather.spawn(socket.recv, socket)
        agather.net.udp { local_address = here }
        agather.sleep(0)
        collectgarbage()
      end)
      assert.is_true(receiving:cancelled())
      net.fails("EBADF", socket.recv, socket)
      if round == 1 then before = net.descriptors() end
    end
    assert.equal(before, net.descriptors())
  end)

  it("shares a port where both ask for it, and says when it is taken", function()
    agather.run(function()
      local one <close> = agather.net.udp { local_address = here, reuseport = true }
      local _, port = one:local_address()
      local two <close> = agather.net.udp { local_address = { "127.0.0.1", port }, reuseport = true }
      assert.equal(port, select(2, two:local_address()))
      local err = net.fails("EADDRINUSE", agather.net.udp, { local_address = { "127.0.0.1", port } })
      assert.equal("127.0.0.1:" .. port, err.address)
    end)
  end)

  it("sends from many tasks at once", function()
    with_sockets(function(one, _, other)
      local tasks, sum = {}, 0
      for i = 1, 50 do tasks[i] = agather.spawn(other.send, other, tostring(i)) end
      for _ = 1, 50 do sum = sum + tonumber((one:recv())) end
      assert.equal(1275, sum)
      for i = 1, 50 do tasks[i]:await() end
    end)
  end)

  it("refuses bad arguments with names", function()
    with_sockets(function(one, port)
      local udp = agather.net.udp
      support.raises("host and port expected", function() one:send("x") end)
      support.raises("numeric address expected, got 'localhost'", one.send, one, "x", "localhost", port)
      support.raises("another family", one.send, one, "x", "::1", port)
      support.raises("port must be from 0", one.send, one, "x", "127.0.0.1", 70000)
      support.raises("string expected", one.send, one, {}, "127.0.0.1", 7)
      support.raises("unknown option 'adress'", udp, { adress = 1 })
      support.raises("option 'local_address' must be { host, port }, got string", udp, { local_address = "x" })
      support.raises("port from 0 to 65535, got nil", udp, { local_address = { "127.0.0.1" } })
      support.raises("option 'broadcast' must be a boolean", udp, { broadcast = 1 })
      support.raises("option 'receive_buffer' must be a positive integer", udp, { receive_buffer = 0 })
      support.raises("is not of the family ipv6", udp, { family = "ipv6", local_address = here })
      net.fails("ENOTCONN", one.peer_address, one)
    end)
  end)
end)
