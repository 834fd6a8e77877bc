-- The statements that generator.lua makes programs of.
-- { weight, feature or false, where, function that makes the statement }; the function is called with the Generator and
-- the place in the program.
-- where: "any", also in callbacks; "task", only in tasks; "scope", in tasks, and holds blocks.
local ops = {}
local function add(weight, feature, where, make)
  ops[#ops + 1] = { weight = weight, feature = feature, where = where, make = make }
end

add(8, false, "any", function(self) return { op = "log", label = self:label("l") } end)
add(8, false, "any", function(self, place)
  if place.level >= self.body_count then return nil end
  local form = self.random:pick { "coro", "spawn", "function", "thread" }
  local eager = self.features.eager and self.random:chance(60) or nil
  -- A first step at once in the context that runs already: CPython cannot, agather can.
  local context = not eager and self.features.context and self.random:chance(15) and self:slot("contexts") or nil
  return {
    op = "spawn", body = self:body_above(place), slot = self:slot("tasks"), form = form,
    name = self.random:chance(10) and self:label("n") or nil, context = context, eager = eager,
  }
end)
add(5, false, "any", function(self)
  local target = self.random:chance(8) and { kind = "main" } or self:task()
  return { op = "cancel", target = target, message = self:message() }
end)
add(1, false, "any", function(self) return { op = "cancel", target = self:future(), message = self:message() } end)
add(2, false, "any", function(self) return { op = "cancel", target = self:group(), message = self:message() } end)
add(3, false, "any", function(self)
  return { op = "set_result", target = self:future(), value = self:label("v"), guard = self:guard() }
end)
add(2, false, "any", function(self)
  return {
    op = "set_exception", target = self:future(), label = self:label("u"), form = self:error_form(),
    guard = self:guard(),
  }
end)
add(4, false, "any", function(self) return { op = "query", target = self:target() } end)
add(3, false, "any", function(self)
  return { op = self.random:pick { "result", "exception" }, target = self:target(), guard = self:guard() }
end)
add(2, false, "any", function(self, place)
  return {
    op = "call_soon", value = self.random:chance(30) and self:label("a") or nil, label = self:label("c"),
    actions = self:callback(place), slot = self:slot("handles"),
  }
end)
add(3, false, "any", function(self, place)
  return {
    op = "call_later", delay = self.random:number(-1, 5) / 8, label = self:label("c"), actions = self:callback(place),
    at = self.random:chance(30) or nil, value = self.random:chance(30) and self:label("a") or nil,
    slot = self:slot("handles"),
  }
end)
add(1, false, "any", function(self) return { op = "cancel_handle", slot = self:slot("handles") } end)
add(3, false, "any", function(self, place)
  return {
    op = "add_done_callback", target = self:target(), label = self:label("d"), actions = self:callback(place),
    slot = self:slot("callbacks"),
  }
end)
add(1, false, "any", function(self)
  return { op = "remove_done_callback", target = self:target(), slot = self:slot("callbacks") }
end)
add(3, false, "any", function(self, place)
  return {
    op = "make_gather", items = self:awaitables(place), return_exceptions = self.random:chance(40),
    slot = self:slot("groups"),
  }
end)

add(8, false, "task", function() return { op = "turn" } end)
add(7, false, "task", function(self)
  return { op = "sleep", delay = self:delay(), value = self.random:chance(20) and self:label("s") or nil }
end)
add(7, false, "task", function(self)
  return { op = "await", target = self:target(), method = self.random:chance(30) }
end)
add(3, false, "task", function(self, place)
  if place.level >= self.body_count then return nil end
  return { op = "await", target = { kind = "coro", body = self:body_above(place) } }
end)
add(4, false, "task", function(self, place)
  return { op = "gather", items = self:awaitables(place), return_exceptions = self.random:chance(40),
    list = self.random:chance(20) or nil }
end)
add(1, false, "task", function() return { op = "await_itself", guard = true } end)
add(1, false, "task", function(self) return { op = "cancel_itself", message = self:message() } end)
add(2, "uncancel", "task", function() return { op = "uncancel" } end)
add(2, false, "task", function(self)
  return { op = "raise", label = self:label("u"), form = self:error_form() }
end)
add(2, false, "task", function(self, place)
  if place.final then return nil end
  return { op = "return", value = self:label("r") }
end)
add(8, false, "scope", function(self, place)
  return {
    op = "try", block = self:block(place), handler = self:block(place, 2), rethrow = self.random:chance(15) or nil,
    errors_only = self.random:chance(20) and self.random:pick { "plain", "handler" } or nil,
  }
end)
add(4, false, "scope", function(self, place)
  return { op = "finally", block = self:block(place), final = self:block(place, 2, "final") }
end)
add(1, false, "scope", function(self, place)
  return { op = "repeat", count = self.random:number(2, 3), block = self:block(place) }
end)

add(7, "lock", "scope", function(self, place) return { op = "lock", block = self:block(place) } end)
add(1, "lock", "any", function(self) return { op = "lock_release", guard = self:guard() } end)
add(6, "event", "task", function() return { op = "event_wait" } end)
add(4, "event", "any", function() return { op = "event_set" } end)
add(2, "event", "any", function() return { op = "event_clear" } end)
add(6, "semaphore", "scope", function(self, place) return { op = "semaphore", block = self:block(place) } end)
add(3, "semaphore", "task", function() return { op = "semaphore_acquire" } end)
add(4, "semaphore", "any", function(self) return { op = "semaphore_release", guard = self:guard() } end)
local function queue_op(weight, where, name, has_value)
  add(weight, "queue", where, function(self)
    return {
      op = name, slot = self.random:number(1, #self.objects.queues),
      value = has_value and self.random:number(1, 9) or nil,
      guard = where == "any" and self:guard() or nil,
    }
  end)
end
queue_op(6, "task", "queue_put", true)
queue_op(6, "task", "queue_get")
queue_op(3, "any", "queue_put_nowait", true)
queue_op(3, "any", "queue_get_nowait")
queue_op(2, "any", "queue_task_done")
queue_op(3, "task", "queue_join")
add(6, "condition", "scope", function(self, place)
  local block = self:block(place)
  table.insert(block, self.random:number(1, #block + 1), { op = "condition_wait" })
  return { op = "condition", block = block }
end)
add(5, "condition", "task", function(self)
  return { op = "condition", block = { { op = "notify", count = self.random:number(0, 2) } } }
end)
add(1, "condition", "task", function() return { op = "condition_wait" } end)
add(2, "condition", "any", function(self)
  return { op = "notify", count = self.random:number(0, 2), guard = self:guard() }
end)
add(6, "barrier", "task", function() return { op = "barrier_wait" } end)
add(1, "barrier", "task", function() return { op = "barrier_reset" } end)
add(1, "barrier", "task", function() return { op = "barrier_abort" } end)
add(8, "wait", "task", function(self, place)
  return {
    op = "wait", items = self:awaitables(place, true),
    timeout = self.random:chance(60) and self.random:number(0, 4) / 8 or nil,
    return_when = self.random:pick { "FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED" },
  }
end)
add(8, "as_completed", "task", function(self, place)
  return {
    op = "as_completed", items = self:awaitables(place),
    timeout = self.random:chance(50) and self.random:number(0, 4) / 8 or nil,
    limit = self.random:chance(30) and self.random:number(1, 2) or nil,
  }
end)
add(10, "wait_for", "task", function(self, place)
  local timeout = self.random:chance(90) and self.random:number(0, 4) / 8 or nil
  return { op = "wait_for", target = self:awaitable(place), timeout = timeout }
end)
add(8, "timeout", "scope", function(self, place)
  local timeout = self.random:chance(90) and self.random:number(0, 4) / 8 or nil
  return { op = "timeout", timeout = timeout, at = self.random:chance(30) or nil, block = self:block(place) }
end)
add(2, "timeout", "any", function(self)
  return { op = "reschedule", delay = self.random:chance(80) and self.random:number(-1, 4) / 8 or nil, guard = true }
end)
add(6, "shield", "task", function(self, place) return { op = "await_shield", target = self:awaitable(place) } end)
add(3, "shield", "any", function(self, place)
  return { op = "make_shield", target = self:awaitable(place), slot = self:slot("groups") }
end)
add(9, "group", "scope", function(self, place)
  local block = self:block(place)
  if place.level < self.body_count then
    for _ = 1, self.random:number(1, 2) do
      table.insert(block, self.random:number(1, #block + 1), self:group_spawn(place))
    end
  end
  return { op = "group", block = block }
end)
add(2, "group", "task", function(self, place)
  return place.level < self.body_count and self:group_spawn(place) or nil
end)

add(5, "context", "any", function(self)
  return {
    op = "variable_set", value = self:label("x"), slot = self:slot("tokens"), bare = self.random:chance(30) or nil,
  }
end)
add(5, "context", "any", function(self)
  local bare = self.random:chance(30) or nil
  return {
    op = "variable_get", bare = bare, default = bare and self.random:chance(50) and "default" or nil,
    guard = self:guard(),
  }
end)
add(3, "context", "any", function(self)
  return {
    op = "variable_reset", slot = self:slot("tokens"), bare = self.random:chance(30) or nil, guard = self:guard(),
  }
end)
add(3, "context", "any", function(self)
  return {
    op = "copy_context", slot = self:slot("contexts"), of = self.random:chance(20) and self:slot("contexts") or nil,
  }
end)
add(2, "context", "any", function(self) return { op = "context_get", slot = self:slot("contexts") } end)
add(2, "context", "any", function(self) return { op = "task_context_get", target = self:task() } end)
add(4, "context", "any", function(self, place)
  local inside = { level = place.level, depth = 9, callback = true, within = (place.within or 0) + 1 }
  local count = inside.within > 2 and 0 or self.random:number(1, 3)
  return {
    op = "context_run", slot = self:slot("contexts"), actions = self:statements(inside, count), guard = self:guard(),
  }
end)

-- Mostly something that waits.
local function final_of_generator(self, place)
  local dice = self.random:number(1, 3)
  if dice == 1 then return { { op = "turn" } } end
  if dice == 2 then return { { op = "sleep", delay = self:delay() } } end
  return self:statements({ level = place.level + 1, depth = 2, final = true }, 1)
end

local function make_generator(self, place)
  if place.level >= self.body_count then return nil end
  local final = self.random:chance(40)
  return {
    op = "make_generator", body = self:body_above(place), slot = self:slot("generators"),
    wrap = self.random:chance(30) or nil,
    final = final and final_of_generator(self, place) or {},
  }
end
add(5, "generator", "any", make_generator)
add(8, "generator", "task", function(self)
  return {
    op = "generator_next", slot = self:slot("generators"), value = self.random:chance(60) and self:label("g") or nil,
    guard = self:guard(),
  }
end)
add(5, "generator", "scope", function(self, place)
  return {
    op = "generator_iterate", slot = self:slot("generators"), count = self.random:number(1, 4),
    block = self:block(place, 1),
  }
end)
add(4, "generator", "task", function(self)
  return { op = "generator_close", slot = self:slot("generators"), guard = self:guard() }
end)
add(2, "generator", "scope", function(self)
  local close = { op = "generator_close", slot = self:slot("generators") }
  return { op = "timeout", timeout = self.random:number(0, 2) / 8, block = { close } }
end)
-- The whole life of one whose end waits.
add(3, "generator", "scope", function(self, place)
  local make = make_generator(self, place)
  if not make then return nil end
  make.final = { { op = "sleep", delay = self:delay() } }
  local next_one = { op = "generator_next", slot = make.slot }
  local close = { op = "generator_close", slot = make.slot }
  if self.random:chance(50) then
    close = { op = "timeout", timeout = self.random:number(0, 2) / 8, block = { close } }
  end
  return { op = "try", block = { make, next_one, close }, handler = {} }
end)
add(2, "generator", "any", function(self) return { op = "generator_status", slot = self:slot("generators") } end)


-- ---- less usual ones ----

add(3, "lock", "task", function() return { op = "lock_acquire" } end)
add(2, "sync", "any", function() return { op = "look_at_sync" } end)
add(4, "condition", "scope", function(self, place)
  local block = self:block(place)
  table.insert(block, self.random:number(1, #block + 1), { op = "condition_wait_for", count = self.random:number(1, 2) })
  return { op = "condition", block = block }
end)
add(6, "condition", "task", function()
  return { op = "condition", block = { { op = "stock", count = 1 }, { op = "notify_all" } } }
end)
add(1, "condition", "any", function(self) return { op = "stock", count = self.random:number(-1, 1) } end)
add(1, "condition", "any", function(self) return { op = "notify_all", guard = self:guard() } end)
add(1, "condition", "task", function() return { op = "condition_acquire" } end)
add(1, "condition", "any", function(self) return { op = "condition_release", guard = self:guard() } end)
local function of_queue(self) return self.random:number(1, #self.objects.queues) end
add(4, "queue", "scope", function(self)
  local slot = of_queue(self)
  local pause = self.random:chance(50) and { op = "turn" } or { op = "sleep", delay = self:delay() }
  return {
    op = "repeat", count = self.random:number(2, 4),
    block = { { op = "queue_get", slot = slot }, pause, { op = "queue_task_done", slot = slot, guard = true } },
  }
end)
add(4, "queue", "scope", function(self)
  local slot = of_queue(self)
  return {
    op = "repeat", count = self.random:number(2, 4),
    block = { { op = "queue_put", slot = slot, value = self.random:number(1, 9) } },
  }
end)
add(3, "queue", "scope", function(self)
  local slot = of_queue(self)
  return {
    op = "try", handler = {},
    block = { { op = "queue_put", slot = slot, value = self.random:number(1, 9) }, { op = "queue_join", slot = slot } },
  }
end)
add(1, "queue", "any", function(self)
  return { op = "queue_shutdown", slot = of_queue(self), immediate = self.random:chance(40) or nil }
end)
add(3, "queue", "any", function(self) return { op = "look_at_queue", slot = of_queue(self) } end)
add(2, "queue", "task", function(self)
  return { op = "queue_items", slot = of_queue(self), count = self.random:number(1, 4) }
end)
add(1, "timeout", "any", function() return { op = "reschedule_closed", guard = true } end)
add(1, false, "any", function(self)
  return { op = "new_future", slot = self.random:number(1, self.objects.futures), of_loop = self.random:chance(50) or nil }
end)
add(2, false, "any", function(self, place)
  return { op = "ensure_future", target = self:awaitable(place), slot = self:slot("tasks") }
end)
add(1, "loop", "any", function(self, place)
  if place.level >= self.body_count then return nil end
  return { op = "coro_close", body = self:body_above(place), again = self.random:chance(30) or nil }
end)
add(1, "loop", "task", function(self, place)
  if place.level >= self.body_count then return nil end
  return { op = "await_twice", body = self:body_above(place), guard = self:guard() }
end)
add(3, "loop", "any", function(self) return { op = "look_at_handle", slot = self:slot("handles") } end)
add(3, "loop", "any", function(self) return { op = "name", target = self:task() } end)
add(1, "loop", "any", function(self) return { op = "set_name", target = self:task(), name = self:label("n") } end)
add(2, "loop", "any", function() return { op = "current_task" } end)
add(2, "loop", "any", function() return { op = "all_tasks" } end)
add(1, "loop", "any", function() return { op = "look_at_loop" } end)
add(1, "loop", "any", function(self)
  return { op = "run_again", how = self.random:pick { "run_until_complete", "run_forever", "close" }, guard = true }
end)
add(1, "stop", "any", function() return { op = "stop" } end)
add(1, "loop", "any", function(self)
  return { op = "tell", label = self:label("k"), error = self.random:chance(50) and self:label("u") or nil }
end)

--- What a body may be asked of as a generator: makes one, and some yields among the statements of a body.
function ops.make_generator(self, place) return make_generator(self, place) end

function ops.add_yields(self, statements)
  for _ = 1, self.random:number(0, 3) do
    local place = self.random:number(1, #statements + 1)
    table.insert(statements, place, { op = "yield", value = self:label("y") })
    local dice = self.random:number(1, 4)
    if dice == 1 then table.insert(statements, place, { op = "turn" }) end
    if dice == 2 then table.insert(statements, place, { op = "sleep", delay = self:delay() }) end
  end
end

return ops
