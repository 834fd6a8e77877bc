-- What specs ask the system: folders of their own, open descriptors, children.
local agather = require "agather"

local system = {}

local Folder = {}
Folder.__index = Folder

--- The path of what is called [name] in it.
function Folder:at(name) return self.path .. "/" .. name end

function Folder:__close() os.execute("rm -rf '" .. self.path .. "'") end

--- A new empty folder with .path, removed with all that is in it when the value is closed.
function system.folder()
  local pipe = assert(io.popen("mktemp -d"))
  local path = pipe:read("l")
  pipe:close()
  return setmetatable({ path = path }, Folder)
end

--- This process's id.
do
  local stat <close> = assert(io.open("/proc/self/stat"))
  system.pid = math.tointeger(stat:read("n"))
end

--- What a shell command prints.
---@param command string
---@return string
function system.output(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("a")
  pipe:close()
  return text
end

local output = system.output

--- What the open descriptors of this process lead to, by their number; those of garbage are closed first.
---@param with_garbage? boolean those of garbage stay open
---@return table<string, string>
function system.descriptors(with_garbage)
  if not with_garbage then
    collectgarbage()
    collectgarbage()
  end
  local found, own = {}, nil
  for line in output(("readlink /proc/$$/fd/1; ls -l /proc/%d/fd"):format(system.pid)):gmatch("[^\n]+") do
    local number, target = line:match("(%d+) %-> (.*)$")
    own = own or line
    if number and target ~= own then found[number] = target end
  end
  return found
end

--- The children of this process, zombies too: their state and name by their ids.
---@param known? table<integer, any> those that are none of the caller's, from an earlier call
---@return table<integer, string>
function system.children(known)
  local shell
  local found = {}
  for line in output("echo $$; cat /proc/[0-9]*/stat 2>/dev/null"):gmatch("[^\n]+") do
    shell = shell or line
    local pid, name, state, parent = line:match("^(%d+) (%b()) (%a) (%d+)")
    if tonumber(parent) == system.pid and pid ~= shell and not (known and known[tonumber(pid)]) then
      found[tonumber(pid)] = state .. " " .. name
    end
  end
  return found
end

--- The letter that tells the state of a process, such as "Z"; nil where there is none.
---@return string?
function system.state(pid)
  local file <close> = io.open("/proc/" .. pid .. "/stat")
  return file and file:read("a"):match("%) (%a)")
end

--- The signals that this process catches, as the kernel's mask.
---@return string
function system.caught()
  for line in io.lines("/proc/self/status") do
    local mask = line:match("^SigCgt:%s*(%x+)")
    if mask then return mask end
  end
end

--- All of a file, read by Lua's own library.
---@param path string
---@return string
function system.slurp(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

--- Writes a file by Lua's own library.
---@param path string
---@param data string
function system.spill(path, data)
  local file <close> = assert(io.open(path, "wb"))
  file:write(data)
end

local function count(set)
  local n = 0
  for _ in pairs(set) do n = n + 1 end
  return n
end

--- The open descriptors, once there are no more than [before]: what the pool is to close takes a moment, in a task. They
--- are given as they are after 5 s.
---@async
---@param before table<string, string>
function system.settled_descriptors(before)
  local deadline = os.time() + 5
  local found = system.descriptors()
  while count(found) > count(before) and os.time() < deadline do
    agather.sleep(0.01)
    found = system.descriptors()
  end
  return found
end

return system
