-- Runs the programs of some seeds on both sides, shrinks those that differ and prints them:
--   lua5.4 spec/differential/main.lua SEED [COUNT]
-- With SEED alone, the program and its trace are printed also when both sides agree.
local agather = require "agather"
local compare = require "spec.differential.compare"
local generator = require "spec.differential.generator"
local shrink = require "spec.differential.shrink"

local seed, count = math.tointeger(arg[1]), math.tointeger(arg[2])
if not seed then
  io.stderr:write("usage: lua5.4 spec/differential/main.lua SEED [COUNT]\n")
  os.exit(2)
end

io.stdout:setvbuf("line") -- what a long run has found is seen at once
local features = generator.features(agather)
local BATCH, MOST = 250, 5 -- programs run at a time, differences shown
local seeds, lines, deadlocks = {}, 0, 0
for first = seed, seed + (count or 1) - 1, BATCH do
  local programs = {}
  for this = first, math.min(first + BATCH, seed + (count or 1)) - 1 do
    programs[#programs + 1] = generator.program(this, features)
  end
  local different, more_lines, more_deadlocks = compare.differences(programs)
  lines, deadlocks = lines + more_lines, deadlocks + more_deadlocks
  if not count and #different == 0 then print(shrink.program_text(programs[1])) end
  for _, difference in ipairs(different) do
    seeds[#seeds + 1] = difference.program.seed
    if #seeds <= MOST then
      print(("seed %d differs; the smallest program that does:"):format(difference.program.seed))
      print(shrink.report(shrink.shrink(difference.program) or difference))
    end
  end
end
print(("%d programs, %d lines, %d deadlocks, %d programs differ"):format(count or 1, lines, deadlocks, #seeds))
if #seeds > 0 then print("seeds: " .. table.concat(seeds, " ")) end
os.exit(#seeds == 0, true)
