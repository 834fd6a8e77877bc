-- lua/agather/tls_listener.lua: net.listen with the option tls.
local agather = require "agather"
local certificates = require("spec.support.certificates").make()
local net_support = require "spec.support.net"
local support = require "spec.support"

local net, raises, eventually = agather.net, support.raises, net_support.eventually

local function listen(on_error)
  local listener = net.listen("127.0.0.1", 0, {
    tls = { cert = certificates.server_pem, key = certificates.server_key },
    on_error = on_error,
  })
  return listener, select(2, listener:local_address())
end

local function connect(port)
  return net.connect("127.0.0.1", port, { tls = { ca = certificates.ca_pem } })
end

-- A connection whose handshake has begun on the listener's side only, and that nobody waits for.
local function begin(listener, port)
  local first = agather.spawn(listener.accept, listener)
  local plain = net.connect("127.0.0.1", port)
  eventually(function() return next(listener.shaking) end, "a handshake runs")
  first:cancel()
  return plain
end

local function task(f) return function() agather.run(f) end end

local function is_closed(f, ...)
  local err = raises("the listener is closed", f, ...)
  assert.equal("EBADF", err.code)
end

describe("a TLS listener", function()
  teardown(function() certificates.remove() end)

  it("accepts streams that have shaken hands", task(function()
    local listener <close>, port = listen()
    for round = 1, 3 do
      local accepted = agather.spawn(listener.accept, listener)
      local client <close> = connect(port)
      local stream <close> = accepted:await()
      assert.equal("TLSv1.3", stream:version())
      stream:write(round, "\n")
      assert.equal(tostring(round), client:read())
    end
    assert.truthy(tostring(listener):find("^agather.tls.Listener %("))
  end))

  it("is not held up by silent peers, and tells of those that fail", task(function()
    local errors = {}
    local listener <close>, port = listen(function(err, peer) errors[#errors + 1] = { err, peer } end)
    local _ <close> = net.connect("127.0.0.1", port)
    local garbage <close> = net.connect("127.0.0.1", port)
    garbage:write("GET / HTTP/1.0\r\n\r\n")
    local accepted = agather.spawn(listener.accept, listener)
    local client <close> = connect(port)
    local stream <close> = accepted:await()
    stream:write("x")
    assert.equal("x", client:read(1))
    eventually(function() return #errors == 1 end, "one handshake has failed")
    assert.equal("HTTP_REQUEST", errors[1][1].code)
    assert.truthy(errors[1][2]:find("^127%.0%.0%.1:%d+$"))
  end))

  it("tells the exception handler of failures unless told otherwise", task(function()
    local reports = {}
    agather.get_running_loop():set_exception_handler(function(context) reports[#reports + 1] = context end)
    local listener <close>, port = listen()
    local accepting = agather.spawn(listener.accept, listener)
    local garbage <close> = net.connect("127.0.0.1", port)
    garbage:write("GET / HTTP/1.0\r\n\r\n")
    eventually(function() return #reports == 1 end, "there is a report")
    assert.truthy(reports[1].message:find("^the TLS handshake with 127%.0%.0%.1:%d+ failed$"))
    assert.equal("HTTP_REQUEST", reports[1].exception.code)
    accepting:cancel()
  end))

  it("serves many who wait, and loses no connection when one is cancelled", task(function()
    local listener <close>, port = listen()
    for turns = 1, 3 do
      local cancelled = agather.spawn(listener.accept, listener)
      support.turns(turns)
      cancelled:cancel()
      raises("CancelledError", cancelled.await, cancelled)
    end
    local waiting = {}
    for i = 1, 5 do waiting[i] = agather.spawn(listener.accept, listener) end
    local sixth = agather.spawn(listener.accept, listener)
    support.turns(2)
    sixth:cancel()
    raises("CancelledError", sixth.await, sixth)
    local clients = agather.map(function() return connect(port) end, { 1, 2, 3, 4, 5 }):await()
    assert.equal(5, clients.n)
    for i = 1, 5 do
      local stream <close> = waiting[i]:await()
      assert.equal("TLSv1.3", stream:version())
    end
  end))

  it("keeps a stream that was ready when who waited was cancelled", task(function()
    local listener <close>, port = listen()
    local client <close> = agather.tls.client(begin(listener, port), { server_name = "a.example", ca = certificates.ca_pem })
    eventually(function() return not next(listener.shaking) end, "the handshake is done")
    local stream <close> = listener:accept()
    stream:write("kept")
    assert.equal("kept", client:read(4))
  end))

  it("raises what accepting raises, and goes on", task(function()
    local listener <close>, port = listen()
    local inner = listener.inner
    local failure = agather.OSError("accept: too many open files (EMFILE)", { code = "EMFILE" })
    listener.inner = { accept = function() error(failure, 0) end }
    assert.equal(failure, raises("EMFILE", listener.accept, listener))
    listener.inner = inner
    local accepted = agather.spawn(listener.accept, listener)
    local client <close> = connect(port)
    local stream <close> = accepted:await()
    stream:close()
    assert.is_nil(client:read())
  end))

  it("raises where no task can be made, and goes on", task(function()
    local listener <close>, port = listen()
    local spawn, allowed = agather.spawn, 0
    local function accept_with(tasks)
      allowed = tasks
      agather.spawn = function(...)
        allowed = allowed - 1
        if allowed < 0 then error("too many tasks", 0) end
        return spawn(...)
      end
      local ok, err = pcall(listener.accept, listener)
      agather.spawn = spawn
      assert.is_false(ok)
      assert.equal("too many tasks", err)
    end
    accept_with(0) -- the one that accepts
    local refused <close> = net.connect("127.0.0.1", port)
    accept_with(1) -- the one that shakes hands
    pcall(refused.read, refused, "a") -- returns, for the connection was closed
    local accepted = agather.spawn(listener.accept, listener)
    local client <close> = connect(port)
    accepted:await():close()
    assert.is_nil(client:read())
  end))

  it("that is closed wakes who waits, ends handshakes, and is closed twice without harm", task(function()
    local listener, port = listen()
    local waiting = { agather.spawn(listener.accept, listener), agather.spawn(listener.accept, listener) }
    local silent <close> = net.connect("127.0.0.1", port)
    eventually(function() return next(listener.shaking) end, "a handshake runs")
    listener:close()
    listener:close()
    for _, accepted in ipairs(waiting) do is_closed(accepted.await, accepted) end
    is_closed(listener.accept, listener)
    pcall(silent.read, silent, "a") -- returns, for the connection was closed
    assert.equal("ECONNREFUSED", raises("connect", net.connect, "127.0.0.1", port).code)
    eventually(function() return not next(listener.shaking) end, "no handshake runs")
  end))

  it("closes streams that nobody accepted", task(function()
    local listener, port = listen()
    local client <close> = agather.tls.client(begin(listener, port), { server_name = "a.example", ca = certificates.ca_pem })
    eventually(function() return not listener.ready:empty() end, "a stream is ready")
    listener:close()
    assert.is_nil(client:read())
  end))

  it("listens on Unix sockets too, and checks options first", task(function()
    local path = certificates.folder .. "/socket"
    local options = { cert = certificates.server_pem, key = certificates.server_key }
    local listener <close> = net.listen_unix(path, { tls = options })
    local accepted = agather.spawn(listener.accept, listener)
    local client <close> = net.connect_unix(path, { tls = { ca = certificates.ca_pem, server_name = "a.example" } })
    accepted:await():close()
    assert.is_nil(client:read())
    raises("bad argument #3 to 'listen' (option 'tls.cert' is missing)", net.listen, "127.0.0.1", 0, { tls = true })
    raises("bad argument #3 to 'listen' (option 'on_error' needs 'tls')", net.listen, "127.0.0.1", 0,
      { on_error = print })
    raises("bad argument #3 to 'listen' (option 'on_error' must be a function, got number)", net.listen, "127.0.0.1", 0,
      { on_error = 1, tls = options })
  end))
end)
