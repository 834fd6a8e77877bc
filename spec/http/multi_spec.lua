-- curl's multi interface on the loop: what is under way, what is idle, and how both end.
local agather = require "agather"
local servers = require "spec.support.servers"
local support = require "spec.support"

local http = agather.http

local function fine(_, stream)
  servers.respond(stream, "200 OK", nil, "fine")
  return true
end

local function silent() agather.sleep(60) end

-- A server in a process of its own that answers all with a file, and hangs after the head with another.
local function with_nginx(run)
  local nginx = servers.nginx({ ["a.txt"] = "a", slow = ("x"):rep(1 << 20) })
  if not nginx then return pending("nginx is missing") end
  local ok, err = pcall(run, nginx)
  nginx.stop()
  if not ok then error(err, 0) end
end

describe("a request", function()
  it("is cancelled at every point, and leaves nothing", function()
    servers.with(function(_, stream)
      agather.sleep(0.002)
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
      agather.sleep(0.002)
      stream:write("abc")
      agather.sleep(0.002)
      stream:write("def")
      return true
    end, function(base)
      local client <close> = http.Client { limits = { max_connections = 2 } }
      local named = base:gsub("127.0.0.1", "localhost")
      for turns = 0, 60 do
        for _, url in ipairs { base, named } do
          local task = agather.spawn(function() return client:get(url, { timeout = 5 }):text() end)
          local stream = agather.spawn(function()
            local response <close> = client:stream("POST", url, { body = "x" })
            return response:text()
          end)
          support.turns(turns)
          task:cancel()
          stream:cancel()
          pcall(agather.await, task)
          pcall(agather.await, stream)
          assert.is_true(task:done() and stream:done())
        end
        if turns % 10 == 0 then collectgarbage() end
      end
      assert.equal("abcdef", client:get(base):text()) -- all places are free again
      assert.equal("abcdef", client:get(base):text())
    end)
  end)
end)

describe("a response that is there as soon as the request has gone out", function()
  it("wakes its task at once, not with the next deadline", function()
    with_nginx(function(nginx)
      agather.run(function()
        local client <close> = http.Client {}
        local loop = agather.get_running_loop()
        local started = loop:time()
        for _ = 1, 300 do client:get(nginx.url .. "/a.txt") end
        assert.is_true(loop:time() - started < 9, loop:time() - started)
      end)
    end)
  end)
end)

describe("an idle connection", function()
  it("does not keep a program alive, and is not waited for by one that deadlocks", function()
    with_nginx(function(nginx)
      local output, status = support.script(([[
        local http = agather.http
        agather.run(function() print(http.get("%s/a.txt"):text()) end)
        print(pcall(agather.run, function()
          http.get("%s/a.txt")
          agather.future():await()
        end))
      ]]):format(nginx.url, nginx.url))
      assert.equal(0, status)
      assert.truthy(output:find("^a\nfalse\t"), output)
      assert.truthy(output:find("deadlock", 1, true) or output:find("waits", 1, true), output)
    end)
  end)

  it("that its server closes costs no processor time", function()
    servers.with(function(_, stream)
      servers.respond(stream, "200 OK")
    end, function(base)
      local client <close> = http.Client {}
      for _ = 1, 3 do client:get(base) end
      local used = os.clock()
      agather.sleep(0.1)
      assert.is_true(os.clock() - used < 0.05)
    end)
  end)
end)

describe("a loop that closes", function()
  it("ends requests under way, whatever their tasks do", function()
    local before
    for round = 1, 3 do
      agather.run(function()
        local base = servers.own(silent)
        local client = http.Client {}
        for _ = 1, 5 do
          agather.spawn(client.get, client, base)
          agather.spawn(function() -- would rather not be cancelled
            pcall(client.get, client, base)
            pcall(client.get, client, base)
          end)
          agather.spawn(function()
            local response = client:stream("GET", base)
            return response:text()
          end)
        end
        agather.sleep(0.01)
      end)
      collectgarbage()
      local now = servers.descriptors()
      before = before or now
      assert.is_true(now <= before, ("round %d: %d descriptors, before %d"):format(round, now, before))
    end
  end)

  it("leaves streams that are kept as closed ones", function()
    local kept, next_piece, peer
    agather.run(function()
      local listener <close> = agather.net.listen("127.0.0.1", 0)
      local _, port = listener:local_address()
      local request = agather.spawn(http.stream, "GET", "http://127.0.0.1:" .. port)
      peer = listener:accept()
      peer:write("HTTP/1.1 200 OK\r\n\r\nabc")
      kept = request:await()
      next_piece = kept:chunks()
      assert.equal("abc", next_piece())
    end)
    agather.run(function()
      local err = support.raises("the loop has closed", next_piece)
      assert.is_true(agather.is_error(err, http.ProtocolError))
    end)
    kept:close()
    peer:close()
  end)

  it("is followed by another, in which a client goes on", function()
    local client <close> = http.Client {}
    for _ = 1, 3 do
      servers.with(fine, function(base) assert.equal("fine", client:get(base):text()) end)
    end
  end)

  it("may be one of two that run in turn", function()
    local one <close> = agather.Runner()
    local other <close> = agather.Runner()
    for _ = 1, 3 do
      for _, runner in ipairs { one, other } do
        assert.equal("fine", runner:run(function()
          local base = servers.own(fine)
          return http.get(base):text()
        end))
      end
    end
  end)
end)

describe("requests started together", function()
  it("are given to curl over several turns, each in its order", function()
    servers.with(fine, function(base)
      local client <close> = http.Client { limits = false }
      local jobs = {}
      for i = 1, 200 do jobs[i] = function() return client:get(base, { params = { i = i } }).url end end
      local results = agather.gather_list(jobs):await()
      for i = 1, 200 do assert.equal(base .. "/?i=" .. i, results[i]) end
    end)
  end)

  it("may be cancelled before curl has them", function()
    servers.with(fine, function(base, state)
      local client <close> = http.Client { limits = false }
      local tasks = {}
      for i = 1, 200 do tasks[i] = agather.spawn(client.get, client, base) end
      agather.sleep(0)
      for _, task in ipairs(tasks) do task:cancel() end
      agather.wait(tasks)
      assert.is_true(#state.requests < 200)
      assert.equal("fine", client:get(base):text())
    end)
  end)
end)
