-- Runs random programs whose invariants must hold in whatever order the loop runs what is ready in one iteration:
--   lua5.4 spec/shuffle/main.lua COUNT [SEED [ORDER]]
-- Each is run once in the usual order and in some others. With SEED and ORDER, just that one. See .ci/shuffle.
local program = require "spec.shuffle.program"

local count, first, order = tonumber(arg[1]), tonumber(arg[2]) or 1, tonumber(arg[3])
if not count then
  io.stderr:write("usage: lua5.4 spec/shuffle/main.lua COUNT [SEED [ORDER]]\n")
  os.exit(2)
end
if not program.can_shuffle() then
  print("not ok - this is no build that can shuffle: cmake --preset shuffle")
  os.exit(1)
end

io.stdout:setvbuf("line") -- what a long run has found is seen at once
local ORDERS, MOST = 4, 10 -- other orders for each program, failures shown
local runs, failed, times = 0, 0, {}
for seed = first, first + count - 1 do
  for this = order or 0, order or ORDERS do
    local own = order or this == 0 and 0 or seed * ORDERS + this
    local failures, chosen = program.run(seed, own)
    runs = runs + 1
    for _, name in ipairs(chosen) do times[name] = (times[name] or 0) + 1 end
    if #failures > 0 then
      failed = failed + 1
      if failed <= MOST then
        print(("not ok - program %d in order %d: lua5.4 spec/shuffle/main.lua 1 %d %d"):format(seed, own, seed, own))
        for _, text in ipairs(failures) do print("  " .. text:gsub("\n", "\n  ")) end
      end
    end
  end
end
if not order then
  for _, name in ipairs(program.names) do
    if not times[name] and count >= 100 then
      failed = failed + 1
      print("not ok - no program has the piece " .. name)
    end
  end
end
print(("%s - %d runs of %d programs keep their invariants in any order, %d do not"):format(
  failed == 0 and "ok" or "not ok", runs - failed, count, failed))
os.exit(failed == 0, true)
