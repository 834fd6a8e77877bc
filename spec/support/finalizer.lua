-- Finalizers run wherever memory is allocated: in the middle of any function of the library. Each call is made again
-- and again, and the first, second, third ... collection within it does the action (the later ones are a sample, unless
-- AGATHER_TORTURE=full). In a program of its own, whose small state makes a collection at every allocation cheap:
-- spec/finalizer_spec.lua runs it.
local agather = require "agather"

local finalizer = {}

--- Whether no place is passed over.
finalizer.full = os.getenv("AGATHER_TORTURE") == "full"

-- Has the [place]-th collection call act, once; returns a function that ends it and tells whether it came to that.
local function arm(place, act)
  local seen, armed = 0, true
  local function set()
    setmetatable({}, {
      __gc = function()
        if not armed then return end
        seen = seen + 1
        if seen < place then return set() end
        armed = false
        act()
      end,
    })
  end
  collectgarbage("incremental", 1, 1000, 100) -- a whole cycle at each allocation, from the end of this one on
  collectgarbage()
  set()
  return function()
    collectgarbage("incremental", 200, 100, 13)
    armed = false
    return seen >= place
  end
end

local refusals = {
  "closed", "invalid state", "cancel", "not open", "used already", "already awaited", "no running", "already running",
  "running event loop", "stopped before", "changed the queue", "by the finalizer", "is not waiting",
}

-- Whether an error is one that a call may raise for what the finalizer did.
local function expected(err)
  local text = tostring(err):lower()
  for _, refusal in ipairs(refusals) do
    if text:find(refusal, 1, true) then return true end
  end
  return agather.is_error(err, agather.CancelledError) or agather.is_error(err, agather.OSError)
end

local function problem(...) print(("%s, when a finalizer %s at place %d: %s"):format(...)) end

-- Makes the call at each of its places; returns their number. around(f) calls f(world) where such calls are made.
local function sweep(name, call, does, act, around)
  local place, places = 1, 0
  while true do
    local reached
    around(function(world)
      local failed
      local disarm = arm(place, function()
        world.acted = true
        local ok, err = pcall(act, world)
        if not ok and not expected(err) then failed = err end
      end)
      local ok, err = pcall(call, world)
      reached = disarm()
      if failed then problem(name, does, place, "the finalizer: " .. tostring(failed)) end
      if not ok and not (reached and expected(err)) then problem(name, does, place, tostring(err)) end
    end, function(err) problem(name, does, place, tostring(err)) end)
    if not reached then return places end
    places = places + 1
    place = place + 1 + (finalizer.full and 0 or place // 3)
    if place > 2000 then error(name .. " has no end") end
  end
end

--- Sweeps all calls and actions; prints what went wrong, and at the end "N places".
---@param calls table<string, fun(world: any)>
---@param actions table<string, fun(world: any)>
---@param around fun(f: fun(world: any), problem: fun(err: any)) sets the world up, and checks it afterwards; world.acted
--- says that the action has begun
function finalizer.run(calls, actions, around)
  local places = 0
  for name, call in pairs(calls) do
    for does, act in pairs(actions) do places = places + sweep(name, call, does, act, around) end
  end
  print(("%d places"):format(places))
end

return finalizer
