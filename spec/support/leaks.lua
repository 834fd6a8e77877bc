-- A helper of busted: after each spec file the process has the descriptors, children and threads that it had before, or
-- the file fails.
local busted = require "busted"
local system = require "spec.support.system"

-- Threads of libuv's pool, which begin with its first use and end with the process.
local POOL = 4

-- How long what ends by itself may take, in seconds: a thread that looks a name up, a socket that another one closes.
local PATIENCE = 5

local signal_pipe -- libuv's, which it makes once and keeps: what its ends lead to

local function threads()
  for line in io.lines("/proc/self/status") do
    local count = line:match("^Threads:%s*(%d+)")
    if count then return tonumber(count) end
  end
end

-- The children that this thread has made: their states by their ids. Where the kernel does not list them: all children.
local function children()
  local file <close> = io.open(("/proc/%d/task/%d/children"):format(system.pid, system.pid))
  if not file then return system.children() end
  local found = {}
  for id in file:read("a"):gmatch("%d+") do found[tonumber(id)] = system.state(id) end
  return found
end

local function now() return { descriptors = system.descriptors(), children = children(), threads = threads() } end

-- The pipe that has two ends more than before.
local function new_pipe(before, after)
  local ends = {}
  for number, target in pairs(after) do
    if before[number] ~= target and target:find("^pipe:") then
      ends[target] = (ends[target] or 0) + 1
      if ends[target] == 2 then return target end
    end
  end
end

local before -- what was there before the file that runs
local single -- threads before the first file

-- What is there that was not, one a line.
local function left(after)
  local found = {}
  for number, target in pairs(after.descriptors) do
    if before.descriptors[number] ~= target and target ~= signal_pipe then
      found[#found + 1] = ("descriptor %s: %s"):format(number, target)
    end
  end
  for id, child in pairs(after.children) do
    if not before.children[id] then found[#found + 1] = ("child %d: %s"):format(id, child) end
  end
  if after.threads > math.max(before.threads, single + POOL) then
    found[#found + 1] = ("%d threads, there were %d"):format(after.threads, before.threads)
  end
  table.sort(found)
  return found
end

busted.subscribe({ "file", "start" }, function()
  single = single or threads()
  before = before or now()
end)

busted.subscribe({ "file", "end" }, function(file)
  local after = now()
  if not signal_pipe then signal_pipe = new_pipe(before.descriptors, after.descriptors) end
  local found = left(after)
  local deadline = os.time() + PATIENCE
  while #found > 0 and os.time() < deadline do
    os.execute("sleep 0.02")
    after = now()
    found = left(after)
  end
  before = after -- what this file has left is not the next one's
  if #found > 0 then error(("%s leaves\n  %s"):format(file.name, table.concat(found, "\n  ")), 0) end
end)
