local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"

describe("a server", function()
  it("bounds its connections and serves the others later", function()
    local most = 0
    net.with_server(function(stream)
      stream:read()
    end, function(port, server)
      local streams = {}
      for i = 1, 5 do streams[i] = agather.net.connect("127.0.0.1", port) end
      for i = 1, 5 do
        net.eventually(function() return server:connections() >= math.min(2, 6 - i) end, "connections are accepted")
        agather.sleep(0.002)
        most = math.max(most, server:connections())
        streams[i]:close()
      end
      net.eventually(function() return server:connections() == 0 end, "all are gone")
    end, { max_connections = 2 })
    assert.equal(2, most)
  end)

  it("counts a connection as long as its peer has not taken what was written", function()
    net.with_server(function(stream)
      stream:set_write_buffer_limits { high = 1 << 26 }
      stream:write(("x"):rep(1 << 25)) -- more than the system takes
    end, function(port, server)
      local first <close> = agather.net.connect("127.0.0.1", port)
      assert.equal("x", first:read(1))
      net.eventually(function() return server:connections() == 0 end, "the handler has ended")
      local second <close> = agather.net.connect("127.0.0.1", port)
      local _, pending = agather.wait({ agather.spawn(second.read, second, 1) }, { timeout = 0.25 })
      assert.equal(1, #pending) -- nobody serves it
      first:close()
      assert.equal("x", pending[1]:await())
    end, { max_connections = 1 })
  end)

  it("closes the stream of a handler that returns, fails or is cancelled", function()
    local reports = {}
    net.with_server(function(stream)
      local what = stream:read()
      if what == "fail" then error("boom") end
      if what == "cancel" then agather.current_task():cancel() agather.sleep(1) end
    end, function(port)
      for _, what in ipairs { "return", "fail", "cancel" } do
        local stream <close> = agather.net.connect("127.0.0.1", port)
        stream:write(what, "\n")
        assert.is_nil(stream:read())
      end
    end, { on_error = function(err, peer) reports[#reports + 1] = { tostring(err), peer } end })
    assert.equal(1, #reports)
    assert.matches("boom", reports[1][1])
    assert.matches("^127%.0%.0%.1:%d+$", reports[1][2])
  end)

  it("reports the error of a handler, with the peer, and goes on", function()
    local contexts = {}
    net.with_server(function(stream)
      error(stream:read())
    end, function(port)
      agather.get_running_loop():set_exception_handler(function(context) contexts[#contexts + 1] = context end)
      for i = 1, 2 do
        local stream <close> = agather.net.connect("127.0.0.1", port)
        stream:write("failure ", i, "\n")
        assert.is_nil(stream:read())
        net.eventually(function() return #contexts == i end, "the error is reported")
        local _, from = stream:local_address()
        assert.equal(("the handler of the connection from 127.0.0.1:%d failed"):format(from), contexts[i].message)
        assert.equal("127.0.0.1:" .. from, contexts[i].peer)
        assert.matches("failure " .. i, tostring(contexts[i].exception))
      end
    end)
  end)

  it("shuts down gracefully: accepts no more, and lets handlers end", function()
    agather.run(function()
      local server = agather.net.start_server("127.0.0.1", 0, net.echo)
      local serving = agather.spawn(server.serve_forever, server)
      local _, port = server:local_address()
      local stream <close> = agather.net.connect("127.0.0.1", port)
      stream:write("x")
      assert.equal("x", stream:read(1))
      local shutdown = agather.spawn(server.shutdown, server)
      agather.sleep(0.005)
      net.fails("ECONNREFUSED", agather.net.connect, "127.0.0.1", port)
      assert.is_false(shutdown:done())
      assert.is_false(serving:done())
      stream:write("y")
      assert.equal("y", stream:read(1))
      stream:shutdown()
      assert.equal(0, shutdown:await())
      serving:await()
      assert.equal(0, server:connections())
    end)
  end)

  it("cancels handlers that have not ended after the grace time, and waits for their cleanup", function()
    agather.run(function()
      local log, say = support.log()
      local server = agather.net.start_server("127.0.0.1", 0, function(stream)
        local _ <close> = support.closing(function()
          agather.sleep(0.005)
          say("cleaned up")
        end)
        stream:read()
      end)
      local serving = agather.spawn(server.serve_forever, server)
      local streams = {}
      for i = 1, 3 do streams[i] = agather.net.connect("127.0.0.1", select(2, server:local_address())) end
      net.eventually(function() return server:connections() == 3 end, "all are accepted")
      assert.equal(3, server:shutdown(0.01))
      assert.same({ "cleaned up", "cleaned up", "cleaned up" }, log)
      serving:await()
      for i = 1, 3 do assert.is_nil(streams[i]:read()) end
      assert.equal(0, server:shutdown(0))
    end)
  end)

  it("can be shut down by one of its handlers", function()
    agather.run(function()
      local server
      server = agather.net.start_server("127.0.0.1", 0, function(stream)
        if stream:read() == "stop" then stream:write(server:shutdown(0), "\n") end
      end)
      local serving = agather.spawn(server.serve_forever, server)
      local _, port = server:local_address()
      local idle <close> = agather.net.connect("127.0.0.1", port)
      local second <close> = agather.net.connect("127.0.0.1", port)
      net.eventually(function() return server:connections() == 2 end, "both are accepted")
      second:write("stop\n")
      assert.equal("1", second:read())
      assert.is_nil(idle:read())
      serving:await()
    end)
  end)

  it("ends at once, handlers too, when the task that serves is cancelled", function()
    agather.run(function()
      local port = agather.future()
      local serving = agather.spawn(agather.net.serve, "127.0.0.1", 0, net.echo, {
        on_listen = function(server) port:set_result(select(2, server:local_address())) end,
      })
      local stream <close> = agather.net.connect("127.0.0.1", port:await())
      stream:write("x")
      assert.equal("x", stream:read(1))
      serving:cancel()
      support.raises("CancelledError", serving.await, serving)
      assert.is_nil(stream:read())
      net.fails("ECONNREFUSED", agather.net.connect, "127.0.0.1", port:result())
    end)
  end)

  it("returns from serve when on_listen's server is shut down", function()
    agather.run(function()
      local done
      agather.net.serve("127.0.0.1", 0, net.echo, {
        on_listen = function(server) agather.get_running_loop():call_later(0.005, function()
          done = true
          agather.spawn(server.shutdown, server, 1)
        end) end,
      })
      assert.is_true(done)
    end)
  end)

  it("closes the stream of a task that is cancelled before its first step", function()
    net.with_server(net.echo, function(port, server)
      local stream = agather.net.connect("127.0.0.1", port)
      while server:connections() == 0 do agather.sleep(0) end
      server:shutdown(0)
      assert.is_nil(stream:read())
      stream:close()
    end)
  end)

  it("serves a flood of connections and others meanwhile", function()
    net.with_server(net.echo, function(port)
      local turns = 0
      local counting = agather.spawn(function() while true do agather.sleep(0) turns = turns + 1 end end)
      local streams = {}
      for i = 1, 300 do
        streams[i] = agather.spawn(function()
          local stream <close> = agather.net.connect("127.0.0.1", port)
          stream:write(i)
          stream:shutdown()
          return tonumber(stream:read("a"))
        end)
      end
      local sum = 0
      for i = 1, 300 do sum = sum + streams[i]:await() end
      assert.equal(45150, sum)
      assert.is_true(turns >= 4, turns)
      counting:cancel()
    end)
  end)

  it("serves on a Unix socket", function()
    agather.run(function()
      local path = net.path()
      local serving = agather.spawn(agather.net.serve_unix, path, net.echo, { max_connections = 3 })
      agather.sleep(0)
      local stream <close> = agather.net.connect_unix(path)
      stream:write("x")
      stream:shutdown()
      assert.equal("x", stream:read("a"))
      serving:cancel()
      support.raises("CancelledError", serving.await, serving)
      net.fails("ENOENT", agather.net.connect_unix, path)
    end)
  end)

  it("goes on when descriptors are used up, and serves when there are some again", function()
    local output, status = support.script([[
      local held, reported = {}, {}
      agather.run(function()
        agather.get_running_loop():set_exception_handler(function(context)
          reported[#reported + 1] = context.exception.code
        end)
        local server = agather.net.start_server("127.0.0.1", 0, function(stream)
          stream:write("served\n")
          stream:read()
        end)
        local serving = agather.spawn(server.serve_forever, server)
        local _, port = server:local_address()
        local first = agather.net.connect("127.0.0.1", port)
        assert(first:read() == "served")
        local ok, file
        repeat -- all descriptors but one, which the client's end will take
          file = io.open("/dev/null")
          held[#held + 1] = file
        until not file
        held[#held]:close()
        local second = agather.net.connect("127.0.0.1", port)
        while #reported == 0 do agather.sleep(0.005) end
        local ok, err = pcall(agather.net.connect, "127.0.0.1", port)
        print(ok, err.code, err.operation)
        ok, err = pcall(agather.net.listen, "127.0.0.1", 0)
        print(ok, err.code, err.operation)
        agather.sleep(0.1)
        print(#reported, reported[1])
        for _, file in ipairs(held) do if io.type(file) == "file" then file:close() end end
        print(second:read())
        first:write("still\n")
        server:shutdown(0)
        serving:await()
      end)]], "ulimit -n 64;")
    assert.equal("false\tEMFILE\tconnect\nfalse\tEMFILE\tlisten\n1\tEMFILE\nserved\n", output)
    assert.equal(0, status)
  end)

  it("raises EMFILE from accept, and the connection is not lost", function()
    local output = support.script([[
      agather.run(function()
        local listener = agather.net.listen("127.0.0.1", 0)
        local stream = agather.net.connect("127.0.0.1", select(2, listener:local_address()))
        local held = {}
        local file = io.open("/dev/null")
        while file do
          held[#held + 1] = file
          file = io.open("/dev/null")
        end
        local ok, err = pcall(listener.accept, listener)
        print(ok, err.code, err.operation)
        for _, file in ipairs(held) do file:close() end
        listener:accept():write("hello")
        print(stream:read_exactly(5))
      end)]], "ulimit -n 64;")
    assert.equal("false\tEMFILE\taccept\nhello\n", output)
  end)

  it("tells what it is", function()
    agather.run(function()
      local server <close> = agather.net.start_server("127.0.0.1", 0, net.echo)
      assert.matches("^agather.Server %(agather.Listener %(127%.0%.0%.1:%d+%), 0 connections%)$", tostring(server))
      local serving = agather.spawn(server.serve_forever, server)
      agather.sleep(0)
      support.raises("the server serves already", server.serve_forever, server)
      server:close()
      server:close()
      serving:await()
    end)
  end)

  it("refuses bad arguments with names, before it listens", function()
    agather.run(function()
      local start = agather.net.start_server
      support.raises("bad argument #3 to 'serve' (function expected, got nil)", agather.net.serve, "127.0.0.1", 0)
      support.raises("unknown option 'on_listen'", start, "127.0.0.1", 0, print, { on_listen = print })
      support.raises("option 'max_connections' must be a positive integer, got 0", start, "127.0.0.1", 0, print,
        { max_connections = 0 })
      support.raises("option 'on_error' must be a function", start, "127.0.0.1", 0, print, { on_error = 1 })
      support.raises("option 'tls' must be", start, "127.0.0.1", 0, print, { tls = "yes" })
      support.raises("bad argument #2 to 'start_unix_server' (function expected", agather.net.start_unix_server, "/tmp/x")
      local server <close> = start("127.0.0.1", 0, print)
      support.raises("number expected, got string", server.shutdown, server, "x")
    end)
  end)
end)
