-- Files, folders, watchers and signals, for torture.c.
local agather = require "agather"
local fs, signal = agather.fs, agather.signal

local folder = os.tmpname()

local function use_file(path)
  local file <close> = fs.open(path, "r+")
  local _ = tostring(file)
  file:read()
  file:write("x", 1):flush()
  file:sync()
  file:seek("set", 0)
  for _ in file:lines() do agather.sleep(0) end
  file:seek("set", 0)
  file:read_exactly(2)
  file:read_until("e")
  file:read("a")
  agather.pcall(file.read_exactly, file, 1)
  file:close()
  agather.pcall(file.read, file)
end

local function use_watcher(path)
  local watcher <close> = fs.watch(folder .. "/a/b")
  fs.write_file(path, "data\nmore\n", { atomic = true, mode = "600" })
  watcher:wait()
  fs.write_file(path .. "w", "more")
  for _ in watcher:events() do break end
  agather.pcall(agather.wait_for, function()
    while true do watcher:wait() end
  end, 0)
  watcher:close()
  agather.pcall(fs.watch, "/no/such/folder")
end

local pid

local function use_signals()
  local heard = agather.future()
  local handler <close> = signal.on("SIGUSR1", function()
    if not heard:done() then heard:set_result() end
  end)
  agather.spawn(function() agather.process.run { "kill", "-USR1", pid } end):await()
  agather.wait({ heard }, { timeout = 0.02 })
  handler:close()
  local waiting = agather.spawn(signal.wait, "SIGUSR1", "SIGUSR2")
  agather.sleep(0)
  waiting:cancel()
  agather.wait { waiting }
end

return {
  before = function()
    local status <close> = assert(io.open("/proc/self/stat"))
    pid = status:read("n")
    os.execute("rm -rf " .. folder .. "; mkdir " .. folder)
  end,
  run = function()
    fs.mkdir(folder .. "/a/b", { parents = true, mode = 448 })
    local path = folder .. "/a/b/x"
    use_watcher(path)
    fs.read_file(path)
    fs.stat(path)
    fs.lstat(path)
    fs.exists(path)
    fs.scandir(folder .. "/a/b")
    fs.copy_file(path, path .. "y", { exclusive = true })
    fs.rename(path .. "y", path .. "z")
    agather.pcall(fs.rename, path .. "no", path)
    fs.write_file(path, "data\nmore\n")
    use_file(path)
    fs.open(path) -- left to the collector
    for _, f in ipairs { fs.read_file, fs.open, fs.stat } do
      local task = agather.spawn(f, path)
      agather.sleep(0)
      task:cancel()
      agather.wait { task }
    end
    use_signals()
    fs.remove(folder .. "/a", { recursive = true })
  end,
  after = function()
    fs.write_file(folder .. "/after", "text")
    assert(fs.read_file(folder .. "/after") == "text")
    fs.remove(folder, { recursive = true })
  end,
}
