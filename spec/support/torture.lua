-- For specs of what the program torture does with a script: see spec/torture/torture.c. AGATHER_TORTURE=full tries every
-- allocation, of every script; by hand: build/torture memory spec/torture/core.lua, TORTURE_AT=17 for one of them.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "torture")
local full = os.getenv("AGATHER_TORTURE") == "full"

local torture = {}

--- Whether AddressSanitizer watches: it does not survive a thread for which the C library has no memory.
torture.sanitized = os.getenv("AGATHER_PRESET") == "asan"

--- Runs it; returns whether all went well, and what it said.
function torture.run(environment, mode, script, places)
  local log = os.tmpname()
  local pipe = assert(io.popen(("%s timeout %d %s %s spec/torture/%s.lua %d 2>%s"):format(environment,
    full and 7200 or 120, program, mode, script, places or 0, log)))
  local output = pipe:read("a")
  local ok = pipe:close()
  local errors <close> = assert(io.open(log))
  local told = errors:read("a"):sub(-5000)
  os.remove(log)
  return ok, ok and output or told .. output
end

local sentences = {
  memory = "goes on or closes, wherever Lua's memory ends",
  malloc = "goes on or closes, wherever the memory of C code ends",
  once = "goes on or closes, whichever request of C code fails",
  libraries = "goes on or closes, wherever the memory of other libraries ends",
}

--- The cases of a script: a list of { name =, run = }. [places]: how many of the allocations of each kind are tried; what
--- is no key is not tried. [environment]: a function that gives variables for the shell.
function torture.cases(script, places, environment)
  environment = environment or function() return "" end
  local cases = {}
  local function add(mode, wanted)
    cases[#cases + 1] = { name = sentences[mode], run = function()
      local ok, output = torture.run(environment(), mode, script, full and 0 or wanted)
      assert(ok, output)
      local tried, count = output:match("(%d+) of (%d+) places")
      tried, count = tonumber(tried), tonumber(count)
      assert(count > 0 and tried >= math.min(count, wanted), output)
      if full then io.stderr:write(script, " ", mode, ": ", output) end
    end }
  end
  for _, mode in ipairs { "memory", "malloc", "once", "libraries" } do
    local wanted = places[mode]
    if wanted then add(mode, torture.sanitized and (wanted + 3) // 4 or wanted) end -- which is slow
  end
  cases[#cases + 1] = { name = "keeps everything that it still needs when Lua collects at each allocation", run = function()
    local ok, output = torture.run(environment(), "collect", script)
    assert(ok and output == "1 run\n", output)
  end }
  return cases
end

return torture
