-- Files in a folder of their own: written, read, copied, watched and removed.
local agather = require "agather"
local engine = require "spec.soak.engine"

local equal, raises, bytes = engine.equal, engine.raises, engine.bytes

return {
  name = "files",
  start = function(soak)
    local fs, random = agather.fs, engine.random(7)
    local folder = soak.folder .. "/files"
    fs.mkdir(folder)
    soak:at_end(function() fs.remove(folder, { recursive = true }) end)
    soak:every(10, "what is written is read", function()
      local path, written = folder .. "/whole", bytes(random, random(200000))
      fs.write_file(path, written, { atomic = random(2) == 1 })
      equal(written, fs.read_file(path))
    end)
    soak:every(5, "lines, places and ends", function()
      local path = folder .. "/lines"
      do
        local file <close> = fs.open(path, "w")
        for place = 1, 100 do file:write("line ", place, "\n") end
      end
      local file <close> = fs.open(path)
      local count = 0
      for line in file:lines() do
        count = count + 1
        equal("line " .. count, line)
      end
      equal(100, count)
      file:seek("set", 5)
      equal("1", file:read())
    end)
    soak:every(2, "folders are made, listed, copied from and removed", function()
      local top = folder .. "/tree"
      fs.mkdir(top .. "/a/b", { parents = true })
      for place = 1, 5 do fs.write_file(("%s/a/b/%d"):format(top, place), "content") end
      fs.copy_file(top .. "/a/b/1", top .. "/copy")
      fs.rename(top .. "/copy", top .. "/moved")
      equal("content", fs.read_file(top .. "/moved"))
      equal(5, #fs.scandir(top .. "/a/b"))
      fs.remove(top, { recursive = true })
      assert(not fs.exists(top))
    end)
    soak:every(2, "a watcher sees what happens", function()
      local place = folder .. "/watched"
      fs.mkdir(place)
      do
        local watcher <close> = fs.watch(place)
        fs.write_file(place .. "/new", "x")
        local _ <close> = agather.timeout(engine.PATIENCE)
        local _, name = watcher:wait()
        equal("new", name)
      end
      local watcher <close> = fs.watch(place)
      engine.cancelled(0.002, watcher.wait, watcher)
      fs.remove(place, { recursive = true })
    end)
    soak:every(5, "jobs are cancelled anywhere", function()
      local path = folder .. "/cancelled"
      engine.cancelled(random() * 0.002, function()
        while true do
          fs.write_file(path, ("x"):rep(50000), { atomic = true })
          equal(50000, #fs.read_file(path))
          local file <close> = fs.open(path)
          file:read("a")
        end
      end)
    end)
    soak:every(5, "what is not there", function()
      equal("ENOENT", raises(agather.OSError, fs.read_file, folder .. "/nothing").code)
      equal("ENOENT", raises(agather.OSError, fs.open, folder .. "/nothing").code)
      equal("ENOTDIR", raises(agather.OSError, fs.stat, folder .. "/whole/x").code)
    end)
  end,
}
