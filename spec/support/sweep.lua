-- Cancels a scenario at each of its waits in turn: the places are found by looking, once in each iteration of the loop,
-- where its task waits.
local agather = require "agather"

-- Calls reached() in the iteration in which the task has come to its [place]-th wait.
local function watch(task, place, reached)
  local loop, seen, last = agather.get_running_loop(), 0, nil
  local function look()
    if task:done() then return end
    local here = task:traceback()
    if here ~= last then
      last = here
      seen = seen + 1
      if seen == place then return reached() end
    end
    loop:call_soon(look)
  end
  loop:call_soon(look)
end

-- One run of the scenario, cancelled at the [place]-th wait: whether it got that far.
local function cancelled_at(scenario, place, by_timeout)
  local reached = false
  agather.run(function()
    local world = scenario.given and scenario.given() or {}
    local task
    if by_timeout then
      task = agather.spawn(function()
        local deadline <close> = agather.timeout(nil)
        world.deadline = deadline
        return scenario.run(world)
      end)
    else
      task = agather.spawn(scenario.run, world)
    end
    watch(task, place, function()
      reached = true
      if by_timeout then world.deadline:reschedule(0) else task:cancel() end
    end)
    local ok, err = pcall(task.await, task)
    assert(reached or ok, err)
    if not ok then
      local class = by_timeout and agather.TimeoutError or agather.CancelledError
      if not agather.is_error(err, class) then error(("at wait %d: %s"):format(place, tostring(err)), 0) end
    end
    if scenario.after then scenario.after(world) end
    for _ = 1, 3 do agather.sleep(0) end -- what is over leaves
    local left = #agather.all_tasks() - 1 - #(world.keeps or {})
    if left > 0 then error(("at wait %d: %d tasks are left"):format(place, left), 0) end
    for _, kept in ipairs(world.keeps or {}) do kept:cancel() end
  end)
  return reached
end

--- Runs the scenario to its end, then once for each of its waits, cancelled there; then the same with a timeout there.
--- given() makes its world, run(world) is what a task does, after(world) checks what must hold whatever has happened.
---@return integer places how many waits there were
return function(scenario)
  local places
  for _, by_timeout in ipairs { false, true } do
    local place = 1
    while cancelled_at(scenario, place, by_timeout) do place = place + 1 end
    places = place - 1
  end
  return places
end
