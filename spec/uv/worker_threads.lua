-- Work for ThreadSanitizer: jobs, cancellations, errors, maps and closes, all at once.
local agather = require "agather"
local worker = agather.worker

local function same(...) return ... end

-- Signals reach a thread that the sanitizer watches only where it calls libc: these loops allocate.
local function endless()
  while true do
    pcall(function()
      while true do local _ = { tostring({}) } end
    end)
  end
end

-- A loop within a worker, with a worker of its own.
local function inner_loop(seconds)
  local inner = require "agather"
  return inner.run(function()
    inner.sleep(seconds)
    return inner.worker.run(function(x) return x end, seconds)
  end)
end

local rounds = tonumber(arg and arg[1]) or 30
for round = 1, rounds do
  local pool = worker.Pool { size = 3 }
  local tasks = {}
  for i = 1, 60 do
    local kind = i % 6
    if kind == 0 then
      tasks[i] = agather.spawn(pool.run, pool, endless)
    elseif i % 20 == 1 then
      tasks[i] = agather.spawn(pool.run, pool, inner_loop, i % 40 == 1 and 0.001 or 100)
    elseif kind == 1 then
      tasks[i] = agather.spawn(pool.run, pool, error, "boom")
    elseif kind == 2 then
      tasks[i] = agather.spawn(pool.map, pool, function(x) return { x, tostring(x) } end, { 1, 2, 3, 4, 5 })
    else
      tasks[i] = agather.spawn(pool.run, pool, same, { i, { "nested", i } }, ("x"):rep(i * 10))
    end
    if i % 10 == 0 then agather.sleep(0) end
  end
  for i = 6, 60, 6 do
    if i % 4 == 0 then agather.sleep(0.002) end
    tasks[i]:cancel()
  end
  tasks[21]:cancel()
  if round % 2 == 0 then
    for i = 1, 60 do pcall(tasks[i].await, tasks[i]) end
  end
  if round % 3 ~= 0 then pool:close() end
  for i = 1, 60 do pcall(tasks[i].await, tasks[i]) end
end
collectgarbage()
print "done"
