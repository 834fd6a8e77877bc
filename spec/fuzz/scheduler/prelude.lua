-- What the programs of the scheduler's fuzz target call: gets the C functions that go on with a program, in a task and
-- inside a call; gives the functions by name.
local agather = require "agather"
local calls = {}

function calls.is_cancelled(value) return agather.is_error(value, agather.CancelledError) end

calls.sleep, calls.await, calls.shield, calls.spawn = agather.sleep, agather.await, agather.shield, agather.spawn

function calls.create(body, number, eager)
  return agather.create_task(agather.async(body)(number), { eager_start = eager })
end

function calls.run(body, number) return agather.run(body, number) end

function calls.gather(return_exceptions, cancel_on_error, ...)
  local arguments = { ... }
  arguments[#arguments + 1] = { return_exceptions = return_exceptions, cancel_on_error = cancel_on_error }
  return agather.gather(table.unpack(arguments))
end

-- Ways to go on with a program inside a call.
calls.inside = {
  function(f, number) return f(number) end,
  function(f, number) return agather.coroutine.wrap(f)(number) end,
  function(f, number) return agather.await(function() return f(number) end) end,
  function(f, number) return agather.await(agather.async(f)(number)) end,
  function(f, number) -- a generator that waits between what it gives
    local last
    for value in agather.coroutine.wrap(function()
      agather.coroutine.yield(1)
      f(number)
      agather.coroutine.yield(2)
    end) do last = value end
    return last
  end,
  function(f, number)
    local ok, err = agather.pcall(f, number)
    if not ok then error(err, 0) end
  end,
  function(f, number) -- waits while an error unwinds
    local _ <close> = setmetatable({}, { __close = function() pcall(agather.sleep, 0) end })
    return f(number)
  end,
}

-- The same with what cancels of itself.
calls.within = {
  function(f, number, seconds) return agather.wait_for(function() return f(number) end, seconds) end,
  function(f, number, seconds)
    local _ <close> = agather.timeout(seconds)
    return f(number)
  end,
  function(f, number, _, body, child)
    local group <close> = agather.TaskGroup()
    group:spawn(body, child)
    return f(number)
  end,
}

-- Where a wait is refused.
calls.refusing = {
  function(f, number) return coroutine.wrap(f)(number) end,
  function(f, number) return (string.gsub("a", "a", function() f(number) end)) end,
}

function calls.wait(seconds, when, ...)
  local whens = { agather.FIRST_COMPLETED, agather.FIRST_EXCEPTION, agather.ALL_COMPLETED }
  local list = { ... }
  local done, pending = agather.wait(list, { timeout = seconds, return_when = whens[when % 3 + 1] })
  assert(#done + #pending <= #list)
  for _, future in ipairs(done) do assert(future:done()) end
  if when % 3 == 2 and seconds == nil then assert(#pending == 0) end
end

function calls.as_completed(seconds, ...)
  local ok, err = pcall(function(...)
    for future in agather.as_completed({ ... }, { timeout = seconds }) do assert(future:done()) end
  end, ...)
  if not ok and not agather.is_error(err, agather.TimeoutError) then error(err, 0) end
end

function calls.primitives()
  return {
    lock = agather.Lock(), semaphore = agather.Semaphore(2), event = agather.Event(),
    queue = agather.Queue(2), open_queue = agather.Queue(),
  }
end

function calls.hold(primitive) return (primitive:acquire()) end
function calls.release(primitive) primitive:release() end
function calls.wait_event(primitives) return primitives.event:wait() end
function calls.set_event(primitives) primitives.event:set() end
function calls.clear_event(primitives) primitives.event:clear() end
function calls.put(queue, item) queue:put(item) end
function calls.get(queue) return (queue:get()) end
function calls.put_nowait(queue, item) return (pcall(queue.put_nowait, queue, item)) end
function calls.close(primitives)
  primitives.event:set()
  primitives.queue:shutdown()
  primitives.open_queue:shutdown()
end
function calls.sizes(primitives) return primitives.queue:qsize() + primitives.open_queue:qsize() end

function calls.virtual_loop()
  local runner = agather.Runner { clock = "virtual" }
  return runner
end

function calls.call_soon(f, number) return agather.get_running_loop():call_soon(f, number) end
function calls.call_later(f, number, seconds) return agather.get_running_loop():call_later(seconds, f, number) end
function calls.cancel_handle(handle) handle:cancel() end
function calls.stop() agather.get_running_loop():stop() end

return calls
