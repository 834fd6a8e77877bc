-- Random programs over the primitives print the same under agather and under CPython's asyncio, line for line: which
-- task does what, in which order, at which (virtual) time, with which result or error.
--
-- The programs come from seeds (generator.lua); interpreter.lua runs one with agather, interpreter.py with asyncio.
-- They reach every builtin that does no I/O and that asyncio has too (coverage.lua).
-- To look at one seed, or at many others, after ./test has built:
--   lua5.4 spec/differential/main.lua SEED [COUNT]
-- which prints the smallest program that still differs, with both traces. Add it to failed_programs.lua.
-- Needs /usr/bin/python3, 3.11 or newer; another can be named in DIFFERENTIAL_PYTHON.
local agather = require "agather"
local compare = require "spec.differential.compare"
local failed_programs = require "spec.differential.failed_programs"
local generator = require "spec.differential.generator"
local shrink = require "spec.differential.shrink"

local FIRST, COUNT, BATCH = 1, 600, 200

describe("agather and asyncio", function()
  local python = compare.available()

  for first = FIRST, FIRST + COUNT - 1, BATCH do
    it(("agree on the programs of the seeds %d to %d"):format(first, first + BATCH - 1), function()
      if not python then pending(("python3 is missing: %d programs not compared"):format(COUNT)) end
      local features = generator.features(agather)
      local programs = {}
      for seed = first, first + BATCH - 1 do programs[#programs + 1] = generator.program(seed, features) end
      local different = compare.differences(programs)
      if #different == 0 then return end
      local seeds = {}
      for place, difference in ipairs(different) do seeds[place] = difference.program.seed end
      error(("%d programs differ, of the seeds %s; the first, made small:\n%s"):format(
        #different, table.concat(seeds, ", "), shrink.report(shrink.shrink(different[1].program) or different[1])), 0)
    end)
  end

  it("have every builtin in some program, and every statement that waits was cancelled in some", function()
    local pipe = assert(io.popen("lua5.4 spec/differential/coverage.lua 1500 2>&1"))
    local text = pipe:read("a")
    if not pipe:close() then error(text, 0) end
  end)

  local differences -- of the programs that once failed: run together, for each start of Python takes a while
  local function difference_of(failed)
    if not differences then
      local programs = {}
      differences = {}
      for place, one in ipairs(failed_programs) do programs[place] = one.program end
      for _, difference in ipairs((compare.differences(programs))) do differences[difference.program] = difference end
    end
    return differences[failed.program]
  end

  for _, failed in ipairs(failed_programs) do
    it("agree: " .. failed.about, function()
      if not python then pending("python3 is missing") end
      local difference = difference_of(failed)
      if failed.open then
        if difference then pending("open: " .. failed.about) end
        error("agrees now: take `open` away in failed_programs.lua", 0)
      end
      if difference then error(shrink.report(difference), 0) end
    end)
  end
end)
