-- What `make -j` does: runs commands that depend on each other, as many at a time as it may, and none twice. What a
-- command prints comes in one piece. The first that fails ends the others, and so does Ctrl-C.
-- Usage: make_j.lua [-j COUNT] [FILE [TARGET]]; without a file it makes a small example.
--   FILE has rules as a makefile's: "target: what it needs", and below it commands after a tab.
local agather = require "agather"
local fs, process = agather.fs, agather.process

local EXAMPLE = [[
dinner: salad soup
	echo dinner is served
salad: wash
	sleep 0.3; echo salad
soup: wash
	sleep 0.1; echo soup
wash:
	echo washing
]]

-- Rules by their target, and the first target.
local function parse(text)
  local rules, first, rule = {}, nil, nil
  for line in text:gmatch("[^\n]+") do
    local target, needs = line:match("^([^%s:#]+)%s*:(.*)$")
    local command = line:match("^\t(.*)$")
    if command and rule then
      rule.commands[#rule.commands + 1] = command
    elseif target then
      rule = { needs = {}, commands = {} }
      for name in needs:gmatch("%S+") do rule.needs[#rule.needs + 1] = name end
      rules[target], first = rule, first or target
    elseif not line:find("^#") then
      error("not a rule: " .. line, 0)
    end
  end
  return rules, first
end

local function modified(path) return fs.exists(path) and fs.stat(path).mtime or nil end

-- Whether the target is a file, and no older than what it needs.
local function up_to_date(target, rule)
  local when = modified(target)
  if not when then return false end
  for _, name in ipairs(rule.needs) do
    local needed = modified(name)
    if not needed or needed > when then return false end
  end
  return true
end

local function run_commands(target, rule)
  for _, command in ipairs(rule.commands) do
    local result = process.run { command, shell = true, stderr = "stdout" }
    io.write("$ ", command, "\n", result.stdout)
    if result.status ~= 0 then
      error(("[%s] %s"):format(target, result.signal or "status " .. result.status), 0)
    end
  end
end

local function make(rules, goal, limit)
  local places = agather.Semaphore(limit)
  local tasks = {} -- one for each target, however many need it

  local function start(target, path)
    if path:find(" " .. target .. " ", 1, true) then error("circle:" .. path .. target, 0) end
    if tasks[target] then return tasks[target] end
    local rule = rules[target]
    if not rule and not fs.exists(target) then error("no rule to make " .. target, 0) end
    tasks[target] = agather.spawn(function()
      if not rule then return end
      local needs = {}
      for place, name in ipairs(rule.needs) do needs[place] = start(name, path .. target .. " ") end
      agather.gather_list(needs):await()
      if up_to_date(target, rule) then return end
      local _ <close> = places:acquire()
      run_commands(target, rule)
    end)
    return tasks[target]
  end

  start(goal, " "):await()
end

local limit, file, goal = 2, nil, nil
local place = 1
while arg[place] do
  if arg[place] == "-j" then
    limit = math.tointeger(tonumber(arg[place + 1])) or error("-j needs a number", 0)
    place = place + 2
  else
    file, goal = file or arg[place], file and arg[place]
    place = place + 1
  end
end

local ok, err = pcall(agather.run, function()
  local rules, first = parse(file and fs.read_file(file) or EXAMPLE)
  make(rules, goal or first or error("no rules", 0), limit)
end)
if not ok then
  io.stderr:write("make_j: ", (tostring(err):gsub("\nstack traceback:.*", "")), "\n")
  os.exit(2)
end
