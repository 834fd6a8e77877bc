-- Uses files, watchers and signals, for spec/embed/torture.c: see scarce_spec.lua. AGATHER_FOLDER is an empty folder.
local agather = require "agather"
local fs, signal = agather.fs, agather.signal
local folder = os.getenv("AGATHER_FOLDER")

agather.run(function()
  agather.get_running_loop():set_exception_handler(function() end)
  fs.mkdir(folder .. "/a/b", { parents = true })
  local path = folder .. "/a/b/x"
  local watcher <close> = fs.watch(folder .. "/a/b")
  fs.write_file(path, "data\nmore\n", { atomic = true })
  watcher:wait()
  fs.read_file(path)
  fs.stat(path)
  fs.scandir(folder .. "/a/b")
  fs.copy_file(path, path .. "y")
  pcall(fs.rename, path .. "z", path)
  local file <close> = fs.open(path, "r+")
  file:read()
  file:write("x", 1):flush()
  file:seek("set", 0)
  for _ in file:lines() do agather.sleep(0) end
  fs.open(path) -- left to the collector
  local _ <close> = signal.on("SIGUSR1", function() end)
  for _, f in ipairs { fs.read_file, fs.open, function() signal.wait("SIGUSR1", "SIGUSR2") end } do
    local task = agather.spawn(f, path)
    agather.sleep(0)
    task:cancel()
    pcall(agather.await, task)
  end
  fs.remove(folder .. "/a", { recursive = true })
end)
