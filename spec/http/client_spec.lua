-- Clients: what they keep between requests, redirects, and how many go at once.
local agather = require "agather"
local net = require "spec.support.net"
local servers = require "spec.support.servers"
local support = require "spec.support"

local http = agather.http

local function fine(_, stream)
  servers.respond(stream, "200 OK", nil, "fine")
  return true
end

-- Answers by path: path -> function(request, stream), or the status line and headers of a redirect.
local function routes(table_of)
  return function(request, stream)
    local route = table_of[request.target:match("^[^?]*")]
    if type(route) == "function" then return route(request, stream) end
    if route then
      servers.respond(stream, route[1], route[2])
    else
      servers.respond(stream, "200 OK", nil, "at " .. request.target)
    end
    return true
  end
end

local function moved(status, location) return { status, "Location: " .. location .. "\r\n" } end

describe("a client", function()
  it("puts its base before relative URLs, and nothing before others", function()
    servers.with(routes {}, function(base, state)
      local client <close> = http.Client { base_url = base .. "/api/" }
      assert.equal("at /api/users", client:get("users"):text())
      assert.equal("at /api/users", client:get("/users"):text())
      assert.equal("at /api/?a=1", client:get("?a=1"):text())
      assert.equal("at /api/", client:get(""):text())
      assert.equal("at /other", client:get(base .. "/other"):text())
      assert.equal(5, #state.requests)
    end)
  end)

  it("sends its headers with each request, and those of a request in their place", function()
    servers.with(fine, function(base, state)
      local client <close> = http.Client { headers = { A = "client", B = "client" } }
      client:get(base, { headers = { b = "request" } })
      client:get(base)
      assert.equal("client", state.requests[1].headers.a)
      assert.equal("request", state.requests[1].headers.b)
      assert.equal("client", state.requests[2].headers.b)
    end)
  end)

  it("uses one connection again and again", function()
    servers.with(fine, function(base, state)
      local client <close> = http.Client {}
      for _ = 1, 5 do client:get(base) end
      assert.equal(1, state.connections)
    end)
  end)

  it("keeps no connection that may not be idle at all", function()
    servers.with(fine, function(base, state)
      local client <close> = http.Client { limits = { keepalive_expiry = 0 } }
      for _ = 1, 3 do client:get(base) end
      assert.equal(3, state.connections)
    end)
  end)

  it("makes a new connection when the old one has been closed meanwhile", function()
    local keep = false
    servers.with(function(_, stream)
      servers.respond(stream, "200 OK", nil, "fine")
      return keep
    end, function(base, state)
      local client <close> = http.Client {}
      for round = 1, 5 do
        assert.equal("fine", client:post(base, { body = "x" }):text())
        if round % 2 == 0 then agather.sleep(0.01) end
      end
      assert.equal(5, #state.requests)
    end)
  end)

  it("has no more requests under way than its limit, and none waits for ever", function()
    local now, most = 0, 0
    servers.with(function(_, stream)
      now = now + 1
      most = math.max(most, now)
      agather.sleep(0.005)
      now = now - 1
      servers.respond(stream, "200 OK")
      return true
    end, function(base)
      for _, limits in ipairs { { max_connections = 3 }, { max_per_host = 3, max_connections = 50 } } do
        local client <close> = http.Client { limits = limits }
        most = 0
        local jobs = {}
        for i = 1, 20 do jobs[i] = function() return client:get(base).status end end
        local results = agather.gather_list(jobs):await()
        assert.equal(3, most)
        assert.equal(20, results.n)
        local slow = agather.spawn(client.get, client, base)
        support.turns(2)
        slow:cancel() -- gives its place back
        local waiting = agather.spawn(client.get, client, base, { timeout = 5 })
        assert.equal(200, waiting:await().status)
      end
    end)
  end)

  it("waits for a place no longer than the request may take", function()
    servers.with(function() agather.sleep(10) end, function(base)
      local client <close> = http.Client { limits = { max_connections = 1 } }
      local first = agather.spawn(client.get, client, base)
      support.turns(2)
      local err = support.raises("no complete response after 0.02 s", client.get, client, base, { timeout = 0.02 })
      assert.is_true(agather.is_error(err, agather.TimeoutError))
      first:cancel()
    end)
  end)

  it("keeps cookies by the rules of their domain and path, unless told not to", function()
    servers.with(routes {
      ["/set"] = { "200 OK", "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Path=/only\r\nSet-Cookie: c=3; Domain=example.org\r\n" },
    }, function(base, state)
      local client <close> = http.Client {}
      client:get(base .. "/set")
      client:get(base .. "/x")
      client:get(base .. "/only/x", { cookies = { mine = "yes" } })
      assert.equal("a=1", state.requests[2].headers.cookie)
      assert.truthy(state.requests[3].headers.cookie:find("a=1", 1, true))
      assert.truthy(state.requests[3].headers.cookie:find("b=2", 1, true))
      assert.truthy(state.requests[3].headers.cookie:find("mine=yes", 1, true))
      local names = {}
      for _, cookie in ipairs(client:cookies()) do names[cookie.name] = cookie end
      assert.equal("1", names.a.value)
      assert.equal("/only", names.b.path)
      assert.equal("127.0.0.1", names.a.domain)
      assert.is_nil(names.c)
      local forgetful <close> = http.Client { cookies = false }
      forgetful:get(base .. "/set")
      forgetful:get(base .. "/x")
      http.get(base .. "/set")
      http.get(base .. "/x")
      for place = 4, 7 do assert.is_nil(state.requests[place].headers.cookie) end
    end)
  end)

  it("starts with the cookies given, for its base only", function()
    servers.with(fine, function(base, state)
      local other, other_state = servers.own(fine)
      other = other:gsub("127.0.0.1", "localhost")
      local client <close> = http.Client { base_url = base, cookies = { session = "x1" } }
      client:get("/")
      client:get(other)
      assert.equal("session=x1", state.requests[1].headers.cookie)
      assert.is_nil(other_state.requests[1].headers.cookie)
      support.raises("needs 'base_url'", http.Client, { cookies = { a = "b" } })
    end)
  end)

  it("sends user and password, or a token", function()
    servers.with(fine, function(base, state)
      local client <close> = http.Client { auth = { "user", "pass" } }
      client:get(base)
      assert.equal("Basic dXNlcjpwYXNz", state.requests[1].headers.authorization)
      client:get(base, { auth = { bearer = "t0k" } })
      assert.equal("Bearer t0k", state.requests[2].headers.authorization)
      client:get(base, { auth = false })
      assert.is_nil(state.requests[3].headers.authorization)
      local tokens <close> = http.Client { auth = { bearer = "t1" } }
      tokens:get(base)
      assert.equal("Bearer t1", state.requests[4].headers.authorization)
      tokens:get(base, { auth = false })
      assert.is_nil(state.requests[5].headers.authorization)
      tokens:get(base, { auth = { "user", "pass" } })
      assert.equal("Basic dXNlcjpwYXNz", state.requests[6].headers.authorization)
      tokens:get(base, { headers = { authorization = "Own x" }, auth = false })
      assert.equal("Own x", state.requests[7].headers.authorization)
    end)
  end)

  it("answers a digest's question, for a stream as well", function()
    servers.with(function(request, stream)
      if not request.headers.authorization then
        servers.respond(stream, "401 Who", 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n', "who?")
      else
        servers.respond(stream, "200 OK", nil, request.headers.authorization)
      end
      return true
    end, function(base)
      local options = { auth = { user = "me", password = "secret", digest = true } }
      assert.truthy(http.get(base, options):text():find('^Digest username="me"'))
      local response <close> = http.stream("POST", base, { body = "x", auth = options.auth })
      assert.equal(200, response.status)
      assert.truthy(response:text():find("^Digest"))
    end)
  end)

  it("is of no use once closed, and closed twice without harm", function()
    agather.run(function()
      local client = http.Client {}
      client:close()
      client:close()
      support.raises("the client is closed", client.get, client, "http://127.0.0.1:9/")
      assert.same({}, client:cookies())
      assert.truthy(tostring(client):find("closed"))
    end)
  end)

  it("closes idle connections with the last client", function()
    servers.with(fine, function(base, state)
      local open
      local before = servers.descriptors()
      do
        local client <close> = http.Client {}
        agather.map(function() return client:get(base) end, { 1, 2, 3 })
        open = servers.descriptors()
      end
      net.eventually(function() return servers.descriptors() <= open - 6 end, "both ends of each are closed")
      assert.equal(3, state.connections)
      assert.is_true(open > before)
    end)
  end)

  it("hands no descriptor to children of the process", function()
    servers.with(fine, function(base)
      local function inherited() return agather.process.run { "ls", "/proc/self/fd" }.stdout end
      local before = inherited()
      local client <close> = http.Client {}
      client:get(base)
      assert.equal(before, inherited())
    end)
  end)

  it("names unknown options and keys", function()
    support.raises("unknown option 'base'", http.Client, { base = "x" })
    support.raises("option 'limits': unknown key 'max'", http.Client, { limits = { max = 1 } })
    support.raises("option 'limits.max_connections' must be a whole number, got 0", http.Client,
      { limits = { max_connections = 0 } })
    support.raises("with http:// or https:// expected", http.Client, { base_url = "example.org" })
    support.raises("option 'verify' must be a string, got 5", http.Client, { verify = 5 })
    support.raises("header 'Content-Length' is not one for all requests", http.Client, { headers = { ["content-length"] = 1 } })
    support.raises("option 'cert': unknown key 'file'", http.Client, { cert = { file = "x" } })
  end)
end)

describe("a redirect", function()
  it("is followed and remembered", function()
    servers.with(routes { ["/a"] = moved("301 Moved", "/b?x=1"), ["/b"] = moved("302 Found", "c") }, function(base)
      local response = http.get(base .. "/a")
      assert.equal("at /c", response:text())
      assert.equal(base .. "/c", response.url)
      assert.equal(2, #response.history)
      assert.equal(301, response.history[1].status)
      assert.equal(base .. "/b?x=1", response.history[2].url)
      local stream <close> = http.stream("GET", base .. "/a")
      assert.equal("at /c", stream:text())
    end)
  end)

  it("is not followed when that is not wanted, or without a location", function()
    servers.with(routes { ["/a"] = moved("302 Found", "/b"), ["/none"] = { "302 Found" } }, function(base)
      assert.equal(302, http.get(base .. "/a", { follow_redirects = false }).status)
      assert.equal(302, http.get(base .. "/none").status)
    end)
  end)

  it("that leads in a circle is TooManyRedirects", function()
    servers.with(routes { ["/a"] = moved("302 Found", "/a") }, function(base, state)
      local err = support.raises("more than 10 redirects", http.get, base .. "/a")
      assert.is_true(agather.is_error(err, http.TooManyRedirects))
      assert.equal(11, #state.requests)
      support.raises("more than 2 redirects", http.get, base .. "/a", { follow_redirects = 2 })
      support.raises("more than 0 redirects", http.get, base .. "/a", { follow_redirects = { max = 0 } })
    end)
  end)

  it("changes the method as browsers do", function()
    servers.with(routes {
      ["/301"] = moved("301 Moved", "/to"), ["/303"] = moved("303 See", "/to"),
      ["/307"] = moved("307 Again", "/to"), ["/308"] = moved("308 Again", "/to"),
    }, function(base, state)
      local function last(method, path)
        http.request(method, base .. path, { json = { 1 } })
        local request = state.requests[#state.requests]
        return request.method, request.body or "", request.headers["content-type"]
      end
      assert.same({ "GET", "" }, { last("POST", "/301") })
      assert.same({ "GET", "" }, { last("PUT", "/303") })
      assert.same({ "PUT", "[1]", "application/json" }, { last("PUT", "/301") })
      assert.same({ "POST", "[1]", "application/json" }, { last("POST", "/307") })
      assert.same({ "POST", "[1]", "application/json" }, { last("POST", "/308") })
    end)
  end)

  it("sends a file again, and refuses to with what can be read once", function()
    servers.with(routes { ["/307"] = moved("307 Again", "/to") }, function(base, state)
      local path = os.tmpname()
      local out <close> = assert(io.open(path, "wb"))
      out:write("content")
      out:close()
      local file <close> = assert(io.open(path, "rb"))
      http.post(base .. "/307", { body = file })
      assert.equal("content", state.requests[2].body)
      http.post(base .. "/307", { multipart = { f = { path = path } } })
      assert.truthy(state.requests[4].body:find("\r\n\r\ncontent\r\n", 1, true))
      os.remove(path)
      local left = 1
      local err = support.raises("cannot be sent again", http.post, base .. "/307", { body = function()
        left = left - 1
        return left >= 0 and "x" or nil
      end })
      assert.is_true(agather.is_error(err, http.ProtocolError))
    end)
  end)

  it("to another host carries no secrets", function()
    agather.run(function()
      local other, other_state = servers.own(fine)
      local other_port = other
      other = other:gsub("127.0.0.1", "localhost")
      local base, state = servers.own(routes {
        ["/away"] = moved("302 Found", other .. "/there"), ["/near"] = moved("302 Found", "/here"),
        ["/port"] = moved("302 Found", other_port .. "/there"),
      })
      local client <close> = http.Client { headers = { ["X-Api-Key"] = "k", Host = "virtual.example" } }
      local options = {
        auth = { "user", "pass" }, cookies = { a = "b" }, headers = { ["X-Session-Token"] = "s", ["X-Plain"] = "p" },
      }
      client:get(base .. "/away", options)
      local there = other_state.requests[1].headers
      assert.is_nil(there.authorization)
      assert.is_nil(there.cookie)
      assert.is_nil(there["x-api-key"])
      assert.is_nil(there["x-session-token"])
      assert.equal("localhost:" .. other_state.port, there.host)
      assert.equal("p", there["x-plain"])
      client:get(base .. "/near", options)
      local here = state.requests[3].headers
      assert.equal("Basic dXNlcjpwYXNz", here.authorization)
      assert.equal("a=b", here.cookie)
      assert.equal("k", here["x-api-key"])
      assert.equal("virtual.example", here.host)
      client:get(base .. "/away", { auth = { bearer = "t" } })
      assert.is_nil(other_state.requests[2].headers.authorization)
      client:get(base .. "/port", options)
      there = other_state.requests[3].headers
      assert.is_nil(there.authorization or there.cookie or there["x-api-key"] or there["x-session-token"])
    end)
  end)

  it("to anything but http and https is refused, as is one that is no URL", function()
    servers.with(routes {
      ["/file"] = moved("302 Found", "file:///etc/passwd"), ["/ftp"] = moved("302 Found", "ftp://x/"),
      ["/bad"] = moved("302 Found", "http://[x/"),
    }, function(base)
      for _, path in ipairs { "/file", "/ftp", "/bad" } do
        local err = support.raises("redirect refused", http.get, base .. path)
        assert.is_true(agather.is_error(err, http.ProtocolError))
      end
    end)
  end)
end)

describe("a proxy", function()
  local function proxying(client)
    servers.with(function(request, stream)
      servers.respond(stream, "200 OK", nil, request.method .. " " .. request.target)
      return true
    end, client)
  end

  it("is asked for the whole URL, and no name is looked up", function()
    proxying(function(base)
      assert.equal("GET http://nosuch.invalid/x", http.get("http://nosuch.invalid/x", { proxy = base }):text())
      local client <close> = http.Client { proxy = base:gsub("127.0.0.1", "localhost") }
      assert.equal("GET http://nosuch.invalid/", client:get("http://nosuch.invalid"):text())
    end)
  end)

  it("is that of the environment, but for the hosts of no_proxy", function()
    local base, stop = servers.python {}
    if not base then return pending("python3 is missing: no proxy of the environment") end
    local output = support.script([[
      agather.run(function()
        local http = agather.http
        print(http.get("http://nosuch.invalid/x").status)
        print(pcall(http.get, "http://sub.direct.invalid/"))
        print(pcall(http.get, "http://nosuch.invalid/x", { proxy = false }))
      end)
    ]], "http_proxy=" .. base .. " no_proxy=other,direct.invalid")
    stop()
    assert.truthy(output:find("^404\n"), output)
    assert.truthy(output:find("cannot resolve sub.direct.invalid", 1, true), output)
    assert.truthy(output:find("cannot resolve nosuch.invalid", 1, true), output)
  end)

  it("is a tunnel for TLS, and sees neither headers nor the certificate", function()
    local nginx = servers.nginx { ["hello.txt"] = "hello" }
    if not nginx then return pending("nginx is missing") end
    local function pump(from, to)
      agather.pcall(function()
        for piece in function() return from:read(65536) end do to:write(piece) end
        to:shutdown()
      end)
    end
    local ok, err = pcall(servers.with, function(request, stream)
      if request.target ~= "localhost:" .. nginx.tls_port then
        return servers.respond(stream, "403 Elsewhere")
      end
      local there <close> = agather.net.connect("127.0.0.1", nginx.tls_port)
      stream:write("HTTP/1.1 200 Go\r\nX-From: proxy\r\n\r\n")
      local back = agather.spawn(pump, there, stream)
      pump(stream, there)
      back:await()
    end, function(base, state)
      local through = { proxy = base:gsub("//", "//me:pass@"), verify = nginx.ca, headers = { Secret = "x" } }
      local response = http.get(nginx.tls_url .. "/hello.txt", through)
      assert.equal("hello", response:text())
      assert.is_nil(response.headers["X-From"])
      local request = state.requests[1]
      assert.equal("CONNECT", request.method)
      assert.equal("Basic bWU6cGFzcw==", request.headers["proxy-authorization"])
      assert.is_nil(request.headers.secret)
      local stream_of <close> = http.stream("GET", nginx.tls_url .. "/hello.txt", through)
      assert.equal("hello", stream_of:text())
      local problem = support.raises("403", http.get, "https://elsewhere.invalid/", through)
      assert.is_nil(tostring(problem):find("pass@", 1, true))
    end)
    nginx.stop()
    assert.is_true(ok, err)
  end)

  it("of SOCKS is given the name, and passes bytes on", function()
    agather.run(function()
      local base, state = servers.own(fine)
      local asked
      local bound = agather.future()
      agather.spawn(agather.net.serve, "127.0.0.1", 0, function(stream)
        stream:read_exactly(stream:read_exactly(2):byte(2))
        stream:write("\5\0")
        local kind, length = select(4, stream:read_exactly(5):byte(1, 5))
        asked = kind == 3 and stream:read_exactly(length)
        stream:read_exactly(2)
        stream:write("\5\0\0\1\127\0\0\1\0\0")
        local there <close> = agather.net.connect("127.0.0.1", state.port)
        there:write(stream:read_until("\r\n\r\n"))
        stream:write(there:read_until("fine"))
      end, { on_listen = function(listener) bound:set_result(select(2, listener:local_address())) end })
      local port = bound:await()
      for _, scheme in ipairs { "socks5", "socks5h" } do
        asked = nil
        local url = "http://nosuch.invalid" .. base:match(":%d+$")
        assert.equal("fine", http.get(url, { proxy = ("%s://127.0.0.1:%d"):format(scheme, port) }):text())
        assert.equal("nosuch.invalid", asked)
      end
    end)
  end)

  it("that cannot be reached is a ConnectError", function()
    agather.run(function()
      local err = support.raises("", http.get, "http://nosuch.invalid/", { proxy = "http://127.0.0.1:1" })
      assert.is_true(agather.is_error(err, http.ConnectError))
    end)
  end)
end)

describe("an error", function()
  it("of the status is raised when asked for", function()
    servers.with(routes { ["/no"] = { "404 Not Here" }, ["/bad"] = { "500 " } }, function(base)
      local response = http.get(base .. "/no")
      local err = support.raises("GET " .. base .. "/no: 404 Not Here", response.raise_for_status, response)
      assert.is_true(agather.is_error(err, http.HTTPStatusError))
      assert.is_true(agather.is_error(err, http.Error))
      assert.equal(404, err.status)
      assert.equal(response, err.response)
      support.raises(": 500", function() http.get(base .. "/bad"):raise_for_status() end)
      local good = http.get(base)
      assert.equal(good, good:raise_for_status())
    end)
  end)

  it("of a connection is a ConnectError, with the cause", function()
    agather.run(function()
      local err = support.raises("GET http://127.0.0.1:1/: ", http.get, "http://127.0.0.1:1/")
      assert.is_true(agather.is_error(err, http.ConnectError))
      assert.truthy(err.cause:find("connect"))
      assert.equal("ECONNREFUSED", err.code)
      assert.equal("integer", math.type(err.errno))
      err = support.raises("cannot resolve nosuch.invalid", http.get, "http://nosuch.invalid/")
      assert.is_true(agather.is_error(err, http.ConnectError))
    end)
  end)

  it("of JSON names the request and the place", function()
    servers.with(function(_, stream) servers.respond(stream, "200 OK", nil, '{"a": }') end, function(base)
      local err = support.raises("line 1, column", function() http.get(base):json() end)
      assert.truthy(tostring(err):find("GET " .. base, 1, true))
    end)
    servers.with(function(_, stream) servers.respond(stream, "200 OK", nil, '{"a": [1, 2.5]}') end, function(base)
      assert.same({ a = { 1, 2.5 } }, http.get(base):json())
    end)
  end)
end)
