-- src/uv/dns.c and lua/agather/dns.lua: names and addresses.
local agather = require "agather"
local dns = require "agather.dns"
local support = require "spec.support"
local resolver = require "spec.support.resolver"

-- An OSError with that code.
local function refuses(code, f, ...)
  local err = support.raises(code, f, ...)
  assert.is_true(agather.is_error(err, agather.OSError))
  assert.equal(code, err.code)
  return err
end

describe("dns.resolve", function()
  it("answers numeric addresses at once", function()
    agather.run(function()
      local others = 0
      agather.spawn(function() others = others + 1 end)
      assert.same({ { address = "192.0.2.7", family = "ipv4" } }, dns.resolve("192.0.2.7"))
      assert.same({ { address = "2001:db8::1", family = "ipv6" } }, dns.resolve("2001:DB8:0:0::1"))
      assert.same({ { address = "::1", family = "ipv6" } }, dns.resolve("::1", { family = "ipv6" }))
      assert.equal(0, others)
    end)
  end)

  it("answers localhost, and names under it, without asking anybody", function()
    agather.run(function()
      local both = { { address = "127.0.0.1", family = "ipv4" }, { address = "::1", family = "ipv6" } }
      assert.same(both, dns.resolve("localhost"))
      assert.same(both, dns.resolve("LocalHost."))
      assert.same(both, dns.resolve("app.localhost"))
      assert.same({ both[1] }, dns.resolve("localhost", { family = "ipv4" }))
      assert.same({ both[2] }, dns.resolve("localhost", { family = "ipv6" }))
    end)
  end)

  it("gives each caller a list of its own", function()
    agather.run(function()
      local first = dns.resolve("localhost")
      first[1].address = "changed"
      assert.equal("127.0.0.1", dns.resolve("localhost")[1].address)
    end)
  end)

  it("refuses a family that a numeric address does not have", function()
    agather.run(function()
      local err = refuses("EAI_ADDRFAMILY", dns.resolve, "127.0.0.1", { family = "ipv6" })
      assert.equal("resolve", err.operation)
      assert.equal("127.0.0.1", err.address)
    end)
  end)

  it("refuses names that no name can be, before anybody is asked", function()
    agather.run(function()
      local function bad(text, ...)
        local ok, err = pcall(dns.resolve, ...)
        assert.is_false(ok)
        assert.matches("^%S*dns_spec%.lua:%d+: bad argument #%d to 'resolve' %(", err)
        assert.is_truthy(err:find(text, 1, true), err)
      end
      bad("host name must have 1 to 253 bytes, got 254", ("a."):rep(127))
      bad("host name must have 1 to 253 bytes, got 0", "")
      bad("host name contains a zero byte", "127.0.0.1\0.example")
      bad("string expected, got nil")
      bad("string expected, got number", 127)
      bad("unknown option 'famly'", "localhost", { famly = "ipv4" })
      bad("option 'family' must be \"ipv4\" or \"ipv6\", got inet", "localhost", { family = "inet" })
      bad("option 'timeout' must be a number, got string", "localhost", { timeout = "1" })
      bad("option 'cache' must be a boolean, got number", "localhost", { cache = 0 })
      bad("table of options expected, got number", "localhost", 1)
    end)
  end)

  it("needs a loop", function()
    support.raises("no running event loop", dns.resolve, "localhost")
    dns.clear_cache()
  end)
end)

describe("the look-up of what connects", function()
  local look_up = require("agather.uv").lookup

  it("gives a list of strings", function()
    agather.run(function()
      assert.same({ "127.0.0.1", "::1" }, look_up("localhost"))
      assert.same({ "::1" }, look_up("localhost", "ipv6"))
      assert.equal("look up", refuses("EAI_ADDRFAMILY", look_up, "::1", "ipv4").operation)
    end)
  end)

  it("refuses names that no name can be", function()
    agather.run(function()
      support.raises("host name must have 1 to 253 bytes", look_up, ("a"):rep(254))
      support.raises("host name must have 1 to 253 bytes", look_up, "")
      support.raises("host name contains a zero byte", look_up, "a\0b")
    end)
  end)
end)

describe("dns.reverse", function()
  it("refuses what is no numeric address", function()
    agather.run(function()
      for _, text in ipairs { "localhost", "127.0.0", "", "127.0.0.1\0" } do
        support.raises("bad argument #1 to 'reverse' (numeric address expected, got '", dns.reverse, text)
      end
      support.raises("bad argument #1 to 'reverse' (string expected, got nil)", dns.reverse)
      support.raises("unknown option 'family'", dns.reverse, "127.0.0.1", { family = "ipv4" })
    end)
  end)
end)

describe("with a name server, dns", function()
  local missing = resolver.missing()
  local function with_server(sentence, f)
    it(sentence, function()
      if missing then return pending(missing) end
      f()
    end)
  end

  -- What the script prints must be [expected]; returns the queries.
  local function prints(expected, text)
    local output, queries = resolver.script("agather.run(function()\n" .. text .. "\nend)")
    assert.equal(expected, output)
    return queries
  end

  with_server("finds addresses of each family, and names of addresses", function()
    prints("192.0.2.1 ipv4, 2001:db8::1 ipv6\n192.0.2.1 ipv4\n2001:db8::1 ipv6\n192.0.2.4 ipv4\nfour.test\none.test\n", [[
      local function show(...)
        local list = dns.resolve(...)
        table.sort(list, function(a, b) return a.family < b.family end)
        for i, item in ipairs(list) do list[i] = item.address .. " " .. item.family end
        print(table.concat(list, ", "))
      end
      show("one.test")
      show("one.test", { family = "ipv4" })
      show("one.test", { family = "ipv6" })
      show("four.test")
      print(dns.reverse("192.0.2.4"))
      print(dns.reverse("2001:db8::1"))
    ]])
  end)

  with_server("tells what it could not find, with the name", function()
    prints("EAI_NONAME\tresolve\tnone.test\nEAI_NONAME\treverse\t192.0.2.9\n", [[
      for _, call in ipairs { { dns.resolve, "none.test" }, { dns.reverse, "192.0.2.9" } } do
        local ok, err = pcall(table.unpack(call))
        print(err.code, err.operation, err.address)
      end
    ]])
  end)

  with_server("asks once for many who ask at the same time, and not again for some seconds", function()
    local queries = prints("100\t100\n192.0.2.1\t192.0.2.1\n", [[
      local tasks = {}
      for i = 1, 100 do
        tasks[i] = agather.spawn(dns.resolve, i % 2 == 0 and "one.test" or "ONE.Test", { family = "ipv4" })
      end
      local found = agather.gather_list(tasks):await()
      local right = 0
      for i = 1, 100 do right = right + (found[i][1].address == "192.0.2.1" and 1 or 0) end
      print(right, #tasks)
      print(dns.resolve("one.test", { family = "ipv4" })[1].address,
        require("agather.uv").lookup("oNe.test", "ipv4")[1])
    ]])
    assert.same({ "A one.test" }, queries)
  end)

  with_server("asks anew where the cache will not do or was cleared, and after a failure", function()
    local queries = prints("done\n", [[
      local four = { family = "ipv4" }
      dns.resolve("one.test", four)
      dns.resolve("one.test", four)
      dns.resolve("one.test", { family = "ipv4", cache = false })
      dns.resolve("one.test", four)
      dns.clear_cache()
      dns.resolve("one.test", four)
      pcall(dns.resolve, "none.test", four)
      pcall(dns.resolve, "none.test", four)
      dns.reverse("192.0.2.4")
      dns.reverse("192.0.2.4")
      dns.reverse("192.0.2.4", { cache = false })
      print("done")
    ]])
    assert.same({ "A one.test", "A one.test", "A one.test", "A none.test", "A none.test", "PTR 4.2.0.192.in-addr.arpa",
      "PTR 4.2.0.192.in-addr.arpa" }, queries)
  end)

  with_server("bounds its cache", function()
    prints("true\ttrue\n", [[
      for i = 1, 600 do dns.reverse("192.0.2.4", { cache = false }) end
      local ok = pcall(dns.resolve, "one.test")
      collectgarbage()
      print(ok, dns.reverse("192.0.2.4") == "four.test")
    ]])
  end)

  with_server("frees a cancelled task at once, and others who wait go on to wait", function()
    local queries = prints("true\ttrue\ttrue\ntrue\ttrue\nfalse\tEAI_AGAIN\nfalse\tEAI_AGAIN\ntrue\n", [[
      local four = { family = "ipv4" }
      local loop = agather.get_running_loop()
      local start = loop:time()
      local tasks = {}
      for i = 1, 4 do tasks[i] = agather.spawn(dns.resolve, "silent.test", four) end
      agather.sleep(0.01)
      tasks[1]:cancel()
      tasks[3]:cancel()
      agather.sleep(0)
      print(tasks[1]:cancelled(), tasks[3]:cancelled(), loop:time() - start < 0.5)
      local ok, err = pcall(dns.resolve, "silent.test", { timeout = 0.05, family = "ipv4" })
      print(agather.is_error(err, agather.TimeoutError), loop:time() - start < 0.5)
      for i = 2, 4, 2 do
        local done, failure = pcall(tasks[i].await, tasks[i])
        print(done, failure.code)
      end
      -- the last one to go: more look-ups than threads, so that some have not begun
      for round = 1, 3 do
        local many = {}
        for i = 1, 20 do many[i] = agather.spawn(dns.resolve, "host" .. i .. ".none.test", four) end
        agather.sleep(0)
        for i = 1, 20 do many[i]:cancel() end
        agather.sleep(0)
        collectgarbage()
      end
      print(dns.resolve("four.test", four)[1].address == "192.0.2.4")
    ]])
    local silent = 0
    for _, query in ipairs(queries) do silent = silent + (query == "A silent.test" and 1 or 0) end
    assert.equal(1, silent)
  end)

  with_server("asks nothing that nobody waits for any more", function()
    local queries = prints("true\n", [[
      collectgarbage("stop")
      local four = { family = "ipv4" }
      local busy = {} -- half of the pool's four threads is for look-ups
      for i = 1, 2 do busy[i] = agather.spawn(dns.resolve, i .. ".silent.test", four) end
      agather.sleep(0.01)
      local task = agather.spawn(dns.resolve, "one.test", four)
      agather.sleep(0)
      task:cancel()
      for _, one in ipairs(busy) do pcall(one.await, one) end
      print(task:cancelled())
    ]])
    table.sort(queries)
    assert.same({ "A 1.silent.test", "A 2.silent.test" }, queries)
  end)

  with_server("lets a loop close, and a state end, with look-ups in flight", function()
    local output = resolver.script([[
      agather.run(function()
        for i = 1, 8 do agather.spawn(dns.resolve, i .. ".silent.test", { family = "ipv4" }) end
        agather.sleep(0.01)
      end)
      print("closed")
      local loop = agather.new_event_loop()
      loop:create_task(function()
        agather.spawn(dns.resolve, "one.test")
        agather.sleep(0)
        print("leaving")
        os.exit(0, true)
      end)
      loop:run_forever()
    ]])
    assert.matches("^closed\nleaving\n", output)
    assert.is_nil(output:find("egmentation fault", 1, true))
  end)

  with_server("answers localhost where the name server does not", function()
    local queries = prints("127.0.0.1\n", [[print(dns.resolve("localhost")[1].address)]])
    assert.same({}, queries)
  end)
end)
