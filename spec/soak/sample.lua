-- What a process holds, as the system and Lua tell it.
local agather = require "agather"

local sample = {}

local function slurp(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

local process_id = slurp("/proc/self/stat"):match("^%d+")

local function count_words(text)
  local count = 0
  for _ in text:gmatch("%S+") do count = count + 1 end
  return count
end

--- rss in KiB, threads, children (zombies too), descriptors, tasks that are not done, seconds of processor time.
---@async
---@return table<string, number>
function sample.take()
  local status = slurp("/proc/self/status")
  return {
    rss = tonumber(status:match("VmRSS:%s*(%d+)")),
    threads = tonumber(status:match("Threads:%s*(%d+)")),
    children = count_words(slurp(("/proc/self/task/%s/children"):format(process_id))),
    descriptors = #agather.fs.scandir("/proc/self/fd") - 1, -- one is its own
    tasks = #agather.all_tasks(),
    processor = os.clock(),
  }
end

--- The same when nothing goes on, and Lua's memory in KiB after full collections.
---@async
---@return table<string, number>
function sample.take_quiet()
  for _ = 1, 3 do -- finalizers let go of more
    collectgarbage()
    agather.sleep(0)
  end
  local memory = collectgarbage("count")
  local taken = sample.take()
  taken.lua = memory
  return taken
end

return sample
