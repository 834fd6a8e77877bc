local agather = require "agather"
local support = require "spec.support"
local system = require "spec.support.system"

local fs = agather.fs

-- Calls f(folder) in a run, with a folder of its own, and checks that no descriptor stays open.
local function with_folder(f)
  return function()
    local before
    agather.run(function()
      local folder <close> = system.folder()
      fs.stat("/") -- the loop's own descriptors come with the first use
      before = system.descriptors()
      f(folder)
      collectgarbage()
      assert.same(before, system.settled_descriptors(before))
    end)
  end
end

local slurp, spill, fails = system.slurp, system.spill, support.fails

describe("fs.write_file and fs.read_file", function()
  it("write and read a whole file, bytes of every value", with_folder(function(folder)
    local data = {}
    for byte = 0, 255 do data[#data + 1] = string.char(byte) end
    data = table.concat(data):rep(1000)
    fs.write_file(folder:at("x"), data)
    assert.is_true(slurp(folder:at("x")) == data)
    assert.is_true(fs.read_file(folder:at("x")) == data)
    fs.write_file(folder:at("x"), "")
    assert.equal("", fs.read_file(folder:at("x")))
  end))

  it("read files that do not tell their size", with_folder(function()
    assert.matches("Name:", fs.read_file("/proc/self/status"))
  end))

  it("replace atomically and keep the permission bits", with_folder(function(folder)
    spill(folder:at("x"), "old")
    os.execute("chmod 640 " .. folder:at("x"))
    fs.write_file(folder:at("x"), "new", { atomic = true })
    assert.equal("new", slurp(folder:at("x")))
    assert.equal(tonumber("640", 8), fs.stat(folder:at("x")).mode)
    assert.equal(1, #fs.scandir(folder.path))
  end))

  it("give a new file the mode that is asked for, or what umask leaves", with_folder(function(folder)
    for _, atomic in ipairs { false, true } do
      fs.write_file(folder:at("secret"), "x", { atomic = atomic, mode = "600" })
      assert.equal(tonumber("600", 8), fs.stat(folder:at("secret")).mode)
      fs.write_file(folder:at("usual"), "x", { atomic = atomic })
      spill(folder:at("reference"), "x")
      assert.equal(fs.stat(folder:at("reference")).mode, fs.stat(folder:at("usual")).mode)
      for _, name in ipairs { "secret", "usual", "reference" } do fs.remove(folder:at(name)) end
    end
  end))

  it("work in the current folder, where the path has no slash", with_folder(function()
    local name = ".agather-spec-" .. system.pid
    fs.write_file(name, "here", { atomic = true })
    assert.equal("here", fs.read_file(name))
    fs.remove(name)
  end))

  it("leave the old file and no other when the disk is full", function()
    local folder <close> = system.folder()
    if not os.execute(("mount -t tmpfs -o size=64k tmpfs %s 2>/dev/null"):format(folder.path)) then
      return pending("mounting is not allowed here: no full disk")
    end
    local unmount <close> = support.closing(function() os.execute("umount " .. folder.path) end)
    assert.is_not_nil(unmount)
    agather.run(function()
      fs.write_file(folder:at("x"), "old")
      local raised = fails("ENOSPC", fs.write_file, folder:at("x"), ("x"):rep(100000), { atomic = true })
      assert.equal("fs.write_file", raised.operation)
      assert.equal(folder:at("x"), raised.address)
      assert.equal("old", fs.read_file(folder:at("x")))
      assert.equal(1, #fs.scandir(folder.path))
      fails("ENOSPC", fs.write_file, folder:at("y"), ("x"):rep(100000))
    end)
  end)

  it("leave nothing of an atomic write that is cancelled", with_folder(function(folder)
    spill(folder:at("x"), "old")
    local data = ("x"):rep(30000000)
    local writing = agather.spawn(fs.write_file, folder:at("x"), data, { atomic = true })
    agather.sleep(0.002)
    writing:cancel()
    support.turns(2)
    assert.is_true(writing:done())
    fs.stat("/")
    local deadline = os.time() + 5
    while #fs.scandir(folder.path) > 1 and os.time() < deadline do agather.sleep(0.001) end
    assert.equal(1, #fs.scandir(folder.path))
    local now = slurp(folder:at("x"))
    assert.is_true(now == "old" or now == data)
  end))

  it("refuse a path or option that is none", with_folder(function(folder)
    support.raises("bad argument #1 to 'read_file' (path contains a zero byte)", fs.read_file, "/etc/passwd\0.txt")
    support.raises("bad argument #1 to 'read_file' (string expected, got nil)", fs.read_file)
    support.raises("bad argument #2 to 'write_file' (string expected, got table)", fs.write_file, "x", {})
    support.raises("unknown option 'atomik'", fs.write_file, folder:at("x"), "", { atomik = true })
    support.raises("option 'mode' must be an integer", fs.write_file, folder:at("x"), "", { mode = "rw" })
    support.raises("option 'mode' must be an integer", fs.write_file, folder:at("x"), "", { mode = 8 ^ 5 })
    assert.same({}, fs.scandir(folder.path))
  end))

  it("say what failed", with_folder(function(folder)
    local raised = fails("ENOENT", fs.read_file, folder:at("none"))
    assert.equal("fs.read_file", raised.operation)
    assert.equal(folder:at("none"), raised.address)
    fails("EISDIR", fs.read_file, folder.path)
    fails("ENOENT", fs.write_file, folder:at("none/x"), "", { atomic = true })
    fails("EISDIR", fs.write_file, folder.path, "")
    fails("EISDIR", fs.write_file, folder.path, "", { atomic = true })
    assert.same({}, fs.scandir(folder.path))
  end))
end)

describe("fs.stat", function()
  it("tells type, size, mode and times", with_folder(function(folder)
    spill(folder:at("x"), "12345")
    os.execute(("chmod 604 %s; touch -d @1000000000.5 %s"):format(folder:at("x"), folder:at("x")))
    local stat = fs.stat(folder:at("x"))
    assert.equal("file", stat.type)
    assert.equal(5, stat.size)
    assert.equal(tonumber("604", 8), stat.mode)
    assert.equal(1000000000.5, stat.mtime)
    assert.equal(1, stat.nlink)
    assert.equal("directory", fs.stat(folder.path).type)
    assert.equal("char", fs.stat("/dev/null").type)
  end))

  it("follows a link where lstat does not", with_folder(function(folder)
    os.execute(("ln -s /dev/null %s; ln -s nowhere %s"):format(folder:at("link"), folder:at("broken")))
    assert.equal("char", fs.stat(folder:at("link")).type)
    assert.equal("link", fs.lstat(folder:at("link")).type)
    fails("ENOENT", fs.stat, folder:at("broken"))
    assert.equal("link", fs.lstat(folder:at("broken")).type)
  end))
end)

describe("fs.exists", function()
  it("tells whether something is there, and raises where it cannot tell", with_folder(function(folder)
    assert.is_true(fs.exists(folder.path))
    assert.is_false(fs.exists(folder:at("none")))
    assert.is_false(fs.exists("/dev/null/x"))
    fails("ENAMETOOLONG", fs.exists, folder:at(("x"):rep(300)))
  end))
end)

describe("fs.scandir", function()
  it("lists names in order with their types", with_folder(function(folder)
    os.execute(("cd %s; touch b .hidden; mkdir a; ln -s b c; mkfifo d"):format(folder.path))
    assert.same({
      { name = ".hidden", type = "file" }, { name = "a", type = "directory" }, { name = "b", type = "file" },
      { name = "c", type = "link" }, { name = "d", type = "fifo" },
    }, fs.scandir(folder.path))
  end))

  it("lists many", with_folder(function(folder)
    os.execute(("cd %s; seq 600 | xargs touch"):format(folder.path))
    assert.equal(600, #fs.scandir(folder.path))
  end))

  it("raises for what is no folder", with_folder(function(folder)
    fails("ENOTDIR", fs.scandir, "/dev/null")
    fails("ENOENT", fs.scandir, folder:at("none"))
  end))
end)

describe("fs.mkdir", function()
  it("makes a folder with a mode, and its parents on request", with_folder(function(folder)
    fs.mkdir(folder:at("a"), { mode = "700" })
    assert.equal(tonumber("700", 8), fs.stat(folder:at("a")).mode)
    fails("EEXIST", fs.mkdir, folder:at("a"))
    fails("ENOENT", fs.mkdir, folder:at("b/c"))
    fs.mkdir(folder:at("b//c/d/"), { parents = true })
    fs.mkdir(folder:at("b/c/d"), { parents = true })
    assert.equal("directory", fs.stat(folder:at("b/c/d")).type)
    spill(folder:at("file"), "")
    fails("EEXIST", fs.mkdir, folder:at("file"), { parents = true })
    fails("ENOTDIR", fs.mkdir, folder:at("file/x/y"), { parents = true })
    fails("ENOENT", fs.mkdir, "", { parents = true })
    support.raises("unknown option 'parent'", fs.mkdir, "x", { parent = true })
  end))
end)

describe("fs.rename and fs.copy_file", function()
  it("move and copy, replacing what is there", with_folder(function(folder)
    spill(folder:at("a"), "A")
    spill(folder:at("b"), "B")
    fs.rename(folder:at("a"), folder:at("b"))
    assert.equal("A", slurp(folder:at("b")))
    fs.copy_file(folder:at("b"), folder:at("c"))
    assert.equal("A", slurp(folder:at("c")))
    fails("EEXIST", fs.copy_file, folder:at("b"), folder:at("c"), { exclusive = true })
    assert.equal(2, #fs.scandir(folder.path))
  end))

  it("copy permission bits, what does not tell its size, and much", with_folder(function(folder)
    local data = ("0123456789abcdef"):rep(500000)
    spill(folder:at("a"), data)
    os.execute("chmod 640 " .. folder:at("a"))
    fs.copy_file(folder:at("a"), folder:at("b"))
    assert.equal(tonumber("640", 8), fs.stat(folder:at("b")).mode)
    assert.is_true(slurp(folder:at("b")) == data)
    fs.copy_file("/proc/version", folder:at("b"))
    assert.equal(slurp("/proc/version"), slurp(folder:at("b")))
    fs.copy_file(folder:at("a"), "/dev/null")
  end))

  it("do not copy a file over itself, nor leave a part of one", with_folder(function(folder)
    spill(folder:at("a"), ("x"):rep(300000))
    os.execute(("ln %s %s"):format(folder:at("a"), folder:at("same")))
    fails("EINVAL", fs.copy_file, folder:at("a"), folder:at("a"))
    fails("EINVAL", fs.copy_file, folder:at("a"), folder:at("same"))
    assert.equal(300000, #slurp(folder:at("a")))
    fails("EISDIR", fs.copy_file, folder.path, folder:at("d"))
    fails("ENOSPC", fs.copy_file, folder:at("a"), "/dev/full")
    assert.equal(2, #fs.scandir(folder.path))
  end))

  it("end with a file that shrinks or grows while it is copied", with_folder(function(folder)
    spill(folder:at("a"), ("x"):rep(3000000))
    local copies = {}
    for i = 1, 8 do copies[i] = agather.spawn(fs.copy_file, folder:at("a"), folder:at("b" .. i)) end
    for _ = 1, 20 do
      spill(folder:at("a"), "")
      spill(folder:at("a"), ("y"):rep(1000000))
      agather.sleep(0)
    end
    for i = 1, 8 do copies[i]:await() end
  end))

  it("name both paths when they fail", with_folder(function(folder)
    local raised = fails("ENOENT", fs.rename, folder:at("a"), folder:at("b"))
    assert.equal(folder:at("a") .. " -> " .. folder:at("b"), raised.address)
    fails("ENOENT", fs.copy_file, folder:at("a"), folder:at("b"))
    support.raises("bad argument #2 to 'rename' (path contains a zero byte)", fs.rename, "x", "y\0")
  end))
end)

describe("fs.remove", function()
  it("removes files and empty folders", with_folder(function(folder)
    spill(folder:at("x"), "")
    fs.mkdir(folder:at("d"))
    fs.remove(folder:at("x"))
    fs.remove(folder:at("d"))
    fails("ENOENT", fs.remove, folder:at("x"))
    assert.same({}, fs.scandir(folder.path))
  end))

  it("removes a tree only when it is asked to, and follows no link out of it", with_folder(function(folder)
    os.execute(("cd %s; mkdir -p t/a/b/c keep; touch t/a/x t/a/b/y keep/z; ln -s ../keep t/link; ln -s nowhere t/broken")
      :format(folder.path))
    fails("ENOTEMPTY", fs.remove, folder:at("t"))
    fs.remove(folder:at("t"), { recursive = true })
    assert.same({ { name = "keep", type = "directory" } }, fs.scandir(folder.path))
    assert.same({ { name = "z", type = "file" } }, fs.scandir(folder:at("keep")))
    os.execute("ln -s keep " .. folder:at("link"))
    fs.remove(folder:at("link"), { recursive = true })
    assert.is_true(fs.exists(folder:at("keep/z")))
    fails("ENOENT", fs.remove, folder:at("t"), { recursive = true })
  end))

  it("removes a deep and wide tree", with_folder(function(folder)
    fs.mkdir(folder:at("t/" .. ("d/"):rep(60)), { parents = true })
    os.execute(("cd %s/t; seq 300 | xargs touch"):format(folder.path))
    fs.remove(folder:at("t"), { recursive = true })
    assert.same({}, fs.scandir(folder.path))
  end))
end)

describe("an operation on files", function()
  it("frees a cancelled task at once while the pool is busy", with_folder(function(folder)
    -- eight readers of an endless device hold the four threads; the stat behind them never begins
    local busy = {}
    for i = 1, 8 do busy[i] = agather.spawn(fs.read_file, "/dev/zero") end
    local waiting = agather.spawn(fs.stat, folder.path)
    agather.sleep(0.01)
    assert.is_false(waiting:done())
    waiting:cancel()
    for i = 1, 8 do busy[i]:cancel() end
    support.turns(2)
    for i = 1, 8 do assert.is_true(busy[i]:cancelled()) end
    assert.is_true(waiting:cancelled())
    collectgarbage()
    assert.equal("directory", fs.stat(folder.path).type)
  end))

  it("is cancelled at every point of its way", with_folder(function(folder)
    spill(folder:at("x"), ("x"):rep(100000))
    for turns = 0, 12 do
      for _, f in ipairs { fs.stat, fs.scandir, fs.read_file, fs.copy_file } do
        local path = f == fs.scandir and folder.path or folder:at("x")
        local task = agather.spawn(f, path, f == fs.copy_file and folder:at("y") or nil)
        for _ = 1, turns do agather.sleep(turns > 6 and 0.0001 or 0) end
        task:cancel()
        pcall(agather.await, task)
        assert.is_true(task:done())
      end
      collectgarbage()
    end
    assert.equal(100000, #fs.read_file(folder:at("x")))
  end))

  it("cannot begin where nobody could wait for it", function()
    local folder <close> = system.folder()
    support.raises("no running task", fs.write_file, folder:at("x"), "data")
    agather.run(function()
      support.raises("wait", function() table.sort({ 1, 2 }, function() fs.write_file(folder:at("x"), "data") end) end)
      assert.same({}, fs.scandir(folder.path))
    end)
  end)

  it("ends with a run that does not wait for it", function()
    local folder <close> = system.folder()
    agather.run(function()
      agather.spawn(fs.write_file, folder:at("x"), ("x"):rep(1000000), { atomic = true })
      agather.spawn(fs.read_file, "/dev/zero")
      agather.sleep(0)
    end)
    collectgarbage()
    local names = {}
    for name in system.output("ls -A " .. folder.path):gmatch("[^\n]+") do names[#names + 1] = name end
    assert.is_true(#names == 0 or #names == 1 and names[1] == "x")
  end)

  it("survives descriptors that run out, also where the loop's own are to come", function()
    local output, status = support.script([[
      local fs = require "agather.fs"
      local codes, held = {}, {}
      agather.run(function()
        while true do
          local file = io.open("/dev/null")
          if not file then break end
          held[#held + 1] = file
        end
        repeat
          local ok, err = pcall(fs.read_file, "/proc/self/stat")
          codes[#codes + 1] = ok and "read" or err.code
          table.remove(held):close()
        until ok
      end)
      print(table.concat(codes, " "))
    ]], "ulimit -n 40;")
    assert.matches("^EMFILE EMFILE [EMFILE ]+read\n$", output)
    assert.equal(0, status)
  end)
end)
