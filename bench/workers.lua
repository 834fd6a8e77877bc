-- worker.map against a plain loop over the same work: ./run bench/workers.lua [ROUNDS]. The shortest round counts, as
-- other programs on the machine only make rounds longer.
local agather = require "agather"

local function work(n)
  local sum = 0
  for i = 1, n do sum = sum + (i * 7919) % 13 end
  return sum
end

local items = {}
for i = 1, 64 do items[i] = 500000 end

local function plain()
  local found = {}
  for i, n in ipairs(items) do found[i] = work(n) end
  return found
end

local function shortest(f, best)
  local loop = agather.get_running_loop()
  local start = loop:time()
  local found = f()
  assert(found[1] == found[64])
  return math.min(best, loop:time() - start)
end

agather.run(function()
  local sizes = { 1, 2 }
  local pools, best, alone = {}, {}, math.huge
  for i, size in ipairs(sizes) do pools[i], best[i] = agather.worker.Pool { size = size }, math.huge end
  for _ = 1, tonumber(arg[1]) or 10 do
    alone = shortest(plain, alone)
    for i, pool in ipairs(pools) do best[i] = shortest(function() return pool:map(work, items) end, best[i]) end
  end
  print(("plain loop   %6.1f ms"):format(alone * 1e3))
  for i, size in ipairs(sizes) do
    print(("%d worker%s  %6.1f ms  %.2f times as fast"):format(size, size == 1 and " " or "s", best[i] * 1e3,
      alone / best[i]))
  end
  local pool = pools[1]
  local start, jobs = agather.get_running_loop():time(), 2000
  for i = 1, jobs do pool:run(math.abs, i) end
  print(("one small run and its answer  %.1f us"):format((agather.get_running_loop():time() - start) / jobs * 1e6))
  for _, each in ipairs(pools) do each:close() end
end)
