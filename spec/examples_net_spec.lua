-- Runs the examples that are servers and clients: as processes of their own, with clients here.
local agather = require "agather"
local net = require "spec.support.net"

-- Starts an example that listens; waits until it does and calls f(port, process). Ends it.
local function with_server(name, f)
  local output = net.path()
  local pipe = assert(io.popen(("timeout --foreground 10 lua5.4 examples/%s.lua >%s 2>&1 & echo $!"):format(name, output)))
  local process = { pid = pipe:read("l") }
  pipe:close()
  function process.read()
    local file = io.open(output)
    if not file then return "" end
    local text = file:read("a")
    file:close()
    return text
  end
  agather.run(function()
    local port
    net.eventually(function()
      port = process.read():match("listening on 127%.0%.0%.1:(%d+)\n")
      return port
    end, name .. " listens")
    local ok, err = pcall(f, tonumber(port), process)
    os.execute("kill " .. process.pid .. " 2>/dev/null")
    os.remove(output)
    if not ok then error(err, 0) end
  end)
end

describe("example", function()
  it("echo_server answers echo_client", function()
    with_server("echo_server", function(port)
      local output = net.path()
      os.execute(("timeout 10 lua5.4 examples/echo_client.lua %d 127.0.0.1 alpha beta >%s &"):format(port, output))
      net.eventually(function()
        local file <close> = io.open(output)
        return file and file:read("a") == "alpha\nbeta\n"
      end, "the client has its words")
      os.remove(output)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      local blob = ("0123456789"):rep(200000)
      agather.spawn(function()
        stream:write(blob)
        stream:shutdown()
      end)
      assert.is_true(stream:read("a") == blob)
    end)
  end)

  it("chat_server brings lines to all others", function()
    with_server("chat_server", function(port)
      local function join(name)
        local stream = agather.net.connect("127.0.0.1", port)
        assert.equal("your name?", stream:read())
        stream:write(name, "\n")
        assert.equal("welcome, " .. name, stream:read())
        return stream
      end
      local ann <close> = join("Ann")
      local bob = join("Bob")
      assert.equal("Bob came", ann:read())
      bob:write("hello\n")
      assert.equal("Bob: hello", ann:read())
      ann:write("hi Bob\n")
      assert.equal("Ann: hi Bob", bob:read())
      bob:close()
      assert.equal("Bob left", ann:read())
      ann:write(("x"):rep(2000), "\n") -- too long
      assert.is_nil(ann:read())
    end)
  end)

  it("port_scanner finds what is open", function()
    local pipe = assert(io.popen("timeout 10 lua5.4 examples/port_scanner.lua 2>&1"))
    assert.equal("6 of 20 ports are open\n", pipe:read("a"))
    pipe:close()
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local _, port = listener:local_address()
      local again = assert(io.popen(("timeout 10 lua5.4 examples/port_scanner.lua localhost %d %d 2")
        :format(port, port)))
      assert.equal(port .. "\topen\n", again:read("a"))
      again:close()
    end)
  end)

  it("graceful_shutdown answers what runs when SIGTERM comes, and no more", function()
    with_server("graceful_shutdown", function(port, process)
      local stream <close> = agather.net.connect("127.0.0.1", port)
      stream:write("a question\n")
      agather.sleep(0.05)
      os.execute("kill -TERM " .. process.pid) -- timeout hands it on, and only once with --foreground
      net.eventually(function() return process.read():find("SIGTERM: 1 running\n", 1, true) end, "the signal is heard")
      net.fails("ECONNREFUSED", agather.net.connect, "127.0.0.1", port)
      assert.equal("answer to a question", stream:read())
      assert.is_nil(stream:read())
      net.eventually(function() return process.read():find("done, 0 cancelled\n", 1, true) end, "it has ended")
    end)
  end)
end)
