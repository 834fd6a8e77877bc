-- src/tls: engines are fed and asked in the spec itself, without a stream or a loop.
local ssl = require "agather.ssl"
local certificates = require("spec.support.certificates").make()

local function context(fill)
  local made = assert(ssl.context())
  if fill then fill(made) end
  return made
end

local function server_context(pem, key)
  return context(function(made)
    assert(made:use_certificate(pem or certificates.server_pem, key or certificates.server_key))
  end)
end

local function client_context(fill)
  return context(function(made)
    assert(made:trust(certificates.ca_pem))
    made:verify(true)
    if fill then fill(made) end
  end)
end

-- Brings what each has for the other, [piece] bytes at a time, until both are done or one has failed.
-- Returns the failure's code and text.
local function shake(client, server, piece)
  for _ = 1, 20 do
    local outcomes = {}
    for _, way in ipairs { { client, server }, { server, client } } do
      local from, to = way[1], way[2]
      local done, code, text = from:handshake()
      outcomes[#outcomes + 1] = done
      local bytes = from:take() or ""
      for at = 1, #bytes, piece or #bytes + 1 do
        to:feed(bytes:sub(at, at + (piece or #bytes) - 1))
        if piece then to:handshake() end
      end
      if done == nil then return code, text end
    end
    if outcomes[1] and outcomes[2] then return end
  end
  error("the handshake does not end")
end

local function connected(name, fill)
  local client, server = ssl.client(client_context(fill), name or "a.example"), ssl.server(server_context())
  assert.is_nil(shake(client, server))
  return client, server
end

local function bring(from, to)
  local bytes = from:take()
  if bytes then to:feed(bytes) end
  return bytes
end

describe("a TLS engine", function()
  teardown(function() certificates.remove() end)

  it("shakes hands and brings bytes both ways", function()
    local client, server = connected()
    assert.equal(6, client:encrypt("hello", 1))
    bring(client, server)
    assert.equal("he", server:decrypt(2))
    assert.equal("llo", server:decrypt(100))
    assert.is_false(server:decrypt(100))
    server:encrypt("hi", 1)
    bring(server, client)
    assert.equal("hi", client:decrypt(100))
  end)

  it("shakes hands when every byte comes alone", function()
    local client, server = ssl.client(client_context(), "a.example"), ssl.server(server_context())
    assert.is_nil(shake(client, server, 1))
    assert.equal("TLSv1.3", server:version())
  end)

  it("tells version, cipher, protocol and name", function()
    local serving = server_context()
    serving:alpn { "h2", "http/1.1" }
    local client = ssl.client(client_context(function(made) made:alpn { "http/1.1", "h2" } end), "x.b.example")
    local server = ssl.server(serving)
    assert.is_nil(shake(client, server))
    assert.equal("TLSv1.3", client:version())
    assert.equal(client:cipher(), server:cipher())
    assert.equal("h2", client:alpn()) -- the server's order counts
    assert.equal("h2", server:alpn())
    assert.equal("x.b.example", server:server_name())
  end)

  it("describes the peer's certificate", function()
    local client, server = connected("127.0.0.1")
    local seen = client:peer_certificate()
    assert.equal("CN=a.example", seen.subject)
    assert.equal("CN=Spec CA", seen.issuer)
    assert.same({ "DNS:a.example", "DNS:*.b.example", "IP:127.0.0.1", "IP:::1" }, seen.san)
    assert.is_true(seen.not_before <= os.time() and seen.not_after > os.time() + 20 * 86400)
    assert.equal(certificates.server_pem, seen.pem)
    assert.equal("01", seen.serial)
    assert.equal(64, #seen.sha256)
    assert.is_nil(server:peer_certificate())
    assert.is_nil(server:server_name()) -- addresses are not sent
  end)

  it("refuses certificates, and says which and why", function()
    local function refused(pem, key, name)
      local client = ssl.client(client_context(), name or "a.example")
      local code, text = shake(client, ssl.server(server_context(pem, key)))
      local again = table.pack(client:handshake())
      assert.same({ nil, code, text, n = 3 }, again)
      return code .. " " .. text
    end
    assert.equal("CERT_HAS_EXPIRED certificate has expired: CN=old.example",
      refused(certificates.expired_pem, certificates.expired_key))
    assert.equal("CERT_NOT_YET_VALID certificate is not yet valid: CN=new.example",
      refused(certificates.early_pem, certificates.early_key))
    assert.equal("DEPTH_ZERO_SELF_SIGNED_CERT self-signed certificate: CN=alone.example",
      refused(certificates.alone_pem, certificates.alone_key))
    local names = "a.example, *.b.example, 127.0.0.1, ::1"
    assert.equal("HOSTNAME_MISMATCH hostname mismatch: certificate is for " .. names .. ", not c.example",
      refused(nil, nil, "c.example"))
    assert.equal("HOSTNAME_MISMATCH hostname mismatch: certificate is for " .. names .. ", not y.x.b.example",
      refused(nil, nil, "y.x.b.example"))
    assert.equal("IP_ADDRESS_MISMATCH IP address mismatch: certificate is for " .. names .. ", not 127.0.0.2",
      refused(nil, nil, "127.0.0.2"))
    assert.equal("HOSTNAME_MISMATCH hostname mismatch: certificate names no host (CN=a.example has no subjectAltName), "
      .. "not a.example", refused(certificates.nameless_pem, certificates.nameless_key))
    assert.equal("HOSTNAME_MISMATCH hostname mismatch: certificate is for a.example?.evil.example, not a.example",
      refused(certificates.zero_pem, certificates.zero_key))
    assert.equal("INVALID_PURPOSE unsuitable certificate purpose: CN=some client",
      refused(certificates.client_pem, certificates.client_key))
  end)

  it("does not trust an unknown authority", function()
    local untrusting = context(function(made)
      assert(made:trust_system())
      made:verify(true)
    end)
    local code, text = shake(ssl.client(untrusting, "a.example"), ssl.server(server_context()))
    assert.equal("UNABLE_TO_GET_ISSUER_CERT_LOCALLY", code)
    assert.equal("unable to get local issuer certificate: CN=a.example", text)
  end)

  it("verifies nothing when told so", function()
    local client = ssl.client(context(), "c.example")
    assert.is_nil(shake(client, ssl.server(server_context(certificates.expired_pem, certificates.expired_key))))
    assert.equal("CN=old.example", client:peer_certificate().subject)
  end)

  it("asks clients for certificates", function()
    local function asking(mode)
      local made = server_context()
      assert(made:trust(certificates.ca_pem))
      made:verify_client(mode)
      return made
    end
    local function client_with(name)
      return ssl.client(client_context(function(made)
        if name then assert(made:use_certificate(certificates[name .. "_pem"], certificates[name .. "_key"])) end
        made:versions("TLSv1.2", "TLSv1.2")
      end), "a.example")
    end
    local server = ssl.server(asking("required"))
    assert.is_nil(shake(client_with("client"), server))
    assert.equal("CN=some client", server:peer_certificate().subject)
    local code, text = shake(client_with(nil), ssl.server(asking("required")))
    assert.equal("PEER_DID_NOT_RETURN_A_CERTIFICATE the peer sent no certificate", code .. " " .. text)
    assert.is_nil(shake(client_with(nil), ssl.server(asking("optional"))))
    code, text = shake(client_with("alone"), ssl.server(asking("optional")))
    assert.equal("DEPTH_ZERO_SELF_SIGNED_CERT self-signed certificate: CN=alone.example", code .. " " .. text)
  end)

  it("fails when no protocol is common, and tells the peer", function()
    local serving = server_context()
    serving:alpn { "h2" }
    local client = ssl.client(client_context(function(made) made:alpn { "smtp" } end), "a.example")
    local server = ssl.server(serving)
    local code, text = shake(client, server)
    assert.equal("NO_APPLICATION_PROTOCOL", code)
    assert.equal("none of the protocols that the peer offers (ALPN) is spoken here", text)
    local _, theirs, words = client:handshake()
    assert.equal("TLSV1_ALERT_NO_APPLICATION_PROTOCOL the peer refused with the alert: no application protocol",
      theirs .. " " .. words)
  end)

  it("keeps to the versions that it is told", function()
    local only_new = server_context()
    only_new:versions("TLSv1.3")
    local code = shake(ssl.client(client_context(function(made) made:versions(nil, "TLSv1.2") end), "a.example"),
      ssl.server(only_new))
    assert.equal("UNSUPPORTED_PROTOCOL", code)
    assert.has_error(function() context():versions("TLSv1.1") end,
      "bad argument #1 to 'versions' (invalid option 'TLSv1.1')")
  end)

  it("tells garbage from TLS", function()
    local client, server = ssl.client(client_context(), "a.example"), ssl.server(server_context())
    client:feed("220 mail.example ESMTP\r\n")
    assert.same({ nil, "WRONG_VERSION_NUMBER", "the peer does not speak TLS, or a version of it that is refused" },
      { client:handshake() })
    server:feed("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert.same({ nil, "HTTP_REQUEST", "the peer sent an HTTP request in clear text" }, { server:handshake() })
  end)

  it("names the alerts that it gets, whatever their number", function()
    for _, case in ipairs {
      { 40, "SSLV3_ALERT_HANDSHAKE_FAILURE", "handshake failure" },
      { 116, "TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate required" },
      { 199, "UNKNOWN_ALERT", "number 199" },
    } do
      local client = ssl.client(client_context(), "a.example")
      client:handshake()
      client:feed("\x15\x03\x03\x00\x02\x02" .. string.char(case[1]))
      assert.same({ nil, case[2], "the peer refused with the alert: " .. case[3] }, { client:handshake() })
    end
  end)

  it("tells a clean end from a cut", function()
    local client, server = connected()
    server:encrypt("last words", 1)
    server:shutdown()
    server:shutdown()
    bring(server, client)
    client:feed_end()
    assert.equal("last words", client:decrypt(100))
    assert.same({ n = 1 }, table.pack(client:decrypt(100)))
    assert.same({ n = 1 }, table.pack(client:decrypt(100)))
    client:encrypt("still open this way", 1)
    bring(client, server)
    assert.equal("still open this way", server:decrypt(100))
    server:feed_end()
    local cut = { nil, "UNEXPECTED_EOF", "the stream was cut: it ended without the peer's close_notify" }
    assert.same(cut, { server:decrypt(1) })
    assert.same(cut, { server:decrypt(1) })
  end)

  it("tells an end within the handshake", function()
    local client = ssl.client(client_context(), "a.example")
    assert.is_false(client:handshake())
    client:feed_end()
    assert.equal("UNEXPECTED_EOF", (select(2, client:handshake())))
  end)

  it("detects a changed byte", function()
    local client, server = connected()
    client:encrypt("hello", 1)
    local bytes = client:take()
    server:feed(bytes:sub(1, -2) .. string.char(bytes:byte(-1) ~ 1))
    assert.same({ nil, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "what came was altered on its way (bad record MAC)" },
      { server:decrypt(10) })
    assert.equal("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", (select(2, server:encrypt("x", 1))))
    client:encrypt("more", 1)
    bring(client, server)
    assert.equal("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", (select(2, server:decrypt(10))))
  end)

  it("takes and gives a bounded number of bytes at once", function()
    local client, server = connected()
    local big = ("x"):rep(1000000)
    local at = client:encrypt(big, 1)
    assert.equal(65537, at)
    bring(client, server)
    assert.equal(16384, #server:decrypt(1000000))
    assert.equal(1, #server:decrypt(1))
  end)

  it("keeps the errors of two engines apart", function()
    local good, good_server = connected()
    local bad = ssl.client(client_context(), "a.example")
    bad:feed("garbage, and more of it")
    assert.is_nil((bad:handshake()))
    assert.is_false(good:decrypt(10))
    good_server:encrypt("fine", 1)
    bring(good_server, good)
    bad:handshake()
    assert.equal("fine", good:decrypt(10))
    assert.is_false(good:decrypt(10))
  end)

  it("goes on with a session", function()
    for _, version in ipairs { "TLSv1.2", "TLSv1.3" } do
      local ours = client_context(function(made) made:versions(version, version) end)
      local serving = server_context()
      local function once(name)
        local client, server = ssl.client(ours, name), ssl.server(serving)
        assert.is_nil(shake(client, server))
        bring(server, client)
        assert.is_false(client:decrypt(1)) -- takes the tickets
        assert.equal("CN=a.example", client:peer_certificate().subject)
        return client:resumed()
      end
      assert.is_false(once("a.example"))
      assert.is_true(once("a.example"))
      assert.is_true(once("a.example"))
      assert.is_false(once("x.b.example")) -- sessions belong to a name
      for i = 1, 40 do once(i .. ".b.example") end
      assert.is_false(once("a.example")) -- the oldest went
    end
  end)

  it("reads keys with a password, and says what is wrong with keys and certificates", function()
    local made = context()
    local function code(...) return (select(2, made:use_certificate(...))) end
    assert.equal("KEY_PASSWORD_REQUIRED", code(certificates.server_pem, certificates.locked_key))
    assert.equal("KEY_PASSWORD_WRONG", code(certificates.server_pem, certificates.locked_key, "wrong"))
    assert.is_true(made:use_certificate(certificates.server_pem, certificates.locked_key, "secret"))
    assert.equal("NO_CERTIFICATE", code("no PEM", certificates.server_key))
    assert.equal("NO_PRIVATE_KEY", code(certificates.server_pem, "no PEM"))
    assert.equal("KEY_VALUES_MISMATCH", code(certificates.server_pem, certificates.client_key))
    assert.equal("NO_CERTIFICATE", (select(2, made:trust(""))))
    assert.equal("BAD_BASE64_DECODE",
      (select(2, made:trust("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"))))
    assert.is_true(made:trust_path("/nonexistent")) -- looked into when a name is asked for
  end)

  it("sends the certificates between its own and the authority", function()
    local made = context()
    assert.is_true(made:use_certificate(certificates.server_pem .. certificates.alone_pem, certificates.server_key))
    local client = ssl.client(client_context(function(ours) ours:versions(nil, "TLSv1.2") end), "a.example")
    local server = ssl.server(made)
    client:handshake()
    bring(client, server)
    server:handshake()
    local alone = certificates.alone_pem:gsub("%-%-%-%-%-[%u ]+%-%-%-%-%-", ""):gsub("%s", "")
    local pipe = assert(io.popen("echo " .. alone .. " | base64 -d", "r"))
    local der = pipe:read("a")
    pipe:close()
    assert.truthy(server:take():find(der, 1, true))
  end)

  it("refuses wrong arguments", function()
    local made = client_context()
    local function refused(text, f, ...)
      local ok, err = pcall(f, ...)
      assert.is_false(ok)
      assert.truthy(tostring(err):find(text, 1, true), tostring(err))
    end
    refused("a name must not contain a zero byte", ssl.client, made, "a.example\0.evil.example")
    refused("a name must have 1 to 253 bytes", ssl.client, made, "")
    refused("a name must have 1 to 253 bytes", ssl.client, made, ("a"):rep(254))
    refused("agather.tls.Context expected", ssl.client, {})
    refused("a list of protocols must not be empty", made.alpn, made, {})
    refused("a protocol must be a string of 1 to 255 bytes", made.alpn, made, { 5 })
    refused("a protocol must be a string of 1 to 255 bytes", made.alpn, made, { ("x"):rep(256) })
    refused("the list of protocols is too long", made.alpn, made, (function()
      local list = {}
      for i = 1, 300 do list[i] = ("x"):rep(255) end
      return list
    end)())
    local client = connected()
    refused("number of bytes must be positive", client.decrypt, client, 0)
    refused("place out of range", client.encrypt, client, "abc", 4)
    refused("place out of range", client.encrypt, client, "", 1)
  end)

  it("is of no use once it is freed, and is freed twice without harm", function()
    local client = connected()
    client:free()
    client:free()
    for _, name in ipairs { "feed", "take", "handshake", "decrypt", "encrypt", "shutdown", "version",
      "peer_certificate" } do
      local ok, err = pcall(client[name], client, "x", 1)
      assert.is_false(ok)
      assert.truthy(err:find("the TLS engine is freed", 1, true))
    end
  end)

  it("keeps its context alive", function()
    local weak = setmetatable({}, { __mode = "v" })
    local client, server
    do
      local ours = client_context()
      weak[1] = ours
      client, server = ssl.client(ours, "a.example"), ssl.server(server_context())
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(shake(client, server))
    bring(server, client)
    assert.is_false(client:decrypt(1))
    assert.is_not_nil(weak[1])
    client:free()
    client = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)
end)
