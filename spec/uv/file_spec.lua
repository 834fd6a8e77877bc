local agather = require "agather"
local limited = require "spec.support.limited"
local support = require "spec.support"
local system = require "spec.support.system"

local fs = agather.fs

-- Calls f(path, folder) in a run and checks that no descriptor stays open.
local function with_path(f)
  return function()
    agather.run(function()
      local folder <close> = system.folder()
      fs.stat("/")
      local before = system.descriptors()
      f(folder:at("x"), folder)
      collectgarbage()
      collectgarbage()
      assert.same(before, system.settled_descriptors(before))
    end)
  end
end

local slurp, spill, fails = system.slurp, system.spill, support.fails

describe("fs.open", function()
  it("knows Lua's modes", with_path(function(path)
    fails("ENOENT", fs.open, path)
    fails("ENOENT", fs.open, path, "r+")
    fs.open(path, "w"):write("one"):close()
    fs.open(path, "a"):write("two"):close()
    assert.equal("onetwo", slurp(path))
    local both <close> = fs.open(path, "r+b")
    both:write("ONE")
    assert.equal("two", both:read("a"))
    both:close()
    assert.equal("ONEtwo", slurp(path))
    fs.open(path, "w+"):close()
    assert.equal("", slurp(path))
    support.raises("bad argument #2 to 'open' (invalid mode)", fs.open, path, "rw")
    support.raises("bad argument #2 to 'open' (invalid mode)", fs.open, path, 1)
    support.raises("bad argument #1 to 'open' (path contains a zero byte)", fs.open, path .. "\0")
    support.raises("unknown option 'perm'", fs.open, path, "w", { perm = "600" })
  end))

  it("gives a new file the permission bits that are asked for", with_path(function(path)
    fs.open(path, "w", { mode = "600" }):close()
    assert.equal(tonumber("600", 8), fs.stat(path).mode)
  end))

  it("does not hand the descriptor to children", with_path(function(path)
    local file <close> = fs.open(path, "w")
    local pipe = io.popen("ls -l /proc/$$/fd")
    assert.is_nil(pipe:read("a"):find(path, 1, true))
    pipe:close()
    assert.equal(("agather.File (%s)"):format(path), tostring(file))
  end))

  it("closes what it opened for a task that is cancelled, without the collector", with_path(function(path)
    spill(path, "x")
    collectgarbage()
    collectgarbage("stop")
    local restart <close> = support.closing(function() collectgarbage("restart") end)
    assert.is_not_nil(restart)
    local before = system.descriptors(true)
    local came = 0
    for attempt = 1, 200 do
      local task = agather.spawn(fs.open, path)
      -- the last look at the system wakes the task, and this one comes first in the next turn
      for _ = 1, attempt % 40 do agather.sleep(0) end
      if attempt % 2 == 0 then
        local start = os.clock()
        repeat until os.clock() - start > 0.0005
        agather.sleep(0)
      end
      task:cancel()
      local ok, file = pcall(agather.await, task)
      if ok then
        came = came + 1
        file:close()
      end
    end
    local function open_here()
      for _, target in pairs(system.descriptors(true)) do
        if target == path then return true end
      end
    end
    local deadline = os.time() + 2 -- the pool may be about some still
    while open_here() and os.time() < deadline do agather.sleep(0.005) end
    assert.same(before, system.descriptors(true))
    assert.is_true(came < 200)
  end))

  it("refuses a folder, and use in the wrong direction", with_path(function(path, folder)
    assert.equal(folder.path, fails("EISDIR", fs.open, folder.path).address)
    local out <close> = fs.open(path, "w")
    assert.equal("read", fails("EBADF", out.read, out).operation)
    local input <close> = fs.open(path)
    assert.equal("write", fails("EBADF", input.write, input, "x").operation)
  end))

  it("does not wait at a pipe without another side", with_path(function(path)
    os.execute("mkfifo " .. path)
    fails("ENXIO", fs.open, path, "w")
    local file <close> = fs.open(path)
    assert.is_nil(file:read())
  end))
end)

describe("file", function()
  it("reads by line, number, separator and all", with_path(function(path)
    spill(path, "one\ntwo\n3 3 3--four\nfive")
    local file <close> = fs.open(path)
    assert.equal("one", file:read())
    assert.equal("two\n", file:read("L"))
    assert.equal("3 3", file:read(3))
    assert.equal(" 3--", file:read_until("--"))
    assert.equal("four", file:read_exactly(4))
    assert.equal("\nfive", file:read("a"))
    assert.equal("", file:read("a"))
    assert.is_nil(file:read("l"))
    assert.is_nil(file:read(1))
    local raised = support.raises("", file.read_exactly, file, 1)
    assert.is_true(agather.is_error(raised, agather.IncompleteReadError))
    support.raises("invalid format", file.read, file, "x")
    support.raises("number of bytes must not be negative", file.read, file, -1)
  end))

  it("reads as many bytes as a number says, and a line of any length", with_path(function(path)
    local line = ("x"):rep(3000000)
    spill(path, line .. "\nend\n")
    local file <close> = fs.open(path)
    assert.equal(2500000, #file:read(2500000))
    assert.equal(500000, #file:read("l"))
    file:seek("set")
    assert.is_true(file:read("l") == line)
    assert.equal("end", file:read())
  end))

  it("iterates over its lines", with_path(function(path)
    local lines = {}
    for number = 1, 20000 do lines[number] = "line " .. number end
    spill(path, table.concat(lines, "\n"))
    local file <close> = fs.open(path)
    local number = 0
    for line in file:lines() do
      number = number + 1
      if line ~= lines[number] then error("line " .. number .. " is " .. line) end
    end
    assert.equal(20000, number)
  end))

  it("writes strings and numbers, gathered until a flush", with_path(function(path)
    local file <close> = fs.open(path, "w")
    assert.equal(file, file:write("a", 1, 2.5, "\n"))
    assert.equal("", slurp(path))
    assert.equal(file, file:flush())
    assert.equal("a12.5\n", slurp(path))
    file:write("b"):sync()
    assert.equal("a12.5\nb", slurp(path))
    for _ = 1, 1000 do file:write(("0123456789"):rep(100)) end
    file:close()
    assert.equal(1000007, #slurp(path))
    support.raises("string expected, got table", file.write, fs.open(path, "a"), {})
  end))

  it("seeks from the start, from where it is and from the end", with_path(function(path)
    local file <close> = fs.open(path, "w+")
    file:write("0123456789")
    assert.equal(10, file:seek())
    assert.equal(3, file:seek("set", 3))
    assert.equal("34", file:read(2))
    assert.equal(6, file:seek("cur", 1))
    assert.equal("6", file:read(1))
    file:write("x") -- over the 7, though more was read ahead
    assert.equal("89", file:read("a"))
    assert.equal(8, file:seek("end", -2))
    file:seek("set")
    assert.equal("0123456x89", file:read("a"))
    fails("EINVAL", file.seek, file, "set", -1)
    fails("EINVAL", file.seek, file, "cur", math.mininteger)
    support.raises("invalid option 'middle'", file.seek, file, "middle")
    local device <close> = fs.open("/dev/null")
    assert.equal(0, device:seek("end"))
  end))

  it("appends where the file ends, whoever wrote there", with_path(function(path)
    local one <close> = fs.open(path, "a+")
    local other <close> = fs.open(path, "a+")
    one:write("one "):flush()
    other:write("other "):flush()
    one:write("again"):flush()
    assert.equal("one other again", slurp(path))
    assert.equal(15, one:seek())
    one:seek("set")
    assert.equal("one", one:read(3))
  end))

  it("sees what is written after its end was reached", with_path(function(path)
    spill(path, "one\n")
    local file <close> = fs.open(path)
    assert.equal("one", file:read())
    assert.is_nil(file:read())
    local more <close> = fs.open(path, "a")
    more:write("two\n"):flush()
    assert.equal("two", file:read())
  end))

  it("raises ENOSPC on a full device, once, at the write that finds it or at close", with_path(function()
    local file = fs.open("/dev/full", "w")
    assert.equal("/dev/full", fails("ENOSPC", file.write, file, ("x"):rep(100000)).address)
    file:close()
    file = fs.open("/dev/full", "w")
    file:write("x")
    fails("ENOSPC", file.flush, file)
    file:flush()
    file:write("x")
    assert.equal("close", fails("ENOSPC", file.close, file).operation)
    file:close()
    file = fs.open("/dev/full", "w")
    file:write("x")
    fails("ENOSPC", file.sync, file)
    file:close()
  end))

  it("raises what closing found at the end of a scope, but not over an error on its way", with_path(function()
    fails("ENOSPC", function()
      local file <close> = fs.open("/dev/full", "w")
      file:write("x")
    end)
    assert.equal("first", support.raises("first", function()
      local file <close> = fs.open("/dev/full", "w")
      file:write("x")
      error("first", 0)
    end))
  end))

  it("refuses use after close; closing twice is harmless", with_path(function(path)
    local file = fs.open(path, "w+")
    file:close()
    file:close()
    for _, name in ipairs { "read", "write", "seek", "flush", "sync", "lines" } do
      assert.equal(path, fails("EBADF", file[name], file).address)
    end
    assert.equal(("agather.File (%s, closed)"):format(path), tostring(file))
    support.raises("agather.File", file.read, io.stdout)
  end))

  it("is used by one task at a time", with_path(function(path)
    spill(path, ("x"):rep(1000000))
    local file <close> = fs.open(path)
    local first = agather.spawn(file.read, file, "a")
    agather.sleep(0)
    support.raises("another task uses the file already", file.read, file)
    assert.equal(1000000, #first:await())
  end))

  it("loses nothing to a cancelled read or write", with_path(function(path)
    local expected = {}
    for number = 1, 300 do expected[number] = ("%d: %s\n"):format(number, ("x"):rep(3000)) end
    local text = table.concat(expected)
    local out <close> = fs.open(path, "w")
    for number = 1, 300 do
      local task = agather.spawn(out.write, out, expected[number])
      support.turns(1)
      task:cancel()
      pcall(agather.await, task)
    end
    out:close()
    assert.is_true(slurp(path) == text)
    local file <close> = fs.open(path)
    local got = {}
    for turns = 0, 40 do
      local task = agather.spawn(file.read, file, "L")
      support.turns(turns % 4)
      task:cancel()
      local ok, line = pcall(agather.await, task)
      if ok then got[#got + 1] = line end
    end
    got[#got + 1] = file:read("a")
    assert.is_true(table.concat(got) == text)
  end))

  it("is written where it stands, though a cancelled read is still under way", with_path(function(path)
    for _ = 1, 30 do
      fs.write_file(path, "0123456789")
      local file <close> = fs.open(path, "r+")
      local task = agather.spawn(file.read, file, 1)
      support.turns(1)
      task:cancel()
      file:write("XY"):flush()
      assert.equal("23456789", file:read("a"))
      assert.equal("XY23456789", slurp(path))
    end
  end))

  it("wakes a reader when it is closed, and closes after the work that is under way", with_path(function(path)
    spill(path, ("x"):rep(3000000))
    local file = fs.open(path)
    local reader = agather.spawn(file.read, file, "a")
    agather.sleep(0)
    file:close()
    fails("EBADF", reader.await, reader)
  end))

  it("is flushed and closed when it is collected", with_path(function(path)
    fs.open(path, "w"):write("written")
    collectgarbage()
    collectgarbage()
    local deadline = os.time() + 2
    while slurp(path) == "" and os.time() < deadline do agather.sleep(0.001) end
    assert.equal("written", slurp(path))
  end))

  it("is flushed and closed at the end of the run", function()
    local folder <close> = system.folder()
    local file
    local before = system.descriptors()
    agather.run(function()
      file = fs.open(folder:at("x"), "w")
      file:write("written")
    end)
    assert.equal("written", slurp(folder:at("x")))
    assert.same(before, system.descriptors())
    fails("EBADF", file.write, file, "more")
    file:close()
  end)

  it("counts as a handle, as a watcher does, where the host limits them", function()
    local output = limited("handles=2", "limit", "spawn=local fs = agather.fs local a, b = fs.open('/dev/null'), fs.watch('/tmp') "
      .. "print(pcall(fs.open, '/dev/null')) print(pcall(fs.watch, '/tmp')) a:close() b:close() agather.sleep(0.001) "
      .. "local c, d = fs.watch('/tmp'), fs.open('/dev/null') print(c ~= nil and d ~= nil)", "run=5")
    assert.equal(("false\ttoo many handles: the limit is 2\n"):rep(2) .. "true\n", output)
  end)

  it("is closed by a callback, which cannot wait", with_path(function(path)
    local file = fs.open(path, "w")
    file:write("written")
    local called = agather.future()
    agather.get_running_loop():call_soon(function() called:set_result(pcall(file.close, file)) end)
    assert.is_true(called:await())
    local deadline = os.time() + 2
    while slurp(path) == "" and os.time() < deadline do agather.sleep(0.001) end
    assert.equal("written", slurp(path))
  end))
end)
