-- Many requests at once, to nginx in a process of its own.
local agather = require "agather"
local net = require "spec.support.net"
local servers = require "spec.support.servers"

local http = agather.http

-- A server in a process of its own that answers all with a file, and hangs after the head with another.
local function with_nginx(run)
  local nginx = servers.nginx({ ["a.txt"] = "a", slow = ("x"):rep(1 << 20) })
  if not nginx then return pending("nginx is missing") end
  local ok, err = pcall(run, nginx)
  nginx.stop()
  if not ok then error(err, 0) end
end

describe("a request", function()
  -- Cancels a thousand requests; returns how long the loop stood still at worst and how long it took until all tasks
  -- had ended, in seconds of processor time, so that what else the machine does counts less.
  local function cancel_thousand(nginx)
    local client <close> = http.Client { limits = false }
    client:get(nginx.url .. "/a.txt")
    local before = servers.descriptors()
    local count = 900 -- with what else is open, fewer than 1,024 descriptors
    local begun, tasks = 0, {}
    for i = 1, count do
      tasks[i] = agather.spawn(function()
        local response <close> = client:stream("GET", nginx.url .. "/slow")
        begun = begun + 1
        return response:text()
      end)
    end
    while begun < count do agather.sleep(0.01) end
    for i = 1, 100 do -- and some that wait for their head
      tasks[count + i] = agather.spawn(client.get, client, nginx.url .. "/slow")
    end
    local worst, last, ticking = 0, os.clock(), true
    local ticker = agather.spawn(function()
      while ticking do
        agather.sleep(0)
        local now = os.clock()
        worst = math.max(worst, now - last)
        last = now
      end
    end)
    agather.sleep(0)
    local started = os.clock()
    for _, task in ipairs(tasks) do task:cancel() end
    agather.wait(tasks)
    local took = os.clock() - started
    for _, task in ipairs(tasks) do assert.is_true(task:cancelled()) end
    agather.sleep(0.2)
    ticking = false
    ticker:await()
    net.eventually(function() return servers.descriptors() <= before + 1 end, "the connections are closed")
    assert.equal("a", client:get(nginx.url .. "/a.txt"):text())
    return worst, took
  end

  it("can be cancelled with a thousand others: all end at once, and the loop goes on meanwhile", function()
    with_nginx(function(nginx)
      agather.run(function()
        local worst, took
        for _ = 1, 3 do -- who shares the machine may be to blame for one, but not for all
          worst, took = cancel_thousand(nginx)
          if servers.slow or worst < 0.02 and took < 0.1 then return end
        end
        error(("the loop stood still for %.1f ms, all ended after %.1f ms"):format(worst * 1000, took * 1000))
      end)
    end)
  end)

  it("of ten thousand, a hundred at a time, brings its body, and descriptors stay as they were", function()
    with_nginx(function(nginx)
      agather.run(function()
        local client <close> = http.Client {}
        local function get() return client:get(nginx.url .. "/a.txt"):text() end
        local items = {}
        for i = 1, 1000 do items[i] = i end
        local descriptors = servers.descriptors()
        agather.map(get, items, { limit = 100 })
        collectgarbage()
        local memory = collectgarbage("count")
        for _ = 1, servers.slow and 1 or 9 do
          local results = agather.map(get, items, { limit = 100 })
          for i = 1, 1000 do assert(results[i] == "a") end
        end
        collectgarbage()
        local now = servers.descriptors()
        assert.is_true(now <= descriptors + 100 + 10, now .. " descriptors, before " .. descriptors) -- with those of the loop
        assert.is_true(collectgarbage("count") < memory + 200)
      end)
    end)
  end)
end)

describe("busy connections", function()
  it("leave each other their turns", function()
    local nginx = servers.nginx { big = ("x"):rep(16 << 20), ["a.txt"] = "a" }
    if not nginx then return pending("nginx is missing") end
    local ok, err = pcall(agather.run, function()
      local client <close> = http.Client { limits = false }
      local taken, streams = {}, {}
      for i = 1, 20 do
        taken[i] = 0
        streams[i] = agather.spawn(function()
          while true do
            local response <close> = client:stream("GET", nginx.url .. "/big")
            for piece in response:chunks() do taken[i] = taken[i] + #piece end
          end
        end)
      end
      for _ = 1, 5 do assert.equal("a", client:get(nginx.url .. "/a.txt", { timeout = 10 }):text()) end
      local _ <close> = agather.timeout(30) -- none waits for another to end, as that never happens
      for i = 1, 20 do
        while taken[i] < 1 << 20 do agather.sleep(0.001) end
      end
      for i = 1, 20 do streams[i]:cancel() end
    end)
    nginx.stop()
    assert.is_true(ok, err)
  end)
end)
