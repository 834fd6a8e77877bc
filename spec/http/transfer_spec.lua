-- What comes in: from a server that behaves badly, in time and size; streams and back-pressure.
local agather = require "agather"
local servers = require "spec.support.servers"
local support = require "spec.support"

local http = agather.http

-- A server that answers each request with what [answer] writes, and closes.
local function with(answer, client)
  return servers.with(function(request, stream) answer(stream, request) end, client)
end

local function raw(text)
  return function(stream) stream:write(text) end
end

-- Makes a request that must fail with an error of the class, whose text holds [text]; returns the error.
local function fails(class, text, answer, options)
  return with(answer, function(base)
    local err = support.raises(text, http.get, base .. "/x", options)
    assert.is_true(agather.is_error(err, class), tostring(err))
    assert.equal("GET", err.method)
    assert.equal(base .. "/x", err.url)
    assert.is_string(err.cause)
    return err
  end)
end

local function gzip(bytes)
  local path = os.tmpname()
  os.execute(("head -c %d /dev/zero | gzip -6 > %s"):format(bytes, path))
  local file <close> = assert(io.open(path, "rb"))
  os.remove(path)
  return file:read("a")
end

-- Writes for ever, or until the peer is gone.
local function endless(stream, head, piece)
  stream:write(head)
  while true do
    stream:write(piece)
    agather.sleep(0)
  end
end

describe("a response", function()
  it("that ends early is a ProtocolError", function()
    fails(http.ProtocolError, "Empty reply", raw(""))
    fails(http.ProtocolError, "", raw("HTTP/1.1 200 OK\r\nContent-Le"))
    fails(http.ProtocolError, "bytes remaining", raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
    fails(http.ProtocolError, "", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"))
  end)

  it("that is not HTTP is a ProtocolError", function()
    fails(http.ProtocolError, "", raw("220 mail.example.org ESMTP\r\n"))
    fails(http.ProtocolError, "", raw("HTTP/1.1 abc\r\n\r\n"))
    fails(http.ProtocolError, "", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"))
    fails(http.ProtocolError, "", raw("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc"))
    fails(http.ProtocolError, "", raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"))
  end)

  it("that says more than its length gives the length", function()
    with(raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"), function(base)
      assert.equal("abc", http.get(base):text())
    end)
  end)

  it("without a length ends with the connection", function()
    with(raw("HTTP/1.0 200 OK\r\n\r\nall of it"), function(base)
      local response = http.get(base)
      assert.equal("all of it", response:text())
      assert.equal("1.0", response.http_version)
    end)
  end)

  it("may be preceded by others that are not final, and be followed by trailers", function()
    with(raw("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "3\r\nabc\r\n0\r\nX-Late: z\r\n\r\n"), function(base)
      for _, get in ipairs { function() return http.get(base) end, function() return http.stream("GET", base) end } do
        local response <close> = get()
        assert.equal(200, response.status)
        assert.is_nil(response.headers.link)
        assert.equal("y", response.headers.x)
        assert.equal("abc", response:text())
        assert.is_nil(response.headers["x-late"])
      end
    end)
  end)

  it("with a head that never ends is BodyTooLarge", function()
    fails(http.BodyTooLarge, "head of the response is too long", function(stream)
      endless(stream, "HTTP/1.1 200 OK\r\n", ("X-Padding: %s\r\n"):format(("x"):rep(1000)))
    end)
    fails(http.BodyTooLarge, "head of the response is too long", function(stream)
      endless(stream, "", "HTTP/1.1 100 Continue\r\n\r\n")
    end)
  end)

  it("longer than max_body is BodyTooLarge, and no more than that is kept", function()
    local answer = function(stream) endless(stream, "HTTP/1.1 200 OK\r\n\r\n", ("x"):rep(10000)) end
    fails(http.BodyTooLarge, "longer than 100000 bytes", answer, { max_body = 100000 })
    with(raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"), function(base)
      assert.equal("abcd", http.get(base, { max_body = 4 }):text())
      support.raises("longer than 3 bytes", http.get, base, { max_body = 3 })
    end)
  end)

  it("that is a bomb of gzip is BodyTooLarge, long before it is unpacked", function()
    local bomb = gzip(70 << 20)
    local answer = function(stream)
      servers.respond(stream, "200 OK", "Content-Encoding: gzip\r\n", bomb)
    end
    fails(http.BodyTooLarge, "longer than 1048576 bytes", answer, { max_body = 1 << 20 })
    fails(http.BodyTooLarge, "longer than 67108864 bytes", answer)
    with(answer, function(base)
      local response <close> = http.stream("GET", base, { max_body = 1 << 20 })
      local err = support.raises("longer than", function() for _ in response:chunks() do agather.sleep(0) end end)
      assert.is_true(agather.is_error(err, http.BodyTooLarge))
    end)
  end)

  it("is unpacked", function()
    local packed = gzip(5000)
    with(function(stream) servers.respond(stream, "200 OK", "Content-Encoding: gzip\r\n", packed) end, function(base)
      assert.equal(("\0"):rep(5000), http.get(base):text())
    end)
  end)
end)

describe("a time limit", function()
  local function silent() agather.sleep(10) end

  it("ends a request that gets no answer", function()
    local err = fails(http.TimeoutError, "no complete response after 0.05 s", silent, { timeout = 0.05 })
    assert.equal("total", err.phase)
    assert.is_true(agather.is_error(err, agather.TimeoutError))
  end)

  it("ends one that gets its answer too slowly", function()
    fails(http.TimeoutError, "no complete response", function(stream)
      stream:write("HTTP/1.1 200 OK\r\n\r\n")
      while true do
        stream:write("x")
        agather.sleep(0.01)
      end
    end, { timeout = { total = 0.1, read = 0.05 } })
  end)

  it("of reading ends one whose server goes silent, and counts anew with each byte", function()
    local err = fails(http.TimeoutError, "no byte for 0.06 s", function(stream)
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
      for _ = 1, 6 do
        stream:write("x")
        agather.sleep(0.02)
      end
      agather.sleep(10)
    end, { timeout = { read = 0.06, total = 5 } })
    assert.equal("read", err.phase)
  end)

  it("of connecting ends one that gets no connection, or none of TLS", function()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0) -- nobody accepts, nor says anything of TLS
      local _, port = listener:local_address()
      local err = support.raises("no connection after 0.05 s", http.get, "https://127.0.0.1:" .. port,
        { timeout = { connect = 0.05 } })
      assert.equal("connect", err.phase)
    end)
  end)

  it("of the scope around a request ends it, too", function()
    with(silent, function(base)
      local err = support.raises("", function()
        local _ <close> = agather.timeout(0.03)
        http.get(base)
      end)
      assert.is_true(agather.is_error(err, agather.TimeoutError))
    end)
  end)

  it("does not end an upload that goes on, however slowly", function()
    servers.with(function(_, stream) servers.respond(stream, "200 OK") end, function(base)
      local left = 4
      local response = http.post(base, { timeout = { read = 0.05 }, body = function()
        agather.sleep(0.03)
        left = left - 1
        return left > 0 and "x" or nil
      end })
      assert.equal(200, response.status)
    end)
  end)
end)

describe("a stream", function()
  it("is there with its head, and gives pieces as they come", function()
    local go_on = nil
    with(function(stream)
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
      go_on:await()
      stream:write("abc")
      agather.sleep(0.02)
      stream:write("def")
    end, function(base)
      go_on = agather.future()
      local response <close> = http.stream("GET", base)
      assert.equal(200, response.status)
      go_on:set_result()
      local pieces = {}
      for piece in response:chunks() do pieces[#pieces + 1] = piece end
      assert.same({ "abc", "def" }, pieces)
      assert.equal("", response:text())
    end)
  end)

  it("gives pieces of a length, lines, and text", function()
    with(function(stream) servers.respond(stream, "200 OK", nil, "one\r\ntwo\n\nlast") end, function(base)
      local function collect(how, ...)
        local response <close> = http.stream("GET", base)
        local list = {}
        for piece in response[how](response, ...) do list[#list + 1] = piece end
        return list
      end
      assert.same({ "one\r\nt", "wo\n\nla", "st" }, collect("chunks", 6))
      assert.same({ "one", "two", "", "last" }, collect("lines"))
      local response = http.get(base)
      local list = {}
      for line in response:lines() do list[#list + 1] = line end
      assert.same({ "one", "two", "", "last" }, list)
      local pieces = {}
      for piece in http.get(base):chunks(5) do pieces[#pieces + 1] = piece end
      assert.same({ "one\r\n", "two\n\n", "last" }, pieces)
      assert.error_matches(function() response:chunks(0) end, "positive integer expected")
    end)
  end)

  it("makes the server wait while its pieces are not taken", function()
    local written = 0
    with(function(stream)
      local piece = ("x"):rep(65536)
      stream:write("HTTP/1.1 200 OK\r\n\r\n")
      for _ = 1, 1000 do
        stream:write(piece)
        written = written + #piece
      end
    end, function(base)
      local response <close> = http.stream("GET", base, { timeout = { read = 0.2 } })
      agather.sleep(0.4) -- longer than the limit of reading: it is we who wait
      local early = written
      assert.is_true(early < 20 << 20, "written: " .. early)
      local taken = 0
      for piece in response:chunks() do taken = taken + #piece end
      assert.equal(1000 * 65536, taken)
    end)
  end)

  it("raises in the middle what went wrong, once", function()
    with(raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), function(base)
      local response <close> = http.stream("GET", base)
      local next_piece = response:chunks()
      assert.equal("abc", next_piece())
      local err = support.raises("bytes remaining", next_piece)
      assert.is_true(agather.is_error(err, http.ProtocolError))
      support.raises("the response is closed", next_piece)
    end)
  end)

  it("is closed twice without harm, and gives nothing after that", function()
    with(function(stream) endless(stream, "HTTP/1.1 200 OK\r\n\r\n", ("x"):rep(1000)) end, function(base)
      local response = http.stream("GET", base)
      local next_piece = response:chunks()
      assert.is_string(next_piece())
      response:close()
      response:close()
      local err = support.raises("the response is closed", next_piece)
      assert.equal("EBADF", err.code)
    end)
  end)

  it("goes on after a cancelled wait", function()
    local go_on
    with(function(stream)
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
      go_on:await()
      stream:write("abc")
    end, function(base)
      go_on = agather.future()
      local response <close> = http.stream("GET", base)
      local reader = agather.spawn(function() return response:text() end)
      support.turns(5)
      reader:cancel()
      support.raises("", agather.await, reader)
      assert.is_true(reader:cancelled())
      go_on:set_result()
      assert.equal("abc", response:text())
    end)
  end)

  it("wakes a reader when another task closes it, and refuses two readers", function()
    with(function(stream)
      stream:write("HTTP/1.1 200 OK\r\n\r\n")
      agather.sleep(10)
    end, function(base)
      local response = http.stream("GET", base)
      local reader = agather.spawn(function() return response:text() end)
      support.turns(3)
      support.raises("another task waits", response.text, response)
      response:close()
      support.raises("closed", agather.await, reader)
    end)
  end)

  it("that is forgotten gives its connection back", function()
    servers.with(function(_, stream) endless(stream, "HTTP/1.1 200 OK\r\n\r\n", ("x"):rep(1000)) end, function(base)
      local client <close> = http.Client { limits = { max_connections = 1 } }
      local function forget() client:stream("GET", base) end
      for _ = 1, 3 do
        forget()
        collectgarbage()
        collectgarbage()
      end
      local response <close> = client:stream("GET", base)
      assert.equal(200, response.status)
    end)
  end)

  describe("of an upload that is answered before its end", function()
    local whole = 20 << 20 -- more than the system takes while nobody reads

    -- client(base, go_on): the server reads the request's body when go_on was called; returns how much came.
    local function answered_early(client)
      return agather.run(function()
        local listener <close> = agather.net.listen("127.0.0.1", 0)
        local _, port = listener:local_address()
        local answered, got = agather.future(), 0
        local server = agather.spawn(function()
          local stream <close> = listener:accept()
          stream:read_until("\r\n\r\n")
          stream:write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
          answered:await()
          agather.pcall(function()
            while got < whole do got = got + #(stream:read(65536) or error "it ended") end
          end)
        end)
        client("http://127.0.0.1:" .. port, function() answered:set_result() end)
        server:await()
        return got
      end)
    end

    -- A body in pieces; calls check(pieces left) before each.
    local function pieces(check)
      local piece, left = ("x"):rep(1 << 20), whole >> 20
      return { headers = { ["Content-Length"] = whole }, body = function()
        left = left - 1
        if check then check(left) end
        return left >= 0 and piece or nil
      end }
    end

    it("goes on with it for whoever reads it", function()
      local left
      assert.equal(whole, answered_early(function(base, go_on)
        local response <close> = http.stream("PUT", base, pieces(function(count) left = count end))
        assert.equal(200, response.status)
        assert.is_true(left > 0)
        go_on()
        assert.equal("hello", agather.wait_for(agather.async(response.text)(response), 10))
      end))
    end)

    it("raises what its reader raises", function()
      answered_early(function(base, go_on)
        local response <close> = http.stream("PUT", base, pieces(function(count)
          if count == 1 then error("no more", 0) end
        end))
        go_on()
        support.raises("no more", response.text, response)
      end)
    end)

    it("closes its files when it is closed", function()
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:seek("set", whole)
      file:write("x")
      file:close()
      local before = servers.descriptors()
      answered_early(function(base, go_on)
        local response <close> = http.stream("POST", base, { multipart = { { name = "a", path = path } } })
        assert.equal(200, response.status)
        response:close()
        go_on()
      end)
      assert.equal(before, servers.descriptors())
      os.remove(path)
    end)
  end)

  it("may be of an upload that is answered before its end", function()
    with(function(stream, request)
      assert(request.body == nil)
      stream:write("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    end, function(base)
      local count = 0
      local response <close> = http.stream("POST", base, { headers = { ["Content-Length"] = 1 << 40 }, body = function()
        count = count + 1
        agather.sleep(0.001)
        return ("x"):rep(1000)
      end })
      assert.equal(413, response.status)
    end)
  end)
end)
