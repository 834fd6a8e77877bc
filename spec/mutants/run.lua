-- lua5.4 spec/mutants/run.lua DIRECTORY [NAME]...: what .ci/mutants runs. Copies of the tree are made in DIRECTORY, one
-- for each of two tasks; a copy has one build for each preset, which ninja brings up to date after each change.
local agather = require "agather"
local mutants = require "spec.mutants"

local fs, process = agather.fs, agather.process

local WORKERS = 2
local directory = arg[1]

-- ---- which ----

local function chosen(names)
  if #names == 0 then return mutants end
  local list = {}
  for _, name in ipairs(names) do
    local before = #list
    for _, mutant in ipairs(mutants) do
      if mutant.name == name or mutant.layer == name then list[#list + 1] = mutant end
    end
    if #list == before then error("no mutant and no layer is called " .. name, 0) end
  end
  return list
end

-- ---- copies of the tree ----

local function must(command)
  local ended = process.run { command, shell = true, stderr = "stdout" }
  if ended.status ~= 0 then error(command .. ":\n" .. ended.stdout, 0) end
end

-- Each preset is built once, in the first copy that needs it; the others get what was built with it.
local function new_copy(number)
  local copy = { path = ("%s/%d"):format(directory, number), built = {} }
  fs.mkdir(copy.path)
  must(("tar -cf - --exclude='./build*' --exclude=./.git . | tar -xf - -C %s"):format(copy.path))
  return copy
end

--- Brings the copy's build up to date; returns whether it compiles, and what the compiler says.
local function build(copy, preset)
  if not copy.built[preset] then
    must(("cd %s && cmake --preset %s -DCMAKE_LINK_DEPENDS_NO_SHARED=ON"):format(copy.path, preset))
    copy.built[preset] = true
  end
  local ended = process.run { "nice", "ninja", "-C", copy.path .. "/build-" .. preset, stderr = "stdout" }
  return ended.status == 0, ended.stdout
end

-- ---- specs ----

-- busted takes a pattern, and matches it with the names of describe and it together.
local function escaped(text) return (text:gsub("%p", "%%%0"):gsub("%s+", "%%s")) end

local function lua_path(copy, preset)
  return {
    LUA_PATH = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;;"):format(copy.path, copy.path, copy.path),
    LUA_CPATH = ("%s/build-%s/?.so;;"):format(copy.path, preset),
    MALLOC_PERTURB_ = "165", -- what is used when it is freed does not go well by chance
    LD_PRELOAD = preset == "asan" and process.run({ "cc", "-print-file-name=libasan.so" }).stdout:match("%S+") or nil,
    ASAN_OPTIONS = "detect_leaks=0",
    AGATHER_DEBUG = false,
  }
end

--- Runs the spec of a mutant in a copy. Returns how it ended, "green", "fails", "crashes" or "hangs", a sentence about
--- it, and how long it took.
local function run_spec(copy, mutant, seconds)
  local command = { "timeout", "-k", "2", tostring(seconds), "lua5.4", "/usr/bin/busted", "--ignore-lua", "-o", "TAP" }
  if mutant.it then command[#command + 1] = "--filter=" .. escaped(mutant.it) end
  command[#command + 1] = mutant.spec
  command.cwd, command.extra_env, command.stderr = copy.path, lua_path(copy, mutant.preset or "debug"), "stdout"
  local loop = agather.get_running_loop()
  local start = loop:time()
  local ended = process.run(command)
  local took = loop:time() - start
  local output = ended.stdout:gsub("ok %d+ %- # SKIP[^\n]*", "") -- what is missing here proves nothing
  local red = output:match("\nnot ok %d+ %- ([^\n]*)") or output:match("^not ok %d+ %- ([^\n]*)")
  local green = output:find("\nok %d") or output:find("^ok %d")
  if red then return "fails", red, took end
  if ended.status == 124 or ended.status == 137 or ended.signal == "SIGKILL" then
    return "hangs", ("after %.0f s"):format(took), took
  end
  if ended.signal or ended.status > 128 then
    return "crashes", ended.signal or "signal " .. ended.status - 128, took
  end
  if ended.status ~= 0 then return "fails", output:match("[^\n]*$") or "", took end
  if not green then return "empty", "no sentence has these words", took end
  return "green", "", took
end

local function key(mutant) return ("%s %s %s"):format(mutant.spec, mutant.it or "", mutant.preset or "debug") end

local function where(mutant) return mutant.spec .. (mutant.it and (" (" .. mutant.it .. ")") or "") end

-- ---- one mutant ----

local function replaced(source, mutant)
  local from, to = source:find(mutant.text, 1, true)
  if not from then error(("%s: its text is not in %s"):format(mutant.name, mutant.file), 0) end
  if source:find(mutant.text, to + 1, true) then
    error(("%s: its text stands more than once in %s"):format(mutant.name, mutant.file), 0)
  end
  return source:sub(1, from - 1) .. mutant.with .. source:sub(to + 1)
end

--- Tries a mutant in a copy, which is put back; returns whether it was seen, and a line about it.
local function try(copy, mutant, green_took)
  local path = copy.path .. "/" .. mutant.file
  local source = fs.read_file(path)
  fs.write_file(path, replaced(source, mutant))
  local _ <close> = setmetatable({}, { __close = function() fs.write_file(path, source) end })
  local compiles, output = build(copy, mutant.preset or "debug")
  if not compiles then return false, "does not compile:\n" .. output end
  local how, sentence = run_spec(copy, mutant, 8 + 5 * green_took)
  if how == "green" then return false, "is not seen by " .. where(mutant) end
  return true, ("is seen by %s, which %s: %s"):format(mutant.spec, how, sentence)
end

-- ---- all ----

local function say(line)
  print(line)
  io.stdout:flush()
end

local function main()
  local list = chosen(table.pack(table.unpack(arg, 2)))
  local copies = agather.Queue()
  local presets = { debug = true }
  for _, mutant in ipairs(list) do presets[mutant.preset or "debug"] = true end
  for number = 1, WORKERS do
    local copy = new_copy(number)
    for preset in pairs(presets) do
      local ok, output = build(copy, preset)
      if not ok then error(output, 0) end
    end
    copies:put(copy)
  end

  local function with_copy(f, item)
    local copy = copies:get()
    local _ <close> = setmetatable({}, { __close = function() copies:put_nowait(copy) end })
    return f(copy, item)
  end

  local keys, first = {}, {} -- what is run on the unbroken tree
  for _, mutant in ipairs(list) do
    if not first[key(mutant)] then
      first[key(mutant)] = mutant
      keys[#keys + 1] = key(mutant)
    end
  end
  local took = {} -- seconds; nil where the spec is not green
  agather.map(function(name)
    with_copy(function(copy, mutant)
      local how, sentence, seconds = run_spec(copy, mutant, 120)
      if how == "green" then
        took[name] = seconds
      else
        say(("not ok - %s is green without a mutant: it %s: %s"):format(where(mutant), how, sentence))
      end
    end, first[name])
  end, keys, { limit = WORKERS })

  local seen = 0
  agather.map(function(mutant)
    local ok, text = false, "is not tried: its spec is not green without it"
    if took[key(mutant)] then
      ok, text = with_copy(function(copy) return try(copy, mutant, took[key(mutant)]) end)
    end
    if ok then seen = seen + 1 end
    say(("%s - %s (%s) %s"):format(ok and "ok" or "not ok", mutant.name, mutant.bug, text))
  end, list, { limit = WORKERS })
  print(("%d mutants seen, %d not"):format(seen, #list - seen))
  return seen == #list
end

local ok, result = pcall(agather.run, main)
if not ok then io.stderr:write(tostring(result), "\n") end
os.exit(ok and result and 0 or 1, true)
