-- Workers, for torture.c: functions and data go to other threads, results and errors come back, and it ends early.
local agather = require "agather"
local worker = agather.worker

local factor = { 2, { "deep" }, ("x"):rep(500) }

local function double(item) return item * factor[1], factor[3] end

return {
  run = function()
    worker.run(double, 21)
    worker.run(math.sqrt, 2)
    worker.map("math:sqrt", { 1, 4, 9, 16 })
    do
      local pool <close> = worker.Pool { size = 2 }
      pool:run(double, 1)
      pool:map(double, { 1, 2, 3, 4, 5 }, { chunk = 2 })
      agather.pcall(pool.run, pool, error, { "wrong" })
      agather.pcall(pool.run, pool, print, print)
      agather.pcall(pool.map, pool, double, { 1, "x", 3 })
      agather.pcall(pool.run, pool, "no such module")
      local endless = agather.spawn(pool.run, pool, function()
        while true do end
      end)
      agather.sleep(0)
      endless:cancel()
      agather.wait { endless }
      pool:close()
      agather.pcall(pool.run, pool, double, 1)
    end
    worker.Pool { size = 1 } -- left to the collector
  end,
  after = function() assert(worker.run(math.sqrt, 4) == 2) end,
}
