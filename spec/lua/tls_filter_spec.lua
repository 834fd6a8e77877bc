-- lua/agather/tls_filter.lua: what goes over the wire, waits, is cancelled, is cut, is closed.
local agather = require "agather"
local certificates = require("spec.support.certificates").make()
local eventually = require("spec.support.net").eventually
local support = require "spec.support"
local tls_support = require "spec.support.tls"

local tls, net, raises, turns = agather.tls, agather.net, support.raises, support.turns

local function pair(...) return tls_support.pair(certificates, ...) end

local function task(f) return function() agather.run(f) end end

local function client_options(more) return tls_support.client_options(certificates, more) end
local function server_options(more) return tls_support.server_options(certificates, more) end

-- A plain stream below that gives what is written in pieces of the sizes that cut(sent) gives: [sent] bytes went before.
local function in_pieces(over, cut)
  local sent = 0
  return {
    read = function(_, n) return over:read(n) end,
    close = function() over:close() end,
    write = function(_, bytes)
      local at = 1
      while at <= #bytes do
        local size = math.min(cut(sent), #bytes - at + 1)
        over:write(bytes:sub(at, at + size - 1))
        turns(3) -- the peer sees this piece alone
        at, sent = at + size, sent + size
      end
    end,
  }
end

-- A stream below whose writes wait until it is opened, and that counts.
local function gate(over)
  local gated = { open = agather.Event(), written = 0, closed = 0 }
  function gated.read(_, n) return over:read(n) end
  function gated.write(_, bytes)
    if gated.shut then gated.open:wait() end
    gated.written = gated.written + #bytes
    over:write(bytes)
  end
  function gated.close()
    gated.closed = gated.closed + 1
    over:close()
  end
  return gated
end

local function is_tls_error(err, code)
  assert.is_true(agather.is_error(err, agather.TLSError), tostring(err))
  assert.equal(code, err.code)
end

describe("a TLS stream", function()
  teardown(function() certificates.remove() end)

  it("is the same however its bytes are cut", task(function()
    for _, version in ipairs { "TLSv1.2", "TLSv1.3" } do
      local over_client, over_server = net.pair()
      local one = function() return 1 end
      local client, server = pair({ max_version = version }, nil, in_pieces(over_client, one),
        in_pieces(over_server, one))
      agather.gather(function()
        client:write("every byte alone")
        client:shutdown()
        assert.equal("and back", client:read("a"))
      end, function()
        assert.equal("every byte alone", server:read("a"))
        server:write("and back")
        server:shutdown()
      end):await()
    end
  end))

  it("is the same where it is cut in two, at every place", task(function()
    local serving = tls.Context { cert = certificates.server_pem, key = certificates.server_key }
    local ours = tls.Context { ca = certificates.ca_pem }
    local function once(place)
      local over_client, over_server = net.pair()
      local function cut(sent) return sent < place and place - sent or 1 << 30 end
      local total = 0
      local counting = in_pieces(over_server, cut)
      local write = counting.write
      function counting.write(self, bytes)
        total = total + #bytes
        write(self, bytes)
      end
      local client, server = pair({ context = ours }, { context = serving }, over_client, counting)
      server:write("some words")
      server:close()
      assert.equal("some words", client:read("a"))
      return total
    end
    local total = once(0)
    assert.is_true(total > 500)
    for place = 1, total, 17 do once(place) end
    for place = total - 40, total do once(place) end
  end))

  it("carries much both ways at once", task(function()
    local client, server = pair()
    local blob = ("0123456789abcdef"):rep(1 << 17) -- 2 MiB
    local results = agather.gather(
      function() return client:read("a") end,
      function() return server:read("a") end,
      function() client:write(blob):shutdown() end,
      function() for at = 1, #blob, 50001 do server:write(blob:sub(at, at + 50000)) end server:shutdown() end
    ):await()
    assert.is_true(results[1] == blob)
    assert.is_true(results[2] == blob)
  end))

  it("makes a writer wait for a reader, and holds no more than a bounded number of bytes", task(function()
    local over_client, over_server = net.pair()
    local counting = gate(over_client)
    local client, server = pair(nil, nil, counting, over_server)
    local writer = agather.spawn(client.write, client, ("x"):rep(10000000))
    turns(50)
    assert.is_false(writer:done())
    assert.is_true(counting.written < 300000, tostring(counting.written))
    local read = 0
    while read < 10000000 do read = read + #server:read(1 << 20) end
    writer:await()
  end))

  it("gives other tasks their turns while it reads what is there", task(function()
    local client, server = pair()
    local blob = ("x"):rep(1 << 20)
    local count, done = 0, false
    agather.spawn(function()
      while not done do
        count = count + 1
        agather.sleep(0)
      end
    end)
    -- All of it lies ready: nothing below makes the reader wait.
    local filter = client.transport
    local ready = {}
    client:write("")
    local plain = gate(filter.inner)
    plain.write = function(_, bytes) ready[#ready + 1] = bytes end
    filter.inner = plain
    client:write(blob)
    server.transport.inner = { read = function() return table.remove(ready, 1) end, close = function() end }
    count = 0
    assert.is_true(server:read_exactly(#blob) == blob)
    done = true
    assert.is_true(count >= 3, tostring(count))
  end))

  it("sends in their order what several tasks write", task(function()
    local client, server = pair()
    local group = {}
    for i = 1, 20 do group[i] = function() client:write(("%02d"):format(i):rep(20000)) end end
    local all = agather.gather_list(group)
    for i = 1, 20 do assert.is_true(server:read_exactly(40000) == ("%02d"):format(i):rep(20000)) end
    all:await()
  end))

  describe("when it is cancelled", function()
    it("at any wait of the handshake closes the stream below, and frees what it waits for", task(function()
      for side = 1, 2 do
        local waits = 1
        repeat
          local over_client, over_server = net.pair()
          local client = agather.spawn(tls.client, over_client, client_options())
          local server = agather.spawn(tls.server, over_server, server_options())
          local victim = side == 1 and client or server
          local over = side == 1 and over_client or over_server
          turns(waits)
          local ended = victim:done()
          victim:cancel()
          pcall(victim.await, victim)
          if not ended then
            assert.is_true(victim:cancelled())
            raises("the stream is closed", over.write, over, "x")
          end
          local other = side == 1 and server or client
          if not ended then
            local _, err = pcall(other.await, other)
            if agather.is_error(err) then assert.is_true(agather.is_error(err, agather.OSError), tostring(err)) end
          end
          waits = waits + 1
        until ended
        assert.is_true(waits > 2)
      end
    end))

    it("while it reads loses nothing", task(function()
      local client, server = pair()
      local reader = agather.spawn(client.read_exactly, client, 10)
      turns(2)
      server:write("12345")
      turns(5)
      reader:cancel()
      raises("CancelledError", reader.await, reader)
      server:write("67890")
      assert.equal("1234567890", client:read_exactly(10))
    end))

    it("while it writes sends all the same, and no half of a record", task(function()
      local client, server = pair()
      local blob = ("x"):rep(1000000)
      local writer = agather.spawn(client.write, client, blob)
      turns(10)
      assert.is_false(writer:done())
      writer:cancel()
      raises("CancelledError", writer.await, writer)
      local after = agather.spawn(client.write, client, "after")
      assert.is_true(server:read_exactly(#blob) == blob)
      assert.equal("after", server:read_exactly(5))
      after:await()
    end))

    it("by a timeout within the handshake raises TimeoutError and closes", task(function()
      local over_client = net.pair()
      local err = raises("", agather.wait_for, function() tls.client(over_client, client_options()) end, 0.01)
      assert.is_true(agather.is_error(err, agather.TimeoutError))
      raises("the stream is closed", over_client.read, over_client)
    end))
  end)

  it("gives up a handshake that takes too long, and says so", task(function()
    local over_client, over_server = net.pair()
    local err = raises("handshake a.example: not done after 0.01 seconds", tls.client, over_client,
      client_options { handshake_timeout = 0.01 })
    assert.is_true(agather.is_error(err, agather.TimeoutError))
    over_server:abort()
    over_client, over_server = net.pair()
    over_client:write("\x16\x03\x01\x02\x00\x01") -- a beginning of a ClientHello
    err = raises("handshake: not done after 0.01 seconds", tls.server, over_server,
      server_options { handshake_timeout = 0.01 })
    assert.is_true(agather.is_error(err, agather.TimeoutError))
  end))

  it("limits handshakes to a minute unless told", function()
    support.virtual(function()
      local over_client = net.pair()
      local loop = agather.get_running_loop()
      local before = loop:time()
      raises("handshake a.example: not done after 60 seconds", tls.client, over_client, client_options())
      assert.is_true(math.abs(loop:time() - before - 60) < 0.1)
      over_client = net.pair()
      local waiting = agather.spawn(tls.client, over_client, client_options { handshake_timeout = false })
      agather.sleep(1000)
      assert.is_false(waiting:done())
      waiting:cancel()
    end)
  end)

  describe("whose peer", function()
    it("closes ends", task(function()
      local client, server = pair()
      server:write("last\nwords")
      server:close()
      assert.equal("last", client:read())
      assert.equal("words", client:read("a"))
      assert.equal("", client:read("a"))
      assert.is_nil(client:read())
      assert.is_nil(client:read(1))
    end))

    it("is cut off raises, after what came", task(function()
      for _, format in ipairs { "a", "l", 1 } do
        local client, server = pair()
        server:write("a line\n")
        server.transport.inner:close()
        assert.equal("a line", client:read())
        for _ = 1, 2 do
          local err = raises("the stream was cut: it ended without the peer's close_notify (UNEXPECTED_EOF)",
            client.read, client, format)
          is_tls_error(err, "UNEXPECTED_EOF")
          assert.equal("read", err.operation)
          assert.equal("a.example", err.address)
        end
      end
    end))

    it("is cut off raises that and not IncompleteReadError", task(function()
      local client, server = pair()
      server:write("12345")
      server.transport.inner:close()
      is_tls_error(raises("cut", client.read_exactly, client, 10), "UNEXPECTED_EOF")
      is_tls_error(raises("cut", client.read_until, client, ";"), "UNEXPECTED_EOF")
      assert.equal("12345", client:read(10))
    end))

    it("is cut off in the middle of a record raises", task(function()
      local over_client, over_server = net.pair()
      local client = pair(nil, nil, over_client, in_pieces(over_server, function() return 1 << 30 end))
      over_server:write("\x17\x03\x03\x00\x40half")
      over_server:close()
      is_tls_error(raises("cut", client.read, client, "a"), "UNEXPECTED_EOF")
    end))

    it("ends in the handshake is told from one that refuses", task(function()
      local over_client, over_server = net.pair()
      local server = agather.spawn(tls.server, over_server, server_options())
      over_client:write("\x16\x03\x01")
      over_client:shutdown()
      local err = raises("handshake: the peer ended the connection during the handshake (UNEXPECTED_EOF)", server.await,
        server)
      is_tls_error(err, "UNEXPECTED_EOF")
    end))

    it("refuses and goes is heard, though writing fails first", task(function()
      local over_client, over_server = net.pair()
      agather.spawn(pcall, tls.server, over_server, server_options {
        ca = certificates.ca_pem, verify_client = true, max_version = "TLSv1.2",
      })
      local writes = 0
      local failing = {
        read = function(_, n) return over_client:read(n) end,
        close = function() over_client:close() end,
        write = function(_, bytes)
          writes = writes + 1
          over_client:write(bytes)
          if writes == 2 then error(agather.OSError("write: broken pipe (EPIPE)", { code = "EPIPE" })) end
        end,
      }
      is_tls_error(raises("the peer refused with the alert: handshake failure", tls.client, failing, client_options()),
        "SSLV3_ALERT_HANDSHAKE_FAILURE")
      assert.equal(2, writes)
    end))

    it("goes without a word leaves the error of writing", task(function()
      local written = false
      local gone = {
        read = function() return nil end,
        close = function() end,
        write = function()
          written = true
          error(agather.OSError("write: broken pipe (EPIPE)", { code = "EPIPE" }))
        end,
      }
      assert.equal("EPIPE", raises("broken pipe", tls.client, gone, client_options()).code)
      assert.is_true(written)
    end))

    it("is there, and cannot be written to, is not waited for", task(function()
      local over = net.pair()
      local deaf = {
        read = function(_, n) return over:read(n) end,
        close = function() over:close() end,
        write = function() error(agather.OSError("write: i/o error (EIO)", { code = "EIO" })) end,
      }
      local _ <close> = agather.timeout(5)
      assert.equal("EIO", raises("i/o error", tls.client, deaf, client_options { handshake_timeout = false }).code)
    end))

    it("sends garbage gets an alert and no more", task(function()
      for _, garbage in ipairs { "hello, is this TLS?", ("\0"):rep(100), "\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff",
        "\x15\x03\x01\x00\x02\x02\x28" } do
        local over_client, over_server = net.pair()
        local server = agather.spawn(tls.server, over_server, server_options())
        over_client:write(garbage)
        local err = raises("handshake", server.await, server)
        assert.is_true(agather.is_error(err, agather.TLSError))
        raises("", over_server.read, over_server)
      end
    end))

    it("changes a byte on the way is detected by both, and for ever", task(function()
      local over_client, over_server = net.pair()
      local spoil = false
      local spoiling = {
        read = function(_, n) return over_client:read(n) end,
        close = function() over_client:close() end,
        write = function(_, bytes)
          if spoil then bytes = bytes:sub(1, -2) .. string.char(bytes:byte(-1) ~ 1) end
          over_client:write(bytes)
        end,
      }
      local client, server = pair(nil, nil, spoiling, over_server)
      spoil = true
      client:write("hello")
      for _ = 1, 2 do
        is_tls_error(raises("altered on its way", server.read, server), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
      end
      is_tls_error(raises("altered on its way", server.write, server, "x"), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
      is_tls_error(raises("bad record mac", client.read, client), "SSLV3_ALERT_BAD_RECORD_MAC")
    end))

    it("sends more after its end is not heard", task(function()
      local client, server = pair()
      server:shutdown()
      server.transport.inner:write("more")
      assert.is_nil(client:read())
      assert.is_nil(client:read())
    end))
  end)

  describe("that is closed", function()
    it("still sends what was written, then says that it ends", task(function()
      local over_client, over_server = net.pair()
      local gated = gate(over_client)
      local client, server = pair(nil, nil, gated, over_server)
      gated.shut = true
      local writer = agather.spawn(client.write, client, "kept")
      turns(3)
      client:close()
      assert.equal(0, gated.closed)
      gated.shut = false
      gated.open:set()
      assert.equal("kept", server:read("a"))
      server:close()
      turns(3)
      assert.equal(1, gated.closed)
      pcall(writer.await, writer)
      assert.is_true(writer:done())
    end))

    it("waits for the peer's end where it has only written, for tickets that lie unread would reset a socket",
      task(function()
        local function closed_at_once(prepare, options)
          local over_client, over_server = net.pair()
          local gated = gate(over_client)
          local client, server = pair(options, nil, gated, over_server)
          prepare(client, server)
          client:close()
          turns(3)
          local at_once = gated.closed == 1
          server:close()
          turns(3)
          assert.equal(1, gated.closed)
          assert.is_nil(client.transport.engine)
          return at_once
        end
        local function write(client) client:write("x") end
        assert.is_false(closed_at_once(write))
        assert.is_true(closed_at_once(write, { max_version = "TLSv1.2" }))
        assert.is_true(closed_at_once(function() end))
        assert.is_true(closed_at_once(function(client, server)
          client:write("x")
          server:write("y")
          client:read(1)
        end))
        assert.is_true(closed_at_once(function(client)
          client:write("x")
          agather.spawn(pcall, client.read, client)
          turns(3)
        end))
      end))

    for _, ending in ipairs { "goes on", "ends at once" } do
      it("and has only written loses nothing, though the peer is slow and the loop " .. ending, function()
        local blob = ("0123456789abcdef"):rep(200000)
        local script = os.tmpname()
        local file = assert(io.open(script, "w"))
        file:write(([[
          local agather = require "agather"
          agather.run(function()
            local server = agather.net.start_server("127.0.0.1", 0, function(stream)
              agather.sleep(0.05)
              local got = stream:read("a")
              print(#got)
              os.exit(true)
            end, { tls = { cert = "%s/server.pem", key = "%s/server.key" } })
            print((select(2, server:local_address())))
            io.stdout:flush()
            server:serve_forever()
          end)]]):format(certificates.folder, certificates.folder))
        file:close()
        local process = assert(io.popen("timeout 20 lua5.4 " .. script))
        local port = tonumber(process:read("l"))
        agather.run(function()
          local client = net.connect("127.0.0.1", port, { tls = client_options() })
          client:write(blob)
          client:close()
          if ending == "goes on" then eventually(function() return not client.transport.engine end, "it is closed") end
        end)
        assert.equal(#blob, tonumber(process:read("l")))
        process:close()
        os.remove(script)
      end)
    end

    it("lets a writer go when all is sent, though it waits for the peer's end", task(function()
      local client = pair()
      local writer = agather.spawn(client.write, client, ("x"):rep(70000)) -- too much for the stream below
      turns(5)
      assert.is_false(writer:done())
      client:close()
      client.transport.inner.transport.outgoing:read(1 << 20) -- the peer takes it, and says nothing
      writer:await()
      assert.is_not_nil(client.transport.engine)
    end))

    it("is closed for good after a while when the peer takes nothing", function()
      support.virtual(function()
        local over_client, over_server = net.pair()
        local gated = gate(over_client)
        local client = pair(nil, nil, gated, over_server)
        gated.shut = true
        local writer = agather.spawn(pcall, client.write, client, "never taken")
        turns(3)
        client:close()
        agather.sleep(29)
        assert.equal(0, gated.closed)
        agather.sleep(2)
        assert.equal(1, gated.closed)
        assert.is_nil(client.transport.engine)
        writer:cancel()
      end)
    end)

    it("refuses use, wakes its reader, and is closed twice without harm", task(function()
      local client = pair()
      local reader = agather.spawn(client.read, client)
      turns(3)
      client:close()
      client:close()
      raises("the stream is closed", reader.await, reader)
      for _, name in ipairs { "read", "flush", "shutdown", "version", "cipher", "alpn", "peer_certificate", "resumed",
        "server_name" } do
        local err = raises("the stream is closed", client[name], client)
        assert.equal("EBADF", err.code)
      end
      raises("the stream is closed", client.write, client, "x")
      client:abort()
    end))

    it("by the end of its scope is closed cleanly", task(function()
      local client, server = pair()
      do
        local _ <close> = server
      end
      assert.is_nil(client:read())
    end))

    it("after its loop has ended is closed without a word", function()
      local client
      agather.run(function() client = pair() end)
      client:close()
      client:close()
      assert.is_nil(client.transport.engine)
    end)
  end)

  it("is aborted at once", task(function()
    local client, server = pair()
    local writer = agather.spawn(client.write, client, ("x"):rep(1000000))
    turns(5)
    client:abort()
    client:abort()
    raises("", writer.await, writer)
    local ok, err = pcall(server.read, server, "a")
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.OSError))
  end))

  it("is shut one way only, twice without harm, and not written any more", task(function()
    local client, server = pair()
    client:shutdown()
    client:shutdown()
    assert.is_nil(server:read())
    server:write("the other way")
    server:shutdown()
    assert.equal("the other way", client:read("a"))
    local err = raises("shut down for writing", client.write, client, "x")
    assert.equal("EPIPE", err.code)
  end))

  it("flushes to the stream below", task(function()
    local over_client, over_server = net.pair()
    local client, server = pair(nil, nil, over_client, over_server)
    client:write("x")
    local flushing = agather.spawn(client.flush, client)
    turns(3)
    assert.is_false(flushing:done())
    assert.equal("x", server:read(1))
    flushing:await()
  end))

  it("raises what the stream below raised, at the next write too", task(function()
    local over_client, over_server = net.pair()
    local breaking = gate(over_client)
    local client = pair(nil, nil, breaking, over_server)
    local failure = agather.OSError("write: broken pipe (EPIPE)", { code = "EPIPE" })
    function breaking.write() error(failure, 0) end
    for _ = 1, 2 do assert.equal(failure, raises("broken pipe", client.write, client, "x")) end
    client:close()
    assert.equal(1, breaking.closed)
  end))

  it("fails and closes where no task can be made to send", task(function()
    local client, server = pair()
    local create_task = agather.create_task
    agather.create_task = function() error("too many tasks", 0) end
    local ok, err = pcall(client.write, client, "x")
    local again = select(2, pcall(client.flush, client))
    client:close()
    agather.create_task = create_task
    assert.is_false(ok)
    assert.equal("too many tasks", err)
    assert.equal("too many tasks", again)
    is_tls_error(raises("cut", server.read, server), "UNEXPECTED_EOF")
  end))

  it("is freed when nobody holds it", task(function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local client, server = pair()
      weak[client], weak[client.transport], weak[client.transport.engine], weak[server] = true, true, true, true
      client:write("unread")
    end
    turns(3)
    for _ = 1, 3 do collectgarbage() end
    assert.is_nil(next(weak))
  end))

  it("is left by its loop at any wait, and freed", function()
    local weak = setmetatable({}, { __mode = "k" })
    local function leave(f)
      agather.run(function()
        agather.spawn(f)
        turns(20)
      end)
    end
    leave(function() -- in the handshake
      local over = net.pair()
      weak[over] = true
      tls.client(over, client_options())
    end)
    leave(function() -- reading
      local client, server = pair()
      weak[client], weak[server] = true, true
      client:read()
    end)
    leave(function() -- writing
      local client, server = pair()
      weak[client], weak[server] = true, true
      client:write(("x"):rep(1000000))
    end)
    leave(function() -- closing
      local client, server = pair()
      weak[client], weak[server] = true, true
      agather.spawn(pcall, client.write, client, ("x"):rep(1000000))
      turns(5)
      client:close()
    end)
    for _ = 1, 3 do collectgarbage() end
    assert.is_nil(next(weak))
  end)

  it("cannot be made of a stream that is closed", task(function()
    local over = net.pair()
    over:close()
    raises("the stream is closed", tls.client, over, client_options())
    raises("the stream is closed", tls.server, over, server_options())
  end))

  it("leaves no task behind", task(function()
    local before = #agather.all_tasks()
    local client, server = pair()
    client:write("hello")
    assert.equal("hello", server:read(5))
    client:close()
    server:close()
    turns(5)
    assert.equal(before, #agather.all_tasks())
  end))
end)
