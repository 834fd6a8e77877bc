-- agather.tls and agather.net's option tls against other implementations' peers: OpenSSL's commands, and Python's ssl.
local agather = require "agather"
local certificates = require("spec.support.certificates").make()
local support = require "spec.support"

local net, raises = agather.net, support.raises
local folder = certificates.folder

-- A process whose output is read at the end, or a line at once.
local function command(text)
  return assert(io.popen(("cd %s && exec env -u LD_PRELOAD timeout 20 %s 2>&1"):format(folder, text)))
end

-- openssl s_server for one connection; returns the process and its port.
local function s_server(options)
  local process = command("openssl s_server -accept 127.0.0.1:0 -cert server.pem -key server.key -naccept 1 "
    .. options .. " </dev/null")
  for line in process:lines() do
    local port = line:match("^ACCEPT .*:(%d+)")
    if port then return process, tonumber(port) end
  end
  error("openssl s_server does not listen")
end

local python = (os.getenv("PWD") or ".") .. "/spec/support/tls_peer.py"

local function python_server(mode)
  local process = command(("python3 %s server %s %s"):format(python, folder, mode))
  return process, tonumber(process:read("l"))
end

local function finish(process)
  local output = process:read("a")
  process:close()
  return output
end

local function connect(port, options)
  options = options or {}
  options.server_name = options.server_name or "a.example"
  options.ca_file = options.ca_file or folder .. "/ca.pem"
  return net.connect("127.0.0.1", port, { tls = options })
end

-- Serves one connection while client(port) starts a process; gives what the process printed and what the handler raised.
local function serve(handler, client, options)
  options = options or {}
  options.cert = options.cert or folder .. "/server.pem"
  options.key = options.key or folder .. "/server.key"
  local done = agather.future()
  local process
  local server = agather.spawn(net.serve, "127.0.0.1", 0, function(stream)
    handler(stream)
    stream:close()
    if not done:done() then done:set_result() end
  end, {
    tls = options,
    on_error = function(err) done:set_result(err) end,
    on_listen = function(listening) process = client(select(2, listening:local_address())) end,
  })
  local failure = done:await()
  server:cancel()
  pcall(server.await, server)
  return finish(process), failure
end

local function echo(stream)
  for line in stream:lines("L") do stream:write(line) end
end

local function s_client(options, input)
  return function(port)
    return command(("sh -c '%s | openssl s_client -connect 127.0.0.1:%d -servername a.example -CAfile ca.pem "
      .. "-verify_return_error %s'"):format(input or "echo hello", port, options))
  end
end

local function task(f) return function() agather.run(f) end end

describe("TLS with", function()
  teardown(function() certificates.remove() end)

  describe("openssl s_server", function()
    it("brings lines there and back", task(function()
      for _, version in ipairs { "-tls1_2", "-tls1_3" } do
        local process, port = s_server("-rev -alpn other,echo " .. version)
        local stream <close> = connect(port, { alpn = { "echo" } })
        stream:write("hello\n")
        assert.equal("olleh", stream:read())
        assert.equal("echo", stream:alpn())
        assert.equal(version == "-tls1_2" and "TLSv1.2" or "TLSv1.3", stream:version())
        assert.equal("CN=a.example", stream:peer_certificate().subject)
        stream:close()
        finish(process)
      end
    end))

    it("verifies addresses by default, and says what is wrong with which address", task(function()
      local process, port = s_server "-rev"
      local stream = net.connect("127.0.0.1", port, { tls = { ca_file = folder .. "/ca.pem" } })
      stream:write("hello\n")
      assert.equal("olleh", stream:read())
      stream:close()
      finish(process)
      process, port = s_server "-rev"
      local err = raises(("handshake 127.0.0.1:%d: unable to get local issuer certificate: CN=a.example "
        .. "(UNABLE_TO_GET_ISSUER_CERT_LOCALLY)"):format(port), net.connect, "127.0.0.1", port, { tls = true })
      assert.is_true(agather.is_error(err, agather.TLSError))
      finish(process)
      process, port = s_server "-rev"
      err = raises(("handshake c.example (127.0.0.1:%d): hostname mismatch"):format(port), connect, port,
        { server_name = "c.example" })
      assert.equal("HOSTNAME_MISMATCH", err.code)
      assert.truthy(finish(process):find("bad certificate", 1, true)) -- it was told
    end))

    it("shows a certificate of the client", task(function()
      local process, port = s_server "-rev -Verify 1 -CAfile ca.pem -verify_return_error"
      local stream = connect(port, { cert = folder .. "/client.pem", key = folder .. "/client.key" })
      stream:write("hello\n")
      assert.equal("olleh", stream:read())
      stream:close()
      assert.truthy(finish(process):find("CN = some client", 1, true))
    end))

    it("of TLS 1.1 is refused", task(function()
      local process, port = s_server "-rev -tls1_1 -cipher DEFAULT@SECLEVEL=0"
      local err = raises("handshake", connect, port)
      assert.is_true(agather.is_error(err, agather.TLSError))
      assert.equal("TLSV1_ALERT_PROTOCOL_VERSION", err.code)
      finish(process)
    end))

    it("goes on with an earlier session", task(function()
      local context = agather.tls.Context { ca_file = folder .. "/ca.pem", max_version = "TLSv1.2" }
      local process = command("openssl s_server -accept 127.0.0.1:0 -cert server.pem -key server.key -naccept 2 -rev "
        .. "</dev/null")
      local port
      for line in process:lines() do
        port = tonumber(line:match("^ACCEPT .*:(%d+)"))
        if port then break end
      end
      for round = 1, 2 do
        local stream = net.connect("127.0.0.1", port, { tls = { context = context, server_name = "a.example" } })
        stream:write("hello\n")
        assert.equal("olleh", stream:read())
        assert.equal(round == 2, stream:resumed())
        stream:close()
      end
      finish(process)
    end))
  end)

  describe("openssl s_client", function()
    it("brings lines there and back", task(function()
      for _, version in ipairs { "-tls1_2", "-tls1_3" } do
        local output, failure = serve(function(stream)
          assert.equal("a.example", stream:server_name())
          stream:write("you said ", stream:read(), "\n")
        end, s_client("-quiet " .. version))
        assert.is_nil(failure)
        assert.truthy(output:find("you said hello", 1, true), output)
      end
    end))

    it("asks it for a certificate", task(function()
      local options = { ca_file = folder .. "/ca.pem", verify_client = true }
      local subject
      local _, failure = serve(function(stream)
        subject = stream:peer_certificate().subject
        echo(stream)
      end, s_client("-cert client.pem -key client.key"), options)
      assert.is_nil(failure)
      assert.equal("CN=some client", subject)
      local output
      output, failure = serve(echo, s_client("-tls1_2"), { ca_file = folder .. "/ca.pem", verify_client = true })
      assert.equal("PEER_DID_NOT_RETURN_A_CERTIFICATE", failure.code)
      assert.truthy(tostring(failure):find("^handshake 127%.0%.0%.1:%d+: the peer sent no certificate"))
      assert.truthy(output:find("handshake failure", 1, true), output)
    end))

    it("does not let it shake hands again", task(function()
      os.execute(("rm -f %s/fifo && mkfifo %s/fifo"):format(folder, folder))
      local input
      local output, failure = serve(function(stream)
        stream:write("greetings\n")
        input:write("R\n")
        input:flush()
        assert.is_nil(stream:read())
        input:close()
      end, function(port)
        local process = command(("sh -c 'openssl s_client -tls1_2 -connect 127.0.0.1:%d <fifo'"):format(port))
        input = assert(io.open(folder .. "/fifo", "w"))
        return process
      end)
      assert.truthy(output:find("no renegotiation", 1, true), output)
      assert.is_true(failure == nil or agather.is_error(failure, agather.OSError))
    end))

    it("gives it new keys when it asks", task(function()
      os.execute(("rm -f %s/fifo && mkfifo %s/fifo"):format(folder, folder))
      local input, process
      local function say(text)
        input:write(text)
        input:flush()
      end
      local function wait_for(text) -- it prints what it does on its own, so the loop may stand still
        repeat until process:read("l"):find(text, 1, true)
      end
      local heard = {}
      local output, failure = serve(function(stream)
        say "first\n"
        heard[1] = stream:read()
        say "K\n" -- new keys on both sides
        wait_for "KEYUPDATE"
        say "second\n"
        heard[2] = stream:read()
        stream:write("with new keys\n")
        wait_for "with new keys"
        say "k\n"
        wait_for "KEYUPDATE"
        say "third\n"
        heard[3] = stream:read()
        stream:write("and again\n")
        input:close()
        assert.is_nil(stream:read())
      end, function(port)
        process = command(("sh -c 'openssl s_client -tls1_3 -connect 127.0.0.1:%d <fifo'"):format(port))
        input = assert(io.open(folder .. "/fifo", "w"))
        return process
      end)
      assert.is_nil(failure)
      assert.same({ "first", "second", "third" }, heard)
      assert.truthy(output:find("and again\n", 1, true), output)
    end))
  end)

  describe("Python", function()
    if not os.execute("python3 -c 'import ssl' 2>/dev/null") then
      pending("python3 is missing")
      return
    end

    it("as server brings lines there and back, and both end cleanly", task(function()
      local process, port = python_server "echo"
      local stream = connect(port, { alpn = { "echo" } })
      stream:write("one\ntwo\n")
      assert.equal("one", stream:read())
      stream:shutdown()
      assert.equal("two\n", stream:read("a"))
      assert.equal("echo", stream:alpn())
      stream:close()
      assert.equal("", finish(process))
    end))

    it("as client brings lines there and back", task(function()
      local output, failure = serve(echo, function(port)
        return command(("python3 %s client %s echo %d"):format(python, folder, port))
      end, { alpn = { "echo" } })
      assert.is_nil(failure)
      assert.equal("from python\n TLSv1.3 echo\n", output)
    end))

    it("as server that cuts the connection is told from one that ends", task(function()
      local process, port = python_server "cut"
      local stream <close> = connect(port)
      assert.equal("a line", stream:read())
      local err = raises("the stream was cut", stream.read, stream)
      assert.equal("UNEXPECTED_EOF", err.code)
      finish(process)
    end))

    it("as server sends and takes much at once", task(function()
      local process, port = python_server "big"
      local stream = connect(port)
      local blob = ("0123456789"):rep(500000)
      local results = agather.gather(function() stream:write(blob) end, function() return stream:read_exactly(#blob) end)
        :await()
      assert.is_true(results[2] == blob)
      stream:shutdown()
      assert.is_nil(stream:read())
      stream:close()
      assert.equal("read 5000000\n", finish(process))
    end))

    it("as server sees the client's certificate", task(function()
      local process, port = python_server "certificate"
      local stream = connect(port, { cert = certificates.client_pem, key = certificates.client_key })
      assert.equal("some client", stream:read())
      stream:close()
      finish(process)
      process, port = python_server "certificate"
      stream = connect(port) -- done, in TLS 1.3, before the server has refused
      local err = raises("the peer refused with the alert: certificate required", stream.read, stream)
      assert.equal("TLSV13_ALERT_CERTIFICATE_REQUIRED", err.code)
      stream:close()
      assert.equal("SSLError PEER_DID_NOT_RETURN_A_CERTIFICATE\n", finish(process))
    end))

    it("as client of TLS 1.1 is refused, and told so", task(function()
      local output, failure = serve(echo, function(port)
        return command(("python3 -W ignore %s client %s old %d"):format(python, folder, port))
      end)
      assert.equal("UNSUPPORTED_PROTOCOL", failure.code)
      assert.equal("SSLError TLSV1_ALERT_PROTOCOL_VERSION\n", output)
    end))
  end)

  describe("a server of agather's", function()
    local function serving(errors, more)
      local port
      local options = { cert = certificates.server_pem, key = certificates.server_key }
      for name, value in pairs(more or {}) do options[name] = value end
      local server = agather.spawn(net.serve, "127.0.0.1", 0, echo, {
        tls = options,
        on_error = function(err) errors[#errors + 1] = tostring(err):gsub("%d+%.%d+%.%d+%.%d+:%d+", "PEER") end,
        on_listen = function(listening) port = select(2, listening:local_address()) end,
      })
      agather.sleep(0)
      return port, server
    end

    it("goes on when a peer sends garbage, or leaves in the middle", task(function()
      local errors = {}
      local port, server = serving(errors)
      local garbage <close> = net.connect("127.0.0.1", port)
      garbage:write("GET / HTTP/1.1\r\n\r\n")
      do
        local leaving <close> = net.connect("127.0.0.1", port)
        leaving:write("\x16\x03\x01")
      end
      local good <close> = connect(port)
      good:write("hello\n")
      assert.equal("hello", good:read())
      garbage:read("a")
      while #errors < 2 do agather.sleep(0) end
      table.sort(errors)
      assert.same({
        "handshake PEER: the peer ended the connection during the handshake (UNEXPECTED_EOF)",
        "handshake PEER: the peer sent an HTTP request in clear text (HTTP_REQUEST)",
      }, errors)
      server:cancel()
      pcall(server.await, server)
    end))

    it("gets rid of a peer that is silent", task(function()
      local errors = {}
      local port, server = serving(errors, { handshake_timeout = 0.05 })
      local silent <close> = net.connect("127.0.0.1", port)
      silent:read("a")
      while #errors < 1 do agather.sleep(0) end
      assert.same({ "handshake PEER: not done after 0.05 seconds" }, errors)
      server:cancel()
      pcall(server.await, server)
    end))

    it("is cancelled while its clients shake hands", task(function()
      local port, server = serving {}
      local silent <close> = net.connect("127.0.0.1", port)
      agather.sleep(0.01)
      server:cancel()
      assert.is_false((pcall(server.await, server)))
      pcall(silent.read, silent, "a") -- returns: the connection was closed
    end))

    it("serves Unix sockets too", task(function()
      local path = folder .. "/socket"
      local server = agather.spawn(net.serve_unix, path, echo, {
        tls = { cert = certificates.server_pem, key = certificates.server_key },
      })
      agather.sleep(0)
      local stream = net.connect_unix(path, { tls = { ca = certificates.ca_pem, server_name = "a.example" } })
      stream:write("hello\n")
      assert.equal("hello", stream:read())
      stream:close()
      server:cancel()
      pcall(server.await, server)
    end))

    it("serves many clients at once", task(function()
      local port, server = serving {}
      local context = agather.tls.Context { ca = certificates.ca_pem }
      local list = {}
      for i = 1, 50 do
        list[i] = function()
          local stream <close> = net.connect("localhost", port,
            { tls = { context = context, server_name = "x" .. i .. ".b.example" } })
          stream:write(i, "\n")
          return tonumber(stream:read())
        end
      end
      local results = agather.gather_list(list):await()
      for i = 1, 50 do assert.equal(i, results[i]) end
      server:cancel()
      pcall(server.await, server)
    end))
  end)

  it("wrong options is refused before anything is connected", task(function()
    raises("bad argument #3 to 'connect' (option 'tls' must be a boolean or a table, got string)", net.connect, "a", 1,
      { tls = "yes" })
    raises("bad argument #3 to 'connect' (unknown option 'tls.sever_name')", net.connect, "a", 1,
      { tls = { sever_name = "x" } })
    raises("bad argument #3 to 'connect' (option 'tls.ca' must be a string, got table)", net.connect, "a", 1,
      { tls = { ca = {} } })
    raises("bad argument #4 to 'serve' (option 'tls.cert' is missing)", net.serve, "127.0.0.1", 0, echo, { tls = true })
    raises("bad argument #2 to 'connect_unix' (option 'tls.server_name' is missing", net.connect_unix, "/nonexistent",
      { tls = true })
  end))

  it("a whole connection within a time limit raises TimeoutError and closes", task(function()
    local listener = net.listen("127.0.0.1", 0)
    local _, port = listener:local_address()
    local accepted = agather.spawn(listener.accept, listener)
    local err = raises(("connect 127.0.0.1:%d: no answer in 0.05 s"):format(port), net.connect, "127.0.0.1", port,
      { timeout = 0.05, tls = true })
    assert.is_true(agather.is_error(err, agather.TimeoutError))
    local stream <close> = accepted:await()
    assert.equal("\x16\x03\x01", stream:read_exactly(3)) -- a ClientHello, and then the end
    assert.equal("string", type(stream:read("a")))
    listener:close()
  end))
end)
