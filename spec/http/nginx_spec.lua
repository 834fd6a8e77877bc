-- Real servers: nginx with TLS and HTTP/2 under a certificate authority of our own, and python3's http.server.
local agather = require "agather"
local servers = require "spec.support.servers"
local support = require "spec.support"

local http = agather.http

local large = ("0123456789abcdef"):rep(1 << 16) -- 1 MiB
local nginx

describe("nginx", function()
  setup(function()
    nginx = servers.nginx { ["hello.txt"] = "hello", ["large.txt"] = large, ["a.json"] = '{"id": 7}', ["private/x"] = "secret" }
  end)
  teardown(function() if nginx then nginx.stop() end end)

  local function with(client)
    return function()
      if not nginx then return pending("nginx or openssl is missing") end
      agather.run(client)
    end
  end

  it("gives files, compressed ones too, over one connection", with(function()
    local client <close> = http.Client { base_url = nginx.url }
    assert.equal("hello", client:get("hello.txt"):text())
    local response = client:get("large.txt")
    assert.equal("gzip", response.headers["Content-Encoding"])
    assert.is_true(response:text() == large)
    assert.same({ id = 7 }, client:get("a.json"):json())
    assert.equal(404, client:get("none").status)
    assert.equal(5, #client:get("hello.txt", { headers = { Range = "bytes=0-4" } }):text())
  end))

  it("is trusted over TLS with its authority, and not without", with(function()
    local client <close> = http.Client { base_url = nginx.tls_url, verify = nginx.ca }
    assert.equal("hello", client:get("hello.txt"):text())
    local err = support.raises("certificate", http.get, nginx.tls_url .. "/hello.txt")
    assert.is_true(agather.is_error(err, http.TLSError))
    assert.is_true(agather.is_error(err, agather.TLSError))
    assert.equal("hello", http.get(nginx.tls_url .. "/hello.txt", { verify = false }):text())
  end))

  it("is not trusted under another name than its certificate's", with(function()
    local err = support.raises("127.0.0.2", http.get, (nginx.tls_url:gsub("localhost", "127.0.0.2")), { verify = nginx.ca })
    assert.is_true(agather.is_error(err, http.TLSError))
  end))

  it("that does not speak TLS where it should is a TLSError, and a file of certificates that is missing", with(function()
    local err = support.raises("", http.get, (nginx.url:gsub("^http:", "https:")))
    assert.is_true(agather.is_error(err, http.TLSError))
    err = support.raises("", http.get, nginx.tls_url, { verify = "/nowhere/ca.pem" })
    assert.is_true(agather.is_error(err, http.TLSError))
  end))

  it("speaks HTTP/2 when asked: many requests over one connection", with(function()
    local client <close> = http.Client { base_url = nginx.tls_url, verify = nginx.ca, http2 = true }
    assert.equal("2", client:get("hello.txt").http_version)
    local before = servers.descriptors()
    local responses = agather.map(function() return client:get("hello.txt") end, (function()
      local items = {}
      for i = 1, 300 do items[i] = i end
      return items
    end)(), { limit = 100 })
    for i = 1, 300 do
      assert.equal("2", responses[i].http_version)
      assert.equal("hello", responses[i]:text())
    end
    assert.is_true(servers.descriptors() <= before + 1)
    assert.equal("1.1", http.get(nginx.tls_url .. "/hello.txt", { verify = nginx.ca }).http_version)
  end))

  it("waits for slow readers of HTTP/2, beside whom others go on", with(function()
    local client <close> = http.Client { base_url = nginx.tls_url, verify = nginx.ca, http2 = true }
    local slow <close> = client:stream("GET", "large.txt", { headers = { ["Accept-Encoding"] = "identity" } })
    local next_piece = slow:chunks()
    local taken = #next_piece()
    for _ = 1, 20 do assert.equal("hello", client:get("hello.txt"):text()) end
    for piece in next_piece do taken = taken + #piece end
    assert.equal(#large, taken)
  end))

  it("sees requests of HTTP/2 cancelled, and the connection goes on", with(function()
    local client <close> = http.Client { base_url = nginx.tls_url, verify = nginx.ca, http2 = true }
    client:get("hello.txt")
    for turns = 0, 20 do
      local tasks = {}
      for i = 1, 5 do tasks[i] = agather.spawn(client.get, client, "large.txt") end
      support.turns(turns)
      for _, task in ipairs(tasks) do task:cancel() end
      agather.wait(tasks)
    end
    assert.equal("hello", client:get("hello.txt"):text())
  end))

  it("asks for user and password", with(function()
    local private = nginx.url .. "/private/x"
    assert.equal(401, http.get(private).status)
    assert.equal("secret", http.get(private, { auth = { "user", "pass word" } }):text())
    assert.equal("secret", http.get((private:gsub("//", "//user:pass%%20word@"))):text())
  end))

  it("redirects: to https is followed, back to http only when that is allowed", with(function()
    local client <close> = http.Client { verify = nginx.ca }
    local response = client:get(nginx.url .. "/secure")
    assert.equal("hello", response:text())
    assert.equal(nginx.tls_url .. "/hello.txt", response.url)
    local err = support.raises("from https to http", client.get, client, nginx.tls_url .. "/plain")
    assert.is_true(agather.is_error(err, http.ProtocolError))
    assert.equal("hello", client:get(nginx.tls_url .. "/plain", { follow_redirects = { allow_downgrade = true } }):text())
  end))

  it("refuses what it does not take, in the middle of a large upload", with(function()
    local response = http.post(nginx.url .. "/hello.txt", { body = ("x"):rep(4 << 20) })
    assert.is_true(response.status == 413 or response.status == 405, response.status)
    for _, options in ipairs { {}, { http2 = true } } do
      local left = 200
      options.verify = nginx.ca
      options.body = function()
        left = left - 1
        if left % 10 == 0 then agather.sleep(0) end
        return left >= 0 and ("y"):rep(1000) or nil
      end
      assert.equal(405, http.post(nginx.tls_url .. "/hello.txt", options).status)
    end
  end))
end)

describe("python3 -m http.server", function()
  it("answers two hundred requests at once", function()
    local files = {}
    for id = 1, 200 do files[id .. ".json"] = ('{"id": %d, "title": "post %d"}'):format(id, id) end
    local base, stop = servers.python(files)
    if not base then return pending("python3 is missing") end
    local ok, err = pcall(agather.run, function()
      local client <close> = http.Client { base_url = base, limits = { max_connections = 200 } }
      local jobs = {}
      for id = 1, 200 do jobs[id] = function() return client:get(id .. ".json"):raise_for_status():json() end end
      local posts = agather.gather_list(jobs):await()
      for id = 1, 200 do assert.same({ id = id, title = "post " .. id }, posts[id]) end
      assert.equal("1.0", client:get("1.json").http_version)
      support.raises("404 File not found", function() client:get("201.json"):raise_for_status() end)
    end)
    stop()
    assert.is_true(ok, err)
  end)
end)
