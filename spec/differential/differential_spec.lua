-- Random programs over the primitives print the same under agather and under CPython's asyncio, line for line: which
-- task does what, in which order, at which (virtual) time, with which result or error.
--
-- The programs come from seeds (generator.lua); interpreter.lua runs one with agather, interpreter.py with asyncio.
-- To look at one seed, or at many others, after ./test has built:
--   lua5.4 spec/differential/main.lua SEED [COUNT]
-- which prints the smallest program that still differs, with both traces. Add it to failed_programs.lua.
-- Needs /usr/bin/python3, 3.11 or newer; another can be named in DIFFERENTIAL_PYTHON.
local agather = require "agather"
local compare = require "spec.differential.compare"
local generator = require "spec.differential.generator"
local shrink = require "spec.differential.shrink"

local FIRST, COUNT, BATCH = 1, 2000, 250

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

  for _, failed in ipairs(require "spec.differential.failed_programs") do
    it("agree: " .. failed.about, function()
      if not python then pending("python3 is missing") end
      local different = compare.differences { failed.program }
      local agrees = #different == 0
      if failed.open then
        if not agrees then pending("open: " .. failed.about) end
        error("agrees now: take `open` away in failed_programs.lua", 0)
      end
      if not agrees then error(shrink.report(different[1]), 0) end
    end)
  end
end)
