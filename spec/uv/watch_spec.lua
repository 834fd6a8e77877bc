local agather = require "agather"
local support = require "spec.support"
local system = require "spec.support.system"

local fs = agather.fs

-- Calls f(folder, watcher) in a run, with a folder that is watched.
local function with_watcher(f)
  return function()
    agather.run(function()
      local folder <close> = system.folder()
      local watcher <close> = fs.watch(folder.path)
      f(folder, watcher)
    end)
  end
end

local function fails(code, f, ...)
  local raised = support.raises(code, f, ...)
  assert.is_true(agather.is_error(raised, agather.OSError))
  assert.equal(code, raised.code)
  return raised
end

describe("fs.watch", function()
  it("tells what is made, changed, moved and removed in a folder", with_watcher(function(folder, watcher)
    fs.mkdir(folder:at("d"))
    assert.same({ "rename", "d" }, { watcher:wait() })
    os.execute("echo x >> " .. folder:at("f"))
    assert.same({ "rename", "f" }, { watcher:wait() })
    assert.same({ "change", "f" }, { watcher:wait() })
    fs.rename(folder:at("f"), folder:at("g"))
    assert.same({ "rename", "f" }, { watcher:wait() })
    assert.same({ "rename", "g" }, { watcher:wait() })
    fs.remove(folder:at("g"))
    assert.same({ "rename", "g" }, { watcher:wait() })
  end))

  it("watches one file", with_watcher(function(folder)
    fs.write_file(folder:at("f"), "")
    local watcher <close> = fs.watch(folder:at("f"))
    fs.write_file(folder:at("g"), "not this")
    fs.write_file(folder:at("f"), "this")
    assert.same({ "change", "f" }, { watcher:wait() })
  end))

  it("iterates over events", with_watcher(function(folder, watcher)
    local names = {}
    for i = 1, 3 do fs.mkdir(folder:at(tostring(i))) end
    for kind, name in watcher:events() do
      assert.equal("rename", kind)
      names[#names + 1] = name
      if #names == 3 then break end
    end
    assert.same({ "1", "2", "3" }, names)
  end))

  it("keeps a bounded number of events, and says that some were lost", with_watcher(function(folder, watcher)
    local a, b = folder:at("a"), folder:at("b")
    assert(io.open(a, "w")):close()
    for _ = 1, 600 do -- two events each
      assert(os.rename(a, b))
      assert(os.rename(b, a))
    end
    agather.sleep(0.01)
    local kinds = {}
    repeat
      local kind = watcher:wait()
      kinds[kind] = (kinds[kind] or 0) + 1
    until kind == "overflow"
    assert.equal(1024, kinds.rename + (kinds.change or 0))
    assert.equal(1, kinds.overflow)
    fs.mkdir(folder:at("last"))
    assert.same({ "rename", "last" }, { watcher:wait() })
  end))

  it("is cancelled, and goes on after it", with_watcher(function(folder, watcher)
    local waiting = agather.spawn(watcher.wait, watcher)
    support.turns(2)
    support.raises("another task waits already", watcher.wait, watcher)
    waiting:cancel()
    pcall(agather.await, waiting)
    assert.is_true(waiting:cancelled())
    fs.mkdir(folder:at("d"))
    assert.same({ "rename", "d" }, { watcher:wait() })
    support.raises("", agather.wait_for, function() watcher:wait() end, 0.01)
  end))

  it("wakes who waits when it is closed, refuses use afterwards, closes twice", with_watcher(function(folder, watcher)
    local waiting = agather.spawn(watcher.wait, watcher)
    support.turns(2)
    watcher:close()
    watcher:close()
    assert.equal(folder.path, fails("EBADF", waiting.await, waiting).address)
    fails("EBADF", watcher.wait, watcher)
    fails("EBADF", function() for _ in watcher:events() do error("an event") end end)
  end))

  it("is collected, and ends with its loop", function()
    local kept
    local before = system.descriptors()
    agather.run(function()
      fs.watch("/tmp")
      collectgarbage()
      kept = fs.watch("/tmp")
      agather.sleep(0)
    end)
    assert.same(before, system.descriptors())
    fails("EBADF", kept.wait, kept)
    kept:close()
  end)

  it("is no deadlock while nothing else is left", function()
    local folder <close> = system.folder()
    os.execute(("(sleep 0.05; mkdir %s) &"):format(folder:at("late")))
    assert.equal("rename", agather.run(function()
      local watcher <close> = fs.watch(folder.path)
      return (watcher:wait())
    end))
  end)

  it("says what failed", with_watcher(function(folder)
    local raised = fails("ENOENT", fs.watch, folder:at("none"))
    assert.equal("fs.watch", raised.operation)
    assert.equal(folder:at("none"), raised.address)
    support.raises("bad argument #1 to 'watch' (path contains a zero byte)", fs.watch, "x\0")
    support.raises("bad argument #1 to 'watch' (string expected, got nil)", fs.watch)
  end))
end)
