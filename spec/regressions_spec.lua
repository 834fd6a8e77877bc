-- What broke in runtimes before this one, as their issue trackers tell: a case each.
local agather = require "agather"
local servers = require "spec.support.servers"
local support = require "spec.support"

local virtual = support.virtual

-- Runs Lua code in a process of its own; its exit code and output.
local function process(code)
  local name = os.tmpname()
  local file <close> = assert(io.open(name, "w"))
  file:write(code)
  file:flush()
  local pipe = io.popen(("timeout 60 lua5.4 %s 2>&1; echo exit $?"):format(name))
  local text = pipe:read("a")
  pipe:close()
  os.remove(name)
  return tonumber(text:match("exit (%d+)%s*$")), (text:gsub("exit %d+%s*$", ""))
end

local function ends_well(code)
  local status, text = process(code)
  assert.equal(0, status, text)
  return text
end

describe("a wait that timed out", function()
  local function timed_out(f, ...)
    local ok, err = pcall(agather.wait_for, agather.spawn(f, ...), 1)
    assert.is_false(ok)
    assert.is_true(agather.is_error(err, agather.TimeoutError))
  end

  it("is not handed the lock (copas 201)", function()
    virtual(function()
      local lock = agather.Lock()
      lock:acquire()
      timed_out(lock.acquire, lock)
      lock:release()
      assert.is_false(lock:locked())
      agather.wait_for(agather.spawn(lock.acquire, lock), 1)
    end)
  end)

  it("is passed over by a lock that others wait for, too (copas 201)", function()
    virtual(function()
      local lock, behind = agather.Lock(), nil
      lock:acquire()
      agather.get_running_loop():call_later(0.5, function() behind = agather.spawn(lock.acquire, lock) end)
      timed_out(lock.acquire, lock)
      lock:release()
      agather.wait_for(behind, 1)
    end)
  end)

  it("takes no permit, item, notification or result", function()
    virtual(function()
      local semaphore, queue, condition, future =
        agather.Semaphore(0), agather.Queue(), agather.Condition(), agather.future()
      timed_out(semaphore.acquire, semaphore)
      semaphore:release()
      assert.is_false(semaphore:locked())
      timed_out(queue.get, queue)
      queue:put_nowait("item")
      assert.equal("item", queue:get_nowait())
      local function waits()
        local _ <close> = condition:acquire()
        condition:wait()
        return "notified"
      end
      timed_out(waits)
      local other = agather.spawn(waits)
      agather.sleep(0)
      do
        local _ <close> = condition:acquire()
        condition:notify(1)
      end
      assert.equal("notified", other:await())
      timed_out(function() return agather.shield(future):await() end)
      future:set_result("late")
      assert.equal("late", future:await())
    end)
  end)
end)

describe("a timer", function()
  it("that is cancelled leaves alone what its callback has begun (copas 206)", function()
    virtual(function()
      local loop, began, ended = agather.get_running_loop(), false, false
      local handle
      handle = loop:call_later(1, function()
        agather.spawn(function()
          began = true
          agather.sleep(5)
          ended = true
        end)
        handle:cancel()
      end)
      agather.sleep(10)
      assert.is_true(began)
      assert.is_true(ended)
    end)
  end)

  it("that is cancelled and set again in its own callback fires once each time (copas 213)", function()
    virtual(function()
      local loop, fired, handle = agather.get_running_loop(), 0, nil
      local function callback()
        fired = fired + 1
        handle:cancel()
        if fired < 3 then handle = loop:call_later(1, callback) end
      end
      handle = loop:call_later(1, callback)
      agather.sleep(10)
      assert.equal(3, fired)
      assert.is_true(handle:cancelled())
    end)
  end)
end)

describe("a loop", function()
  it("runs what is ready behind a task that failed (cqueues 130)", function()
    virtual(function()
      local log = {}
      local failing = agather.spawn(error, "first")
      for i = 1, 3 do agather.spawn(function() log[#log + 1] = i end) end
      agather.sleep(0)
      assert.same({ 1, 2, 3 }, log)
      assert.is_false((pcall(failing.await, failing)))
    end)
  end)

  it("is closed with tasks and callbacks that became ready behind one that failed (cqueues 130)", function()
    local loop, messages = agather.new_event_loop(), {}
    loop:set_exception_handler(function(context) messages[#messages + 1] = context.message end)
    loop:create_task(function()
      loop:stop()
      error("first", 0)
    end)
    loop:create_task(function()
      for _ = 1, 3 do
        agather.spawn(error, "not reached")
        loop:call_soon(error, "not reached")
      end
    end)
    loop:run_forever()
    loop:close()
    collectgarbage()
    local pending = "Task was destroyed but it is pending!"
    assert.same({ "Task exception was never retrieved", pending, pending, pending }, messages)
  end)

  it("cannot be closed from inside itself (cqueues 175)", function()
    virtual(function()
      local loop = agather.get_running_loop()
      support.raises("running", loop.close, loop)
      agather.sleep(1)
      local refused = agather.future()
      loop:call_soon(function() refused:set_result(pcall(loop.close, loop)) end)
      assert.is_false((refused:await()))
    end)
  end)

  it("outlives the coroutine in which the library was loaded and the first loop made (luv 503)", function()
    ends_well [[
      local thread = coroutine.create(function()
        local agather = require "agather"
        agather.run(function() agather.sleep(0.001) agather.net.listen("127.0.0.1", 0):close() end)
      end)
      assert(coroutine.resume(thread))
      thread = nil
      collectgarbage() collectgarbage()
      local filler = {}
      for i = 1, 100 do filler[i] = coroutine.create(function() end) end
      local agather = require "agather"
      agather.run(function()
        local listener = agather.net.listen("127.0.0.1", 0)
        local task = agather.spawn(function() return listener:accept():read() end)
        local stream <close> = agather.net.connect(listener:local_address())
        stream:write("line\n")
        assert(task:await() == "line")
      end)
    ]]
  end)

  it("may be used when it is closed, and says so (luv 819, cqueues 141)", function()
    local runner = agather.Runner()
    local loop, listener, stream, task
    runner:run(function()
      loop = agather.get_running_loop()
      listener = agather.net.listen("127.0.0.1", 0)
      stream = agather.net.connect(listener:local_address())
      task = agather.spawn(agather.sleep, 100)
    end)
    runner:close()
    support.raises("closed", loop.call_soon, loop, print)
    support.raises("closed", loop.run_until_complete, loop, print)
    support.raises("closed", stream.read, stream)
    support.raises("closed", stream.write, stream, "x")
    support.raises("closed", listener.accept, listener)
    stream:close()
    listener:close()
    assert.is_true(task:cancelled())
    assert.is_false(task:cancel())
  end)
end)

describe("a response over HTTP", function()
  it("with stray line ends after its body costs no processor time, and spoils one request at most (lua-http 204, 233)", function()
    servers.with(function(request, stream)
      servers.respond(stream, "200 OK", nil, request.target)
      agather.spawn(function()
        agather.sleep(0.02)
        agather.pcall(stream.write, stream, "\r\n\r\n")
      end)
      return true
    end, function(base)
      local client <close> = agather.http.Client()
      assert.equal("/first", client:get(base .. "/first"):text())
      local used = os.clock()
      agather.sleep(0.5)
      assert.is_true(servers.slow or os.clock() - used < 0.02)
      local ok, text = pcall(function() return client:get(base .. "/second"):text() end) -- what came spoils the connection
      assert.is_true(ok and text == "/second" or agather.is_error(text, agather.http.ProtocolError), tostring(text))
      assert.equal("/third", client:get(base .. "/third"):text())
    end)
  end)

  it("with a length that is none is an error, or curl makes something of it, and no more (lua-eco f4808d88)", function()
    local lengths = { "-1", "abc", "", "0x10", "1e3", "5, 6", "99999999999999999999", "18446744073709551615", "5 5", "nan" }
    servers.with(function(request, stream)
      stream:write(("HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\nbytes"):format(lengths[tonumber(request.target:sub(2))]))
    end, function(base)
      local path = os.tmpname()
      for place, length in ipairs(lengths) do
        local function check(ok, value)
          local fine = ok and value == ("bytes"):sub(1, #value) or not ok and agather.is_error(value, agather.http.Error)
          assert.is_true(fine, length .. ": " .. tostring(value))
        end
        local url = ("%s/%d"):format(base, place)
        check(pcall(function() return agather.http.get(url):text() end))
        check(pcall(function()
          agather.http.download(url, path)
          return agather.fs.read_file(path)
        end))
      end
      os.remove(path)
    end)
  end)
end)

describe("a process", function()
  -- What is open or under way when the state is closed, which finalizes in an order of its own (luv 437, 599, 654, 193).
  local busy = [[
    local agather = require "agather"
    agather.run(function()
      local listener = agather.net.listen("127.0.0.1", 0)
      kept = { listener, agather.net.connect(listener:local_address()), listener:accept(), agather.net.pair() }
      agather.spawn(function() kept[3]:read() end)
      agather.spawn(function() agather.process.run { "sleep", "100" } end)
      agather.spawn(function() agather.fs.read_file("/proc/self/status") end)
      agather.spawn(agather.dns.resolve, "localhost")
      agather.spawn(agather.sleep, 100)
      agather.sleep(0.01)
      %s
    end)
  ]]

  it("ends in the middle of everything, by os.exit that closes the state", function()
    ends_well(busy:format "os.exit(true, true)")
  end)

  it("ends in the middle of everything, by os.exit that does not", function()
    ends_well(busy:format "os.exit(true, false)")
  end)

  it("ends in the middle of everything, by an error", function()
    local status, text = process(busy:format "error('here')")
    assert.equal(1, status)
    assert.truthy(text:find("here", 1, true))
  end)

  it("ends with what is left to the collector", function()
    ends_well(busy:format "for i = 1, 3 do collectgarbage() agather.sleep(0) end")
  end)
end)
