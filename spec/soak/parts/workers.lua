-- Workers: computing, cancelled, failing; pools and the states in them opened and closed; loops within loops.
local agather = require "agather"
local engine = require "spec.soak.engine"

local equal, raises, bytes = engine.equal, engine.raises, engine.bytes

-- Runs in a worker: a checksum, so that what went there is what came.
local function checksum(text)
  local sum = 0
  for place = 1, #text do sum = (sum * 31 + text:byte(place)) % 1000000007 end
  return sum, #text
end

-- Runs in a worker: a loop of the library's own, in the worker's state.
local function with_a_loop(count)
  local library = require "agather"
  return library.run(function()
    local jobs = {}
    for place = 1, count do
      jobs[place] = function()
        library.sleep(0.001)
        return place
      end
    end
    local sum = 0
    for _, result in ipairs(library.gather_list(jobs):await()) do sum = sum + result end
    return sum
  end)
end

return {
  name = "workers",
  start = function(soak)
    local worker, random = agather.worker, engine.random(8)
    soak:every(10, "a worker computes what we do", function()
      local text = bytes(random, random(2000))
      local sum, size = worker.run(checksum, text)
      equal(checksum(text), sum)
      equal(#text, size)
    end)
    soak:every(3, "map keeps the places", function()
      local list = {}
      for place = 1, 50 do list[place] = place end
      local results = worker.map(function(item) return { item * item } end, list)
      for place = 1, 50 do equal(place * place, results[place][1]) end
    end)
    soak:every(2, "one that never ends is cancelled", function()
      engine.cancelled(random() * 0.01, worker.run, function() while true do end end)
      engine.cancelled(random() * 0.01, worker.map, function(item) while item do end end, { 1, 2, 3, 4 })
    end)
    soak:every(2, "an error comes back", function()
      local err = raises(nil, worker.run, function() error("on purpose") end)
      assert(tostring(err):find("on purpose", 1, true))
    end)
    soak:every(0.5, "a pool is opened, runs loops of its own, and closed", function()
      local pool <close> = worker.Pool { size = 1 }
      equal(55, pool:run(with_a_loop, 10))
    end)
    soak:every(0.5, "a pool is closed under its jobs", function()
      local pool = worker.Pool { size = 1 }
      local task = agather.spawn(pool.run, pool, function() while true do end end)
      agather.sleep(0.005)
      pool:close()
      raises(agather.RuntimeError, task.await, task)
    end)
    soak:every(3, "a run within the run", function()
      equal(3, agather.run(function()
        agather.sleep(0.001)
        return 3
      end))
      raises(agather.Error, agather.run, function() error(agather.Error("on purpose")) end)
    end)
    soak:every(3, "a loop is made and closed", function()
      local loop = agather.new_event_loop()
      loop:call_later(100, print)
      loop:close()
      assert(loop:is_closed())
    end)
  end,
}
