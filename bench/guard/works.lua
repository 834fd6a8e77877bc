-- What the regression guard counts: four pieces of work of the core, with nothing in them that depends on time.
-- works.lua NAME COUNT; COUNT 0 is what starting and ending costs.
local agather = require "agather"

local sleep, spawn = agather.sleep, agather.spawn

local function gathered(count, job, argument)
  local tasks = {}
  for i = 1, count do tasks[i] = spawn(job, i, argument) end
  return agather.await(agather.gather_list(tasks))
end

local works = {}

function works.spawn(count)
  gathered(count, function(i) return i end)
end

function works.switch(count)
  gathered(math.min(count, 100), function(_, rounds)
    for _ = 1, rounds do sleep(0) end
  end, count // 100)
end

-- On the virtual clock; deadlines in an order that is neither that of creation nor its reverse.
function works.sleep(count)
  gathered(count, function(i) sleep(i * 7919 % 10007 / 1000) end)
end

function works.queue(count)
  local queue = agather.Queue(100)
  spawn(function()
    for i = 1, count do queue:put(i) end
  end)
  for _ = 1, count do queue:get() end
end

local runner <close> = agather.Runner { clock = "virtual" }
runner:run(works[arg[1]], tonumber(arg[2]))
