-- For scripts that see system calls fail: strace attaches to the script's own process and answers calls with errors
-- while a scenario runs, again and again. Only the main thread is traced, or the threads of libuv's pool: neither
-- children nor what looks after the scenario gets errors that are meant for the library.
local agather = require "agather"
local system = require "spec.support.system"

local faults = {}

local full = os.getenv("AGATHER_TORTURE") == "full"

-- Every fault of the tables in a full run; otherwise each STRIDE-th, another one of each call.
local STRIDE = tonumber(os.getenv("AGATHER_STRIDE")) or 30

-- Of the calls of ROUNDS rounds each STEP-th fails, from the first, the second ... on.
local ROUNDS, STEP = 8, 7

-- What a round takes at most before it counts as hanging, in seconds.
local LONGEST = 5

local base = os.tmpname()

-- Runs a command; again where it did not come to it, as this process's own calls may be those that fail.
local function execute(command)
  for _ = 1, 100 do
    local ok, _, status = os.execute(command)
    if ok then return end
    if status == 3 then break end
  end
  error("cannot run: " .. command)
end

--- All threads but this one: those of libuv's pool.
---@return integer[]
function faults.threads()
  local list = {}
  for id in system.output(("ls /proc/%d/task"):format(system.pid)):gmatch("%d+") do
    if tonumber(id) ~= system.pid then list[#list + 1] = tonumber(id) end
  end
  return list
end

--- strace attaches to the threads, this one unless given, and injects; see strace(1) for [fault].
---@param fault string such as "read:error=EIO:when=2+3"
---@param threads? integer[]
---@param paths? string[] only calls for these files
function faults.attach(fault, threads, paths)
  local processes = ""
  for _, id in ipairs(threads or { system.pid }) do processes = processes .. " -p " .. id end
  for _, path in ipairs(paths or {}) do processes = processes .. " -P " .. path end
  execute((([[
    unset LD_PRELOAD
    : >BASE.err
    strace -o BASE.log -e trace=CALLS -e inject=%s %s 2>BASE.err &
    echo $! >BASE.pid
    tries=0
    until grep -q attached BASE.err; do
      tries=$((tries + 1))
      [ $tries -lt 1000 ] && ! grep 'strace: [^P]' BASE.err || exit 3
      sleep 0.002
    done
  ]]):gsub("BASE", base):gsub("CALLS", fault:match("^[^:]+"))):format(fault, processes))
end

--- It lets go; returns how many calls got the error.
---@return integer
function faults.detach()
  execute(([[
    pid=$(cat BASE.pid)
    kill -INT $pid 2>/dev/null
    while grep -q 'TracerPid:.[1-9]' /proc/PROCESS/task/*/status; do sleep 0.002; done
  ]]):gsub("BASE", base):gsub("PROCESS", tostring(system.pid)))
  local count = 0
  for line in io.lines(base .. ".log") do
    if line:find("(INJECTED)", 1, true) then count = count + 1 end
  end
  return count
end

-- ---- a table of faults ----

local complaints, tried, injected = 0, 0, 0

local function complain(scenario, fault, text, ...)
  complaints = complaints + 1
  print(("%s, %s: %s"):format(scenario.name, fault, text:format(...)))
  io.stdout:flush()
end

local function words(text)
  local set = {}
  for word in (text or ""):gmatch("%S+") do set[word] = true end
  return set
end

-- Of errors that have two names, the one that libuv gives.
local NAMES = { EOPNOTSUPP = "ENOTSUP", EWOULDBLOCK = "EAGAIN", EDEADLOCK = "EDEADLK" }

local function code_of(err)
  if tostring(err):find("not enough memory", 1, true) then return "ENOMEM" end -- the system's or Lua's: the same to all
  local http = package.loaded["agather.http"]
  if http and agather.is_error(err, http.Error) then return "http" end
  if tostring(err):find("assertion failed!", 1, true) then return "assertion" end
  return type(err) == "table" and err.code or agather.is_error(err) and tostring(err):match("^%w+") or tostring(err)
end

-- One round, in a task: nil, or the error.
local function attempt(scenario, seconds)
  local ok, err = pcall(function()
    local _ <close> = agather.timeout(seconds or LONGEST)
    scenario.run()
  end)
  if not ok then return err end
end

local function tasks_left()
  for _ = 1, 3 do agather.sleep(0) end
  return #agather.all_tasks() - 1
end

-- Calls note(err or nil) for each round.
local function rounds_in_one_loop(scenario, call, fault, note)
  faults.attach(fault, scenario.threads and scenario.threads(), call.paths)
  for _ = 1, ROUNDS do
    note(attempt(scenario, call.longest))
    local left = tasks_left()
    if left > 0 then complain(scenario, fault, "%d tasks are left", left) end
  end
end

local function rounds_in_loops(scenario, call, fault, note)
  faults.attach(fault, scenario.threads and scenario.threads(), call.paths)
  for _ = 1, ROUNDS do
    local failure
    local ok, err = pcall(agather.run, function() failure = attempt(scenario, call.longest) end)
    note(failure or not ok and err or nil)
  end
end

-- More than any script here has.
local DESCRIPTORS = 128

-- The numbers of the open descriptors: without another process, unlike system.descriptors.
local function open_descriptors()
  collectgarbage()
  collectgarbage()
  local open = {}
  for number = 0, DESCRIPTORS do
    local file = io.open("/proc/self/fdinfo/" .. number)
    if file then open[number] = true end
    if file then file:close() end
  end
  return open
end

-- Those that are open now and were not; what the pool has still to close takes a moment.
local function opened_since(before, in_task)
  local list
  for _ = 1, 50 do
    local now = open_descriptors()
    list = {}
    for number in pairs(now) do
      if not before[number] then list[#list + 1] = number end
    end
    if #list == 0 or not in_task then break end
    agather.sleep(0.01)
  end
  return list
end

local function check_descriptors(scenario, fault, before, allowed, in_task)
  local list = opened_since(before, in_task)
  if #list <= allowed then return end
  local targets = system.descriptors()
  for place, number in ipairs(list) do list[place] = number .. " " .. (targets[tostring(number)] or "") end
  complain(scenario, fault, "leaves descriptors: %s", table.concat(list, ", "))
end

local function check_afterwards(scenario, fault)
  local err = attempt(scenario)
  if err then complain(scenario, fault, "afterwards a round ended with %s", err) end
  local children <close> = io.open(("/proc/%d/task/%d/children"):format(system.pid, system.pid))
  for id in (children and children:read("a") or ""):gmatch("%d+") do
    complain(scenario, fault, "leaves the child %s, %s", id, system.state(id))
  end
end

-- [kind] is what the code must do: "raises" (a round fails with it), "hides" (no round fails) or "either".
local function try(scenario, call, code, kind, first)
  local fault = ("%s:error=%s:when=%d+%d"):format(call.name, code, first, STEP)
  local follow = words((scenario.follow or "") .. " " .. (call.follow or ""))
  local raised = 0
  local function note(err)
    if not err then return end
    local found = code_of(err)
    if found == (NAMES[code] or code) and kind ~= "hides" then
      raised = raised + 1
    elseif not follow[found] then
      complain(scenario, fault, "a round ended with %s", err)
    end
  end
  local before, in_task = open_descriptors(), not call.fresh
  if in_task then
    rounds_in_one_loop(scenario, call, fault, note)
  else
    rounds_in_loops(scenario, call, fault, note)
  end
  local hits = faults.detach()
  if in_task then
    check_afterwards(scenario, fault)
  else
    agather.run(check_afterwards, scenario, fault)
  end
  check_descriptors(scenario, fault, before, call.name == "close" and hits or 0, in_task)
  if kind == "raises" and hits > 0 and raised == 0 then complain(scenario, fault, "no round failed of %d hits", hits) end
  if hits > 0 or not call.rare then tried, injected = tried + 1, injected + hits end
  return hits
end

local function try_all(scenario, list)
  local index = 0
  for _, call in ipairs(list) do
    local hits, some = 0, false
    for _, kind in ipairs { "raises", "hides", "either" } do
      for code in (call[kind] or ""):gmatch("%S+") do
        index = index + 1
        if full or index % STRIDE == 0 or not some then
          -- in a full run what nobody may notice is tried at every place, the others at two
          local places = not full and 1 or kind == "hides" and STEP or 2
          for place = 1, places do hits = hits + try(scenario, call, code, kind, (index + 3 * place) % STEP + 1) end
          some = true
        end
      end
    end
    if hits == 0 and not call.rare then complain(scenario, call.name, "there is no such call") end
  end
end

--- Tries the faults of a scenario. scenario.run() is called in a task; it must end, with or without an error. calls is
--- a list of { name =, raises = codes, hides = codes, either = codes, follow = codes of what comes of them,
--- paths = files that the calls are for, longest = seconds until a round counts as hanging, fresh = whether each round
--- has a loop of its own, rare = whether there may be no such call }.
---@param scenario { name: string, run: function, follow?: string, threads?: function, calls: table[] }
function faults.sweep(scenario)
  local lists = { fresh = {}, same = {} }
  for _, call in ipairs(scenario.calls) do
    local list = call.fresh and lists.fresh or lists.same
    list[#list + 1] = call
  end
  agather.run(function()
    check_afterwards(scenario, "nothing") -- the loop's own descriptors, and the pool
    try_all(scenario, lists.same)
  end)
  try_all(scenario, lists.fresh)
end

--- Prints how much was tried; what was wrong has been.
function faults.report()
  for _, suffix in ipairs { "", ".log", ".err", ".pid" } do os.remove(base .. suffix) end
  print(("%d faults, %d complaints, %s"):format(tried, complaints, injected >= tried and "all hit" or injected .. " hits"))
end

return faults
