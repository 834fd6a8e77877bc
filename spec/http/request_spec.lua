-- What goes out: methods, headers, parameters and bodies, seen by a server that looks at each byte.
local agather = require "agather"
local net = require "spec.support.net"
local servers = require "spec.support.servers"
local support = require "spec.support"

local http = agather.http

local function ok(_, stream)
  servers.respond(stream, "200 OK", nil, "fine")
  return true
end

-- Makes one request and returns what the server saw, and the response.
local function seen(make)
  return servers.with(ok, function(base, state)
    local response = make(base)
    return state.requests[1], response
  end)
end

describe("a request", function()
  it("brings status, reason, headers, version, url and text", function()
    servers.with(function(_, stream)
      servers.respond(stream, "201 Made Here", "X-One: 1\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n", "body")
    end, function(base)
      local response = http.get(base .. "/path?q=1#fragment")
      assert.equal(201, response.status)
      assert.equal("Made Here", response.reason)
      assert.equal("1", response.headers["x-one"])
      assert.same({ "a=1", "b=2" }, response.headers:get_all("SET-COOKIE"))
      assert.equal("1.1", response.http_version)
      assert.equal(base .. "/path?q=1", response.url)
      assert.equal("body", response:text())
      assert.same({}, response.history)
      assert.is_true(response.elapsed > 0 and response.elapsed < 5)
      assert.equal("GET", response.request.method)
    end)
  end)

  it("has the method that was asked for", function()
    for _, name in ipairs { "get", "post", "put", "patch", "delete", "options" } do
      local request = seen(function(base) return http[name](base) end)
      assert.equal(name:upper(), request.method)
    end
    assert.equal("PROPFIND", seen(function(base) return http.request("PROPFIND", base) end).method)
  end)

  it("with HEAD does not wait for a body", function()
    local request, response = seen(function(base) return http.head(base) end)
    assert.equal("HEAD", request.method)
    assert.equal("", response:text())
  end)

  it("without a body has a length of 0 where one could be, and none elsewhere", function()
    local post = seen(function(base) return http.post(base) end)
    assert.equal("0", post.headers["content-length"])
    assert.is_nil(post.headers["content-type"])
    assert.is_nil(seen(function(base) return http.get(base) end).headers["content-length"])
  end)

  it("encodes parameters behind those of the URL", function()
    local request = seen(function(base)
      return http.get(base .. "/p?x=1", { params = { a = "b c&d", list = { 1, 2 }, yes = true } })
    end)
    assert.equal("/p?x=1&a=b%20c%26d&list=1&list=2&yes=true", request.target)
    request = seen(function(base) return http.get(base .. "/", { params = { { "z", 1 }, { "a", 2.5 } } }) end)
    assert.equal("/?z=1&a=2.5", request.target)
  end)

  it("encodes spaces and other scripts in a path", function()
    assert.equal("/a%20b/%C3%A9?q=%20", seen(function(base) return http.get(base .. "/a b/é?q= ") end).target)
  end)

  it("sends headers as given, repeated ones too, and defaults beside them", function()
    local request = seen(function(base)
      return http.get(base, { headers = { ["X-Many"] = { "1", "2" }, ["X-Empty"] = "", ["X-Number"] = 7 } })
    end)
    assert.equal("1, 2", request.headers["x-many"])
    assert.equal("", request.headers["x-empty"])
    assert.equal("7", request.headers["x-number"])
    assert.truthy(request.headers["user-agent"]:find("^agather/"))
    assert.truthy(request.headers["accept-encoding"]:find("gzip"))
    assert.equal("other", seen(function(base)
      return http.get(base, { headers = { ["user-AGENT"] = "other" } })
    end).headers["user-agent"])
  end)

  it("sends JSON, forms and strings with their types", function()
    local request = seen(function(base) return http.post(base, { json = { a = { 1, 2 } } }) end)
    assert.equal('{"a":[1,2]}', request.body)
    assert.equal("application/json", request.headers["content-type"])
    request = seen(function(base) return http.post(base, { form = { a = "b c", d = "é" } }) end)
    assert.equal("a=b+c&d=%C3%A9", request.body)
    assert.equal("application/x-www-form-urlencoded", request.headers["content-type"])
    request = seen(function(base)
      return http.put(base, { body = "a\0b", headers = { ["Content-Type"] = "text/x" } })
    end)
    assert.equal("a\0b", request.body)
    assert.equal("text/x", request.headers["content-type"])
    assert.is_nil(seen(function(base) return http.post(base, { body = "x" }) end).headers["content-type"])
  end)

  it("sends a large string without asking first", function()
    local large = ("0123456789abcdef"):rep(1 << 17)
    local request = seen(function(base) return http.post(base, { body = large }) end)
    assert.is_true(request.body == large)
    assert.is_nil(request.headers.expect)
  end)

  it("asks a function for pieces of the body, which may wait", function()
    local pieces, place = { "one ", "", "two ", "three" }, 0
    local request, response = seen(function(base)
      return http.post(base, { body = function()
        place = place + 1
        agather.sleep(0.005)
        return pieces[place]
      end })
    end)
    assert.equal("one two three", request.body)
    assert.equal("chunked", request.headers["transfer-encoding"])
    assert.equal("fine", response:text())
  end)

  it("has the length that the headers say of a function's body", function()
    local left = 2
    local function reader()
      left = left - 1
      return left >= 0 and "abc" or nil
    end
    local request = seen(function(base)
      return http.put(base, { body = reader, headers = { ["Content-Length"] = "6" } })
    end)
    assert.equal("6", request.headers["content-length"])
    assert.equal("abcabc", request.body)
    for _, wrong in ipairs { "7", "5" } do
      left = 2
      servers.with(ok, function(base)
        local err = support.raises(("not %s bytes"):format(wrong), http.put, base,
          { body = reader, headers = { ["Content-Length"] = wrong } })
        assert.is_true(agather.is_error(err, http.Error))
      end)
    end
  end)

  it("raises what a function for the body raises, and what is not a string", function()
    servers.with(ok, function(base)
      support.raises("no more", http.post, base, { body = function() error("no more", 0) end })
      support.raises("must return a string or nil, got table", http.post, base, { body = function() return {} end })
    end)
  end)

  it("sends an open file with its length", function()
    local path = os.tmpname()
    local out <close> = assert(io.open(path, "wb"))
    local text = ("line\n"):rep(40000)
    out:write(text)
    out:close()
    local file <close> = assert(io.open(path, "rb"))
    local request = seen(function(base) return http.put(base, { body = file }) end)
    assert.equal(tostring(#text), request.headers["content-length"])
    assert.is_true(request.body == text)
    os.remove(path)
  end)

  it("sends a file of agather.fs from where it stands", function()
    local path = os.tmpname()
    agather.run(function() agather.fs.write_file(path, ("0123456789"):rep(20000)) end)
    local request = seen(function(base)
      local file <close> = agather.fs.open(path)
      file:seek("set", 5)
      return http.post(base, { body = file })
    end)
    assert.equal("199995", request.headers["content-length"])
    assert.equal("56789012", request.body:sub(1, 8))
    os.remove(path)
  end)

  it("closes the files of multipart, also when it fails or is cancelled", function()
    local path, arrived = os.tmpname(), false
    servers.with(function(_, stream)
      arrived = true
      agather.sleep(60)
      return servers.respond(stream, "200 OK")
    end, function(base)
      local options = { multipart = { f = { path = path } } }
      local task = agather.spawn(http.post, base, options)
      net.eventually(function() return arrived end, "the request has come")
      local before = servers.descriptors()
      for _ = 1, 5 do
        support.raises("", http.post, "http://127.0.0.1:1/", options)
        support.raises("ENOENT", http.post, base, { multipart = { a = { path = path }, b = { path = "/nowhere/x" } } })
      end
      task:cancel()
      pcall(agather.await, task)
      assert.is_true(servers.descriptors() < before)
    end)
    os.remove(path)
  end)

  it("sends multipart fields and files", function()
    local path = os.tmpname()
    local out <close> = assert(io.open(path, "wb"))
    out:write("file content")
    out:close()
    local request = seen(function(base)
      return http.post(base, { multipart = {
        a = "1", b = { data = "x,y", filename = 'q"uote.csv', content_type = "text/csv" }, c = { path = path },
      } })
    end)
    local boundary = request.headers["content-type"]:match("^multipart/form%-data; boundary=(.+)$")
    assert.equal(("--%s\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n"
      .. "--%s\r\nContent-Disposition: form-data; name=\"b\"; filename=\"q%%22uote.csv\"\r\nContent-Type: text/csv\r\n\r\nx,y\r\n"
      .. "--%s\r\nContent-Disposition: form-data; name=\"c\"; filename=\"%s\"\r\nContent-Type: application/octet-stream\r\n\r\n"
      .. "file content\r\n--%s--\r\n"):format(boundary, boundary, boundary, path:match("[^/]*$"), boundary), request.body)
    assert.equal(tostring(#request.body), request.headers["content-length"])
    os.remove(path)
  end)

  it("uses user and password of the URL and shows them nowhere", function()
    servers.with(ok, function(base, state)
      local response = http.get((base:gsub("//", "//me:s%%65cret@")))
      assert.equal("Basic bWU6c2VjcmV0", state.requests[1].headers.authorization)
      assert.is_nil(response.url:find("secret"))
      local err = support.raises("Could", http.get, "http://me:s%65cret@127.0.0.1:1/")
      assert.is_nil(tostring(err):find("cret"))
      assert.is_nil(err.url:find("cret"))
    end)
  end)
end)

describe("a request is refused", function()
  local function refused(text, ...)
    local arguments = table.pack(...)
    agather.run(function() support.raises(text, http.request, table.unpack(arguments, 1, arguments.n)) end)
  end

  it("when a header, method or URL holds a line end or NUL", function()
    local url = "http://127.0.0.1:9/"
    for _, bad in ipairs { "a\r\nX: y", "a\nb", "a\rb", "a\0b" } do
      refused("must not hold CR, LF or NUL", "GET", url, { headers = { X = bad } })
      refused("is no name of a header", "GET", url, { headers = { [bad] = "x" } })
      refused("is no method", bad, url)
      refused("bad URL", "GET", url .. bad)
      refused("bad URL", "GET", "http://" .. bad .. "/")
      refused("must not hold CR, LF or NUL", "GET", url, { auth = { bearer = bad } })
      refused("must not hold CR, LF or NUL", "GET", url, { auth = { "user", bad } })
      refused("cookies", "GET", url, { cookies = { a = bad } })
      refused("", "GET", url, { proxy = "http://" .. bad })
    end
    refused("is no method", "GET /x", url)
    refused("is no name of a header", "GET", url, { headers = { ["a b"] = "x" } })
  end)

  it("when the URL is none, or not of http and https", function()
    refused("URL expected, got nil", "GET", nil)
    refused("with http:// or https:// expected", "GET", "example.org")
    refused("is not http or https", "GET", "file:///etc/passwd")
    refused("is not http or https", "GET", "ftp://example.org/")
    refused("bad URL", "GET", "http://")
    refused("bad URL", "GET", "http://[::1/")
    refused("bad URL", "GET", "http://a%7f.example/")
    refused("it holds a byte that no URL has", "GET", "http://[fe80::1%25e\xffth0]/")
    refused("bad URL", "GET", "http://host:99999/")
  end)

  it("without leaving memory behind, also of a host that has no punycode", function()
    if servers.slow then return end -- what sanitizers keep is no leak
    local parse = require("agather.http.url").parse
    local function pages()
      collectgarbage()
      local file <close> = assert(io.open("/proc/self/statm"))
      return select(2, file:read("n", "n"))
    end
    local function refuse(count)
      for _ = 1, count do assert.is_nil(parse("http://" .. ("%ff"):rep(2000) .. "/")) end
    end
    refuse(3000)
    local before = pages()
    refuse(3000)
    assert.is_true(pages() - before < 700)
  end)

  it("when an option is unknown, of a wrong type, or excludes another", function()
    local url = "http://127.0.0.1:9/"
    refused("unknown option 'jason'", "GET", url, { jason = {} })
    refused("table of options expected, got number", "GET", url, 5)
    refused("options 'form' and 'json' exclude each other", "POST", url, { json = {}, form = {} })
    refused("option 'timeout' must be a positive number, got 0", "GET", url, { timeout = 0 })
    refused("option 'timeout': unknown key 'conect'", "GET", url, { timeout = { conect = 1 } })
    refused("option 'max_body' must be", "GET", url, { max_body = -1 })
    refused("option 'follow_redirects' must be", "GET", url, { follow_redirects = "yes" })
    refused("option 'body' must be a string, a function or an open file, got boolean", "POST", url, { body = true })
    refused("option 'json': JSON: value.f is a function", "POST", url, { json = { f = print } })
    refused("option 'params' must be a table", "GET", url, { params = "a=b" })
    refused("header 'X' must be a string, got boolean", "GET", url, { headers = { X = true } })
    refused("'Transfer-Encoding' is set by the client", "POST", url, { headers = { ["transfer-encoding"] = "x" } })
    refused("'Content-Length' is for a body", "POST", url, { body = "x", headers = { ["Content-Length"] = 5 } })
    refused("needs one of data, path and file", "POST", url, { multipart = { a = {} } })
    refused("option 'proxy': its scheme", "GET", url, { proxy = "ftp://x" })
    refused("option 'http2' must be", "GET", url, { http2 = 2 })
    refused("HEAD has no body", "HEAD", url, { body = "x" })
    refused("HEAD has no body", "head", url, { body = "x" })
    refused("CONNECT is for proxies", "CONNECT", url)
  end)

  it("outside a task", function()
    support.raises("get: use it inside a task", http.get, "http://127.0.0.1:9/")
  end)

  it("with the line of the script in the message", function()
    agather.run(function()
      local _, err = pcall(function() http.get("nowhere") end)
      assert.truthy(tostring(err):find("request_spec.lua:%d+: bad argument #1 to 'get'"))
    end)
  end)
end)

describe("a URL", function()
  it("has the host that curl would see, also where its numbers are percent-encoded", function()
    local parse = require("agather.http.url").parse
    assert.equal("127.0.0.1", parse("http://%32130706433/").host)
    assert.equal("127.0.0.1", parse("//%30x7f.1/x", "http://a.example/").host)
    local parts = parse("http://us%65r:p%61ss@a.example/%41?%42")
    assert.same({ "user", "pass", "a.example", "/%41", "%42" }, {
      parts.user, parts.password, parts.host, parts.path, parts.query,
    })
  end)
end)
