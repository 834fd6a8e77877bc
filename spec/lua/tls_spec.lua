-- lua/agather/tls.lua: options, contexts, names, and what errors say. What goes over the wire is in tls_filter_spec.
local agather = require "agather"
local certificates = require("spec.support.certificates").make()
local support = require "spec.support"
local tls_support = require "spec.support.tls"

local tls, net, raises = agather.tls, agather.net, support.raises

local function pair(...) return tls_support.pair(certificates, ...) end
local function shake(...) return tls_support.shake(certificates, ...) end

-- An `it` whose body is the main task.
local function task(f) return function() agather.run(f) end end

local function is_tls_error(err, code)
  assert.is_true(agather.is_error(err, agather.TLSError), tostring(err))
  assert.equal(code, err.code)
  return tostring(err)
end

describe("tls", function()
  teardown(function() certificates.remove() end)

  it("gives a stream with every method of streams, and says what was agreed", task(function()
    local client, server = pair({ alpn = { "http/1.1", "h2" } }, { alpn = { "h2", "http/1.1" } })
    client:write("one\n", 2, "\nrest")
    client:shutdown()
    assert.equal("one", server:read())
    assert.equal("2\n", server:read("L"))
    assert.equal("re", server:read_exactly(2))
    assert.equal("st", server:read("a"))
    assert.is_nil(server:read())
    server:write("up to;and after")
    server:close()
    assert.equal("up to;", client:read_until(";"))
    assert.equal("and after", client:read(100))
    assert.is_nil(client:read(100))
    assert.equal("TLSv1.3", client:version())
    assert.equal("h2", client:alpn())
    assert.truthy(client:cipher():find("^TLS_"))
    assert.equal("CN=a.example", client:peer_certificate().subject)
    assert.is_false(client:resumed())
    assert.equal("agather.Stream (TLS a.example over agather.Stream (memory))", tostring(client))
    client:close()
  end))

  it("tells the server the name, and whether there is a certificate of the client", task(function()
    local _, server = pair({ server_name = "x.b.example" })
    assert.equal("x.b.example", server:server_name())
    assert.is_nil(server:peer_certificate())
    assert.is_nil(server:alpn())
    local mine = { cert = certificates.client_pem, key = certificates.client_key }
    _, server = pair(mine, { ca = certificates.ca_pem, verify_client = true })
    assert.equal("CN=some client", server:peer_certificate().subject)
  end))

  it("verifies addresses, names with a dot at the end, and zones", task(function()
    for _, name in ipairs { "127.0.0.1", "::1", "[::1]", "a.example.", "A.Example", "x.B.example" } do
      local client = pair { server_name = name }
      assert.equal("CN=a.example", client:peer_certificate().subject)
    end
  end))

  it("says why a certificate was refused, and closes the stream below", task(function()
    local function refused(name, client_options)
      local over_client, over_server = net.pair()
      local client, server = shake(client_options,
        { cert = certificates[name .. "_pem"], key = certificates[name .. "_key"] }, over_client, over_server)
      assert.is_true(agather.is_error(server, agather.TLSError))
      assert.equal("handshake", client.operation)
      assert.equal(client_options and client_options.server_name or "a.example", client.address)
      raises("the stream is closed", over_client.read, over_client)
      raises("the stream is closed", over_server.read, over_server)
      return client
    end
    assert.equal("handshake a.example: certificate has expired: CN=old.example (CERT_HAS_EXPIRED)",
      is_tls_error(refused "expired", "CERT_HAS_EXPIRED"))
    assert.equal("handshake a.example: self-signed certificate: CN=alone.example (DEPTH_ZERO_SELF_SIGNED_CERT)",
      is_tls_error(refused "alone", "DEPTH_ZERO_SELF_SIGNED_CERT"))
    assert.equal("handshake b.example: hostname mismatch: certificate is for a.example, *.b.example, 127.0.0.1, ::1, "
      .. "not b.example (HOSTNAME_MISMATCH)", is_tls_error(refused("server", { server_name = "b.example" }),
        "HOSTNAME_MISMATCH"))
    local system = refused("server", { context = tls.Context {} })
    is_tls_error(system, "UNABLE_TO_GET_ISSUER_CERT_LOCALLY")
  end))

  it("trusts what it is told to, in a text, a file or a directory", task(function()
    local folder = certificates.folder
    pair { ca = certificates.alone_pem .. certificates.ca_pem }
    pair { context = tls.Context { ca_file = folder .. "/ca.pem" } }
    assert(os.execute(("mkdir -p %s/hashed && cp %s/ca.pem %s/hashed && openssl rehash %s/hashed"):format(folder, folder,
      folder, folder)))
    pair { context = tls.Context { ca_path = folder .. "/hashed" } }
    is_tls_error(shake { ca = certificates.alone_pem }, "UNABLE_TO_GET_ISSUER_CERT_LOCALLY")
    pair({ ca = certificates.alone_pem }, { cert = certificates.alone_pem, key = certificates.alone_key })
  end))

  it("does without verification, and then without a name, only when it is told to", task(function()
    local client = pair({ verify = false }, { cert = certificates.expired_pem, key = certificates.expired_key })
    assert.equal("CN=old.example", client:peer_certificate().subject)
    local over_client, over_server = net.pair()
    local serving = agather.spawn(tls.server, over_server, tls_support.server_options(certificates))
    tls.client(over_client, { verify = false })
    assert.is_nil(serving:await():server_name())
  end))

  it("tells both sides about a client's certificate that is missing or refused", task(function()
    local asking = { ca = certificates.ca_pem, verify_client = true }
    local client, server = shake(nil, asking)
    assert.equal("handshake: the peer sent no certificate (PEER_DID_NOT_RETURN_A_CERTIFICATE)",
      is_tls_error(server, "PEER_DID_NOT_RETURN_A_CERTIFICATE"))
    -- In TLS 1.3 a client is done before the server has looked: it learns of it when it reads.
    local err = raises("the peer refused with the alert", client.read, client)
    assert.equal("read a.example: the peer refused with the alert: certificate required "
      .. "(TLSV13_ALERT_CERTIFICATE_REQUIRED)", is_tls_error(err, "TLSV13_ALERT_CERTIFICATE_REQUIRED"))
    client, server = shake({ cert = certificates.alone_pem, key = certificates.alone_key, max_version = "TLSv1.2" },
      asking)
    is_tls_error(client, "TLSV1_ALERT_UNKNOWN_CA")
    is_tls_error(server, "DEPTH_ZERO_SELF_SIGNED_CERT")
    asking.verify_client = "optional"
    local _, unknown = pair(nil, asking)
    assert.is_nil(unknown:peer_certificate())
  end))

  it("fails when no protocol is common, and goes on when one side names none", task(function()
    local client, server = shake({ alpn = { "smtp" } }, { alpn = { "h2" } })
    assert.equal("handshake a.example: the peer refused with the alert: no application protocol "
      .. "(TLSV1_ALERT_NO_APPLICATION_PROTOCOL)", is_tls_error(client, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"))
    is_tls_error(server, "NO_APPLICATION_PROTOCOL")
    assert.is_nil((pair { alpn = { "h2" } }):alpn())
    assert.is_nil((pair(nil, { alpn = { "h2" } })):alpn())
  end))

  it("keeps to the versions", task(function()
    assert.equal("TLSv1.2", (pair { max_version = "TLSv1.2" }):version())
    assert.equal("TLSv1.3", (pair { min_version = "TLSv1.3" }):version())
    local client, server = shake({ max_version = "TLSv1.2" }, { min_version = "TLSv1.3" })
    is_tls_error(client, "TLSV1_ALERT_PROTOCOL_VERSION")
    assert.equal("handshake: the peer speaks only versions of TLS that are refused (UNSUPPORTED_PROTOCOL)",
      is_tls_error(server, "UNSUPPORTED_PROTOCOL"))
  end))

  it("reads certificates and keys from files, together or apart, and keys with a password", task(function()
    local folder = certificates.folder
    local both = assert(io.open(folder .. "/both.pem", "w"))
    both:write(certificates.server_key, certificates.server_pem)
    both:close()
    pair(nil, { context = tls.Context { cert = folder .. "/both.pem" } })
    pair(nil, { context = tls.Context { cert = folder .. "/server.pem", key = folder .. "/server.key" } })
    pair(nil, { key = certificates.locked_key, key_password = "secret" })
    local function fails(text, options)
      options.cert = options.cert or folder .. "/server.pem"
      return raises(text, tls.Context, options)
    end
    local err = fails("locked.key: the private key is encrypted: give its password (KEY_PASSWORD_REQUIRED)",
      { key = folder .. "/locked.key" })
    assert.equal(folder .. "/locked.key", err.address)
    assert.equal("certificate", err.operation)
    fails("wrong password (KEY_PASSWORD_WRONG)", { key = certificates.locked_key, key_password = "no" })
    fails("the private key does not belong to the certificate", { key = certificates.client_key })
    fails("there is none in the PEM text (NO_PRIVATE_KEY)", {})
    err = fails("open /nonexistent.pem: No such file or directory (ENOENT)", { cert = "/nonexistent.pem" })
    assert.is_true(agather.is_error(err, agather.OSError))
    assert.equal("ENOENT", err.code)
    fails("(EISDIR)", { cert = folder })
    fails("there is none in the PEM text (NO_CERTIFICATE)", { cert = folder .. "/log", key = certificates.server_key })
    fails("trust " .. folder .. "/log: an authority's certificate cannot be used", { ca_file = folder .. "/log" })
  end))

  it("shows clients the certificate for the name that they ask for", task(function()
    local other = tls.Context { cert = certificates.other_pem, key = certificates.other_key, alpn = { "other" } }
    local serving = tls.Context {
      cert = certificates.server_pem, key = certificates.server_key, alpn = { "main" },
      server_names = { ["c.example"] = other, ["*.d.example"] = other },
    }
    other = nil -- luacheck: ignore
    for _ = 1, 2 do collectgarbage() end
    local function shown(name)
      local client = pair({ server_name = name, alpn = { "main", "other" } }, { context = serving })
      return client:peer_certificate().subject .. " " .. client:alpn()
    end
    assert.equal("CN=c.example other", shown "c.example")
    assert.equal("CN=c.example other", shown "C.Example")
    assert.equal("CN=c.example other", shown "x.d.example")
    assert.equal("CN=a.example main", shown "a.example")
    assert.equal("CN=a.example main", shown "127.0.0.1") -- asks for no name
    serving = tls.Context {
      cert = certificates.server_pem, key = certificates.server_key,
      server_names = { ["c.example"] = tls.Context {
        cert = certificates.other_pem, key = certificates.other_key, ca = certificates.ca_pem, verify_client = true,
      } },
    }
    assert.equal("CN=a.example", (pair(nil, { context = serving })):peer_certificate().subject)
    local _, refusing = shake({ server_name = "c.example" }, { context = serving })
    is_tls_error(refusing, "PEER_DID_NOT_RETURN_A_CERTIFICATE")
    serving = tls.Context {
      cert = certificates.server_pem, key = certificates.server_key, ca = certificates.ca_pem, verify_client = true,
      server_names = { ["c.example"] = tls.Context { cert = certificates.other_pem, key = certificates.other_key } },
    }
    assert.equal("CN=c.example", (pair({ server_name = "c.example" }, { context = serving })):peer_certificate().subject)
    _, refusing = shake(nil, { context = serving })
    is_tls_error(refusing, "PEER_DID_NOT_RETURN_A_CERTIFICATE")
    is_tls_error(shake({ server_name = "y.x.d.example" }, { context = serving }), "HOSTNAME_MISMATCH")
  end))

  it("lets no client that one name has let in go on under another", task(function()
    local function serving(verify_client)
      return tls.Context {
        cert = certificates.server_pem, key = certificates.server_key, ca = certificates.ca_pem,
        verify_client = verify_client,
        server_names = { ["c.example"] = tls.Context {
          cert = certificates.other_pem, key = certificates.other_key, verify_client = true,
          ca = certificates.alone_pem, -- trusts another one
        } },
      }
    end
    for _, case in ipairs { { "TLSv1.2", true }, { "TLSv1.3", true }, { "TLSv1.2", false }, { "TLSv1.3", false } } do
      local theirs = serving(case[2])
      local ours = tls.Context {
        ca = certificates.ca_pem, cert = certificates.client_pem, key = certificates.client_key, max_version = case[1],
      }
      for _ = 1, 2 do
        local client, server = pair({ context = ours }, { context = theirs })
        server:write("x")
        client:read(1)
        assert.is_false(client:resumed())
      end
      local _, server = shake({ context = ours, server_name = "c.example" }, { context = theirs })
      is_tls_error(server, "SELF_SIGNED_CERT_IN_CHAIN")
    end
  end))

  it("goes on with sessions of a context, one per name", task(function()
    local ours, theirs = tls.Context { ca = certificates.ca_pem }, tls.Context {
      cert = certificates.server_pem, key = certificates.server_key,
    }
    local function resumed(name)
      local client, server = pair({ context = ours, server_name = name }, { context = theirs })
      server:write("x")
      client:read(1) -- a client gets its ticket with the first bytes
      return client:resumed() and server:resumed()
    end
    assert.is_false(resumed "a.example")
    assert.is_true(resumed "a.example")
    assert.is_false(resumed "x.b.example")
    assert.is_true(resumed "a.example")
  end))

  it("keeps names and certificates over sessions, also where connections ended without a word", task(function()
    for _, version in ipairs { "TLSv1.2", "TLSv1.3" } do
      local theirs = tls.Context {
        cert = certificates.server_pem, key = certificates.server_key, ca = certificates.ca_pem, verify_client = true,
      }
      local ours = tls.Context {
        ca = certificates.ca_pem, cert = certificates.client_pem, key = certificates.client_key, max_version = version,
      }
      for round = 1, 4 do
        local client, server = pair({ context = ours }, { context = theirs })
        server:write("x")
        client:read(1)
        assert.equal(round > 1, client:resumed())
        assert.equal("CN=some client", server:peer_certificate().subject)
        assert.equal("CN=a.example", client:peer_certificate().subject)
        assert.equal("a.example", server:server_name())
        client:abort()
        server:abort()
      end
    end
  end))

  it("runs in several Lua states on threads of their own at once", task(function()
    local function shake_hands(folder)
      local ours = require "agather"
      return ours.run(function()
        for _ = 1, 5 do
          local over_client, over_server = ours.net.pair()
          local serving = ours.spawn(ours.tls.server, over_server,
            { cert = folder .. "/server.pem", key = folder .. "/server.key" })
          local client <close> = ours.tls.client(over_client, { ca_file = folder .. "/ca.pem", server_name = "a.example" })
          local server <close> = serving:await()
          client:write("hello\n")
          assert(server:read() == "hello")
        end
        return "done"
      end)
    end
    local function in_worker() return agather.worker.run(shake_hands, certificates.folder) end
    local results = agather.gather(in_worker, in_worker, in_worker):await()
    assert.same({ "done", "done", "done" }, { results[1], results[2], results[3] })
  end))

  it("speaks TLS within TLS", task(function()
    local outer_client, outer_server = pair()
    local client, server = pair({ server_name = "x.b.example" }, nil, outer_client, outer_server)
    local blob = ("0123456789abcdef"):rep(20000)
    agather.gather(function()
      client:write(blob)
      client:close()
    end, function() assert.is_true(server:read("a") == blob) end):await()
    assert.is_nil(server:read(1))
    server:close()
    raises("closed", outer_server.read, outer_server)
  end))

  it("starts after lines in clear on the same stream", task(function()
    local over_client, over_server = net.pair()
    agather.gather(function()
      assert.equal("STARTTLS", over_server:read())
      over_server:write("220 ready\r\n")
      local server <close> = tls.server(over_server, tls_support.server_options(certificates))
      server:write("hidden")
    end, function()
      over_client:write("STARTTLS\n")
      assert.equal("220 ready\r\n", over_client:read("L"))
      local client <close> = tls.client(over_client, tls_support.client_options(certificates))
      assert.equal("hidden", client:read("a"))
    end):await()
  end))

  it("does not take what was said in clear for something said under TLS", task(function()
    local over_client, over_server = net.pair()
    over_client:write("STARTTLS\nDELETE everything\n")
    assert.equal("STARTTLS", over_server:read())
    local err = raises("does not speak TLS", tls.server, over_server, tls_support.server_options(certificates))
    is_tls_error(err, "WRONG_VERSION_NUMBER")
  end))

  it("works over any object that reads, writes and closes", task(function()
    local over_client, over_server = net.pair()
    local log = {}
    local plain = {
      read = function(_, n)
        log.most = math.max(log.most or 0, n)
        return over_client:read(math.min(n, 7))
      end,
      write = function(_, bytes) over_client:write(bytes) end,
      close = function() log.closed = (log.closed or 0) + 1 end,
    }
    local client, server = pair(nil, nil, plain, over_server)
    server:write("seven bytes at a time")
    assert.equal("seven bytes at a time", client:read_exactly(21))
    assert.is_nil(client:peer_address())
    client:set_write_buffer_limits { high = 1 }
    client:flush()
    client:close()
    client:close()
    assert.equal(1, log.closed)
    assert.is_nil(server:read())
  end))

  it("reports the errors of the stream below as they are", task(function()
    local function broken(method)
      local over = { read = function() return nil end, write = function() end, close = function() end }
      over[method] = function() error("wire cut", 0) end
      return over
    end
    local options = { server_name = "a.example" }
    for _, method in ipairs { "read", "write" } do
      local ok, err = pcall(tls.client, broken(method), options)
      assert.is_false(ok)
      assert.equal("wire cut", err)
    end
    local _, err = pcall(tls.client, broken "nothing", options)
    assert.equal("handshake a.example: the peer ended the connection during the handshake (UNEXPECTED_EOF)",
      is_tls_error(err, "UNEXPECTED_EOF"))
    _, err = pcall(tls.client, broken "close", options)
    is_tls_error(err, "UNEXPECTED_EOF")
  end))

  describe("refuses", function()
    local function refused(text, f, ...)
      local err = raises(text, f, ...)
      assert.equal("string", type(err))
      assert.truthy(err:find("tls_spec.lua:", 1, true) or err:find("support", 1, true), err)
    end

    it("what is not a stream", task(function()
      refused("bad argument #1 to 'client' (stream expected, got nil)", tls.client)
      refused("bad argument #1 to 'server' (stream expected, got string)", tls.server, "x")
      refused("bad argument #1 to 'client' (stream expected, got table, which has no method 'read')", tls.client, {})
      refused("which has no method 'close'", tls.client, { read = print, write = print })
      refused("which has no method 'read'", tls.client, io.stdout and setmetatable({}, { __index = error }))
    end))

    it("a missing or wrong name of the server", task(function()
      local over = net.pair()
      refused("bad argument #2 to 'client' (option 'server_name' is missing", tls.client, over)
      refused("option 'server_name' is missing", tls.client, over, { ca = certificates.ca_pem })
      refused("option 'server_name' must be a string, got number", tls.client, over, { server_name = 5 })
      refused("option 'server_name' contains a zero byte", tls.client, over, { server_name = "a.example\0.evil" })
      refused("option 'server_name' must not be empty", tls.client, over, { server_name = "" })
      refused("option 'server_name' must have 1 to 253 bytes", tls.client, over, { server_name = "." })
      refused("option 'server_name' must have 1 to 253 bytes", tls.client, over, { server_name = ("a"):rep(254) })
      refused("must be a host name in ASCII", tls.client, over, { server_name = "bücher.example" })
      refused("must be a host name in ASCII", tls.client, over, { server_name = "a.example/x" })
      over:write("still open")
    end))

    it("options that it does not know, or that do not fit", task(function()
      local over = net.pair()
      refused("bad argument #2 to 'client' (unknown option 'sever_name')", tls.client, over, { sever_name = "a" })
      refused("bad argument #2 to 'server' (unknown option 'server_name')", tls.server, over, { server_name = "a" })
      refused("bad argument #1 to 'Context' (unknown option 'server_name')", tls.Context, { server_name = "a" })
      refused("table of options expected, got string", tls.Context, "x")
      refused("option 'cert' is missing", tls.server, over, {})
      refused("option 'cert' is missing", tls.server, over, { context = tls.Context {} })
      refused("option 'key' needs 'cert'", tls.Context, { key = "x" })
      refused("option 'verify' must be a boolean, got string", tls.Context, { verify = "none" })
      refused("option 'verify_client' must be a boolean or \"optional\"", tls.Context, { verify_client = "no" })
      refused("option 'verify_client' needs 'ca', 'ca_file' or 'ca_path'", tls.Context, { verify_client = true })
      refused("option 'min_version' must be \"TLSv1.2\" or \"TLSv1.3\", got TLSv1.1", tls.Context,
        { min_version = "TLSv1.1" })
      refused("option 'max_version' must not be lower", tls.Context,
        { min_version = "TLSv1.3", max_version = "TLSv1.2" })
      refused("option 'server_names' must be a table of names", tls.Context, { server_names = "a.example" })
      refused("option 'server_names' has a key that is not a host name: *", tls.Context, { server_names = { ["*"] = 1 } })
      refused("option 'server_names' must have an agather.tls.Context with a certificate for a.example", tls.Context,
        { server_names = { ["a.example"] = tls.Context {} } })
      refused("option 'alpn' must be a list of protocols", tls.Context, { alpn = "h2" })
      refused("option 'alpn' must be a list of protocols", tls.Context, { alpn = {} })
      refused("option 'alpn' must be a list of strings of 1 to 255 bytes", tls.Context, { alpn = { "" } })
      refused("option 'ca_file' contains a zero byte", tls.Context, { ca_file = "/etc/ca\0.pem" })
      refused("option 'ca' must be a string, got table", tls.Context, { ca = {} })
      refused("option 'context' must be an agather.tls.Context, got table", tls.client, over,
        { context = {}, server_name = "a" })
      refused("option 'alpn' belongs to the context that is given", tls.client, over,
        { context = tls.Context {}, alpn = { "h2" }, server_name = "a" })
      refused("option 'handshake_timeout' must be a positive number of seconds or false, got 0", tls.client, over,
        { server_name = "a", handshake_timeout = 0 })
      over:write("still open")
    end))
  end)
end)
