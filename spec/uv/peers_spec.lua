-- Streams against programs that others have written.
local agather = require "agather"
local net = require "spec.support.net"

-- Starts a program, which ends after 20 s at the latest; gives a function that ends it and one that tells its output.
local function start(command)
  local output = net.path()
  local pipe = assert(io.popen(("timeout 20 %s >%s 2>&1 </dev/null & echo $!"):format(command, output)))
  local pid = pipe:read("l")
  pipe:close()
  local function read()
    local file = io.open(output)
    if not file then return "" end -- the shell has not come so far
    local text = file:read("a")
    file:close()
    return text
  end
  return setmetatable({ read = read, pid = pid }, {
    __close = function()
      os.execute("kill " .. pid .. " 2>/dev/null")
      os.remove(output)
    end,
  })
end

local function free_port()
  local listener <close> = agather.net.listen("127.0.0.1", 0)
  return select(2, listener:local_address())
end

-- Connects once somebody listens.
local function connect_when_up(connect, ...)
  local arguments, stream = table.pack(...), nil
  net.eventually(function()
    local ok, result = pcall(connect, table.unpack(arguments, 1, arguments.n))
    stream = ok and result
    return ok
  end, "the program listens")
  return stream
end

-- One reply of the Redis protocol.
local function read_reply(stream)
  local line = stream:read():gsub("\r$", "")
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == "-" then error(rest, 0) end
  if kind == ":" then return tonumber(rest) end
  if kind == "$" then
    if rest == "-1" then return nil end
    local value = stream:read_exactly(tonumber(rest))
    assert.equal("\r\n", stream:read_exactly(2))
    return value
  end
  local list = {}
  for i = 1, tonumber(rest) do list[i] = read_reply(stream) end
  return list
end

local function request(...)
  local words = { ... }
  local parts = { ("*%d\r\n"):format(#words) }
  for _, word in ipairs(words) do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word) end
  return table.concat(parts)
end

describe("redis-server", function()
  local function with_redis(f)
    agather.run(function()
      local port, path = free_port(), net.path()
      local _ <close> = start(("redis-server --port %d --bind 127.0.0.1 --unixsocket %s --save '' --appendonly no "
        .. "--dir /tmp"):format(port, path))
      local stream <close> = connect_when_up(agather.net.connect, "127.0.0.1", port)
      f(stream, port, path)
    end)
  end

  it("answers one request, many at once and a large one", function()
    with_redis(function(stream)
      stream:write(request("PING"))
      assert.equal("PONG", read_reply(stream))
      for i = 1, 500 do stream:write(request("SET", "key " .. i, tostring(i * i))) end
      for _ = 1, 500 do assert.equal("OK", read_reply(stream)) end
      local blob = ("0123456789\r\n"):rep(200000)
      stream:write(request("SET", "blob", blob), request("GET", "blob"), request("GET", "none"))
      assert.equal("OK", read_reply(stream))
      assert.is_true(read_reply(stream) == blob)
      assert.is_nil(read_reply(stream))
      stream:write(request("MGET", "key 3", "key 500"))
      assert.same({ "9", "250000" }, read_reply(stream))
      stream:write(request("NOSUCH"))
      assert.matches("ERR unknown command", select(2, pcall(read_reply, stream)))
    end)
  end)

  it("is waited for by one connection while another answers it, on a Unix socket too", function()
    with_redis(function(stream, _, path)
      local other <close> = connect_when_up(agather.net.connect_unix, path)
      other:write(request("BLPOP", "list", "0"))
      local waiting = agather.spawn(read_reply, other)
      agather.sleep(0.01)
      assert.is_false(waiting:done())
      waiting:cancel()
      assert.is_false((pcall(waiting.await, waiting)))
      stream:write(request("RPUSH", "list", "item"))
      assert.equal(1, read_reply(stream))
      assert.same({ "list", "item" }, read_reply(other)) -- what the cancelled task did not read is still there
    end)
  end)

  it("ends connections when it shuts down", function()
    with_redis(function(stream, port)
      stream:write(request("SHUTDOWN", "NOSAVE"))
      assert.is_nil(stream:read())
      net.eventually(function() return not pcall(agather.net.connect, "127.0.0.1", port) end, "it listens no more")
    end)
  end)
end)

describe("python3 -m http.server", function()
  it("sends a file to its end", function()
    agather.run(function()
      local port, directory = free_port(), net.path()
      local blob = ("a line of the file\n"):rep(100000)
      os.execute("mkdir " .. directory)
      local file = assert(io.open(directory .. "/file.txt", "w"))
      file:write(blob)
      file:close()
      do
        local _ <close> = start(("python3 -m http.server %d --bind 127.0.0.1 --directory %s"):format(port, directory))
        local stream <close> = connect_when_up(agather.net.connect, "localhost", port)
        stream:write("GET /file.txt HTTP/1.0\r\n\r\n")
        local head = stream:read_until("\r\n\r\n")
        assert.matches("^HTTP/1%.0 200 OK\r\n", head)
        assert.equal(#blob, tonumber(head:match("Content%-[Ll]ength: (%d+)")))
        assert.is_true(stream:read("a") == blob)
      end
      os.execute("rm -r " .. directory)
    end)
  end)
end)

describe("socat", function()
  it("echoes what is written until it is shut down", function()
    agather.run(function()
      local port = free_port()
      local _ <close> = start(("socat TCP-LISTEN:%d,bind=127.0.0.1,fork,reuseaddr EXEC:cat"):format(port))
      local stream <close> = connect_when_up(agather.net.connect, "127.0.0.1", port)
      local blob = ("0123456789"):rep(100000)
      local reader = agather.spawn(stream.read, stream, "a")
      stream:write(blob)
      stream:shutdown()
      assert.is_true(reader:await() == blob)
    end)
  end)

  it("connects to a Unix socket of ours", function()
    agather.run(function()
      local path = net.path()
      local server = agather.net.start_unix_server(path, function(stream)
        stream:write(stream:read():upper(), "\n")
        assert.is_nil(stream:read())
      end)
      local serving = agather.spawn(server.serve_forever, server)
      local client <close> = start(("sh -c 'echo hello | socat -t 5 - UNIX-CONNECT:%s'"):format(path))
      net.eventually(function() return client.read() == "HELLO\n" end, "socat has the answer")
      assert.equal(0, server:shutdown(5))
      serving:await()
    end)
  end)

  it("listens on a Unix socket", function()
    agather.run(function()
      local path = net.path()
      local _ <close> = start(("socat UNIX-LISTEN:%s EXEC:cat"):format(path))
      local stream <close> = connect_when_up(agather.net.connect_unix, path)
      stream:write("over and ")
      stream:write("out")
      stream:shutdown()
      assert.equal("over and out", stream:read("a"))
    end)
  end)

  it("echoes datagrams", function()
    agather.run(function()
      local port = free_port()
      local _ <close> = start(("socat UDP4-RECVFROM:%d,bind=127.0.0.1,fork EXEC:cat"):format(port))
      local socket <close> = agather.net.udp { remote_address = { "127.0.0.1", port } }
      local answer
      net.eventually(function() -- nobody may listen yet
        pcall(socket.send, socket, "datagram")
        local ok, data = pcall(agather.wait_for, function() return (socket:recv()) end, 0.2)
        answer = ok and data
        return answer
      end, "socat answers")
      assert.equal("datagram", answer)
    end)
  end)
end)

describe("nc", function()
  it("sends to a server of ours, and hears the answer and the end", function()
    net.with_server(function(stream)
      local text = stream:read("a")
      stream:write(#text, " bytes\n")
    end, function(port)
      local client <close> = start(("sh -c 'head -c 300000 /dev/zero | nc -N 127.0.0.1 %d'"):format(port))
      net.eventually(function() return client.read() == "300000 bytes\n" end, "nc has the answer")
    end)
  end)

  it("listens, and gets what is piped to it", function()
    agather.run(function()
      local port = free_port()
      local server <close> = start(("nc -l 127.0.0.1 %d"):format(port))
      local stream <close> = connect_when_up(agather.net.connect, "127.0.0.1", port)
      local there, here = agather.net.pair()
      agather.spawn(function()
        for i = 1, 1000 do there:write(i, "\n") end
        there:shutdown()
      end)
      here:pipe(stream)
      net.eventually(function() return select(2, server.read():gsub("\n", "")) == 1000 end, "nc has all lines")
    end)
  end)

  it("is slow and silent, and a scope's timeout ends the wait", function()
    net.with_server(function(stream)
      local got = {}
      local ok, err = pcall(function()
        local _ <close> = agather.timeout(0.2)
        for line in stream:lines() do got[#got + 1] = line end
      end)
      stream:write(("%d %s %s\n"):format(#got, ok, agather.is_error(err, agather.TimeoutError)))
    end, function(port)
      local client <close> = start(("sh -c '(echo one; sleep 0.05; echo two; printf half; sleep 5) | nc 127.0.0.1 %d'")
        :format(port))
      net.eventually(function() return client.read() ~= "" end, "nc has the answer")
      assert.equal("2 false true\n", client.read())
    end)
  end)
end)
