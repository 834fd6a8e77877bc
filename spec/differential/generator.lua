-- Makes random programs over agather's primitives from a seed: plain tables of statements, that interpreter.lua runs
-- with agather and interpreter.py with asyncio. Equal seeds make equal programs, on every machine.
--
-- A program has `main`, a list of statements, `bodies`, lists of statements for tasks, and `objects`, how many futures,
-- locks and so on there are. A statement is a table with `op` and what the op needs; the fields named in `blocks` hold
-- statements again. Body k starts only bodies above k, and a task waits only for tasks of bodies above its own, so that
-- programs end and no circle of awaits arises.
local generator = {}

--- The fields of a statement that hold lists of statements.
generator.blocks = { "block", "handler", "final", "actions" }

-- ---- random numbers: xorshift64* ----

local Random = {}
Random.__index = Random

local function new_random(seed)
  local state = (seed + 1) * 0x9E3779B97F4A7C15
  state = (state ~ (state >> 30)) * 0xBF58476D1CE4E5B9
  state = state ~ (state >> 27)
  if state == 0 then state = 1 end
  return setmetatable({ state = state }, Random)
end

-- A whole number from low to high.
function Random:number(low, high)
  local state = self.state
  state = state ~ (state >> 12)
  state = state ~ (state << 25)
  state = state ~ (state >> 27)
  self.state = state
  return low + ((state * 0x2545F4914F6CDD1D) >> 33) % (high - low + 1)
end

function Random:chance(percent) return self:number(1, 100) <= percent end
function Random:pick(list) return list[self:number(1, #list)] end

-- ---- features ----

-- Feature -> the name in agather that it needs. A feature that the module has not is never generated.
local needs = {
  lock = "Lock",
  event = "Event",
  semaphore = "Semaphore",
  queue = "Queue",
  condition = "Condition",
  barrier = "Barrier",
  wait = "wait",
  wait_for = "wait_for",
  timeout = "timeout",
  shield = "shield",
  group = "TaskGroup",
  as_completed = "as_completed",
  context = "ContextVar",
}

-- Always the same order: pairs() has none.
local feature_names = {}
for name in pairs(needs) do feature_names[#feature_names + 1] = name end
table.sort(feature_names)

--- The features that the module offers: a set of names.
function generator.features(agather)
  local features = {}
  for name, needed in pairs(needs) do features[name] = agather[needed] ~= nil end
  return features
end

-- ---- statements ----

local TASKS, GROUPS, HANDLES, CALLBACKS = 4, 2, 2, 2 -- slots for what statements store

local Generator = {}
Generator.__index = Generator

function Generator:label(prefix)
  self.labels = self.labels + 1
  return prefix .. self.labels
end

function Generator:delay() return self.random:number(1, 6) / 8 end
function Generator:body_above(place) return self.random:number(place.level + 1, self.body_count) end
function Generator:task() return { kind = "task", slot = self.random:number(1, TASKS) } end
function Generator:future() return { kind = "future", slot = self.random:number(1, self.objects.futures) } end
function Generator:group() return { kind = "group", slot = self.random:number(1, GROUPS) } end

-- A task, future or group (gather or shield) that a slot holds.
function Generator:target()
  local dice = self.random:number(1, 10)
  if dice <= 6 then return self:task() end
  if dice <= 8 then return self:future() end
  return self:group()
end

-- What may be awaited: also a body, as a coro, a plain function or a Lua thread.
function Generator:awaitable(place)
  if place.level < self.body_count and self.random:chance(40) then
    return { kind = self.random:pick { "coro", "coro", "coro", "function", "thread" }, body = self:body_above(place) }
  end
  return self:target()
end

function Generator:awaitables(place, only_targets)
  local items = {}
  for i = 1, self.random:number(1, 4) do
    if i > 1 and self.random:chance(15) then
      local index = self.random:number(1, i - 1)
      local kind = items[index].kind
      -- Each place of a function is another run of it, and a thread runs only once.
      items[i] = (kind == "function" or kind == "thread") and self:task() or { kind = "same", index = index }
    else
      items[i] = only_targets and self:target() or self:awaitable(place)
    end
  end
  return items
end

function Generator:message() return self.messages and self.random:chance(50) and self:label("m") or nil end

-- Most statements that may raise catch their own error.
function Generator:guard() return self.random:chance(85) or nil end

function Generator:error_form() return self.random:pick { "string", "table", "object", "subclass" } end

-- ops: { weight, feature or false, where, function that makes the statement }
-- where: "any", also in callbacks; "task", only in tasks; "scope", in tasks, and holds blocks.
local ops = {}
local function add(weight, feature, where, make)
  ops[#ops + 1] = { weight = weight, feature = feature, where = where, make = make }
end

add(8, false, "any", function(self) return { op = "log", label = self:label("l") } end)
add(8, false, "any", function(self, place)
  if place.level >= self.body_count then return nil end
  local form = self.random:pick { "coro", "spawn", "function", "thread" }
  return { op = "spawn", body = self:body_above(place), slot = self.random:number(1, TASKS), form = form }
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
    op = "call_soon", label = self:label("c"), actions = self:callback(place), slot = self.random:number(1, HANDLES),
  }
end)
add(3, false, "any", function(self, place)
  return {
    op = "call_later", delay = self.random:number(0, 5) / 8, label = self:label("c"), actions = self:callback(place),
    slot = self.random:number(1, HANDLES),
  }
end)
add(1, false, "any", function(self) return { op = "cancel_handle", slot = self.random:number(1, HANDLES) } end)
add(3, false, "any", function(self, place)
  return {
    op = "add_done_callback", target = self:target(), label = self:label("d"), actions = self:callback(place),
    slot = self.random:number(1, CALLBACKS),
  }
end)
add(1, false, "any", function(self)
  return { op = "remove_done_callback", target = self:target(), slot = self.random:number(1, CALLBACKS) }
end)
add(3, false, "any", function(self, place)
  return {
    op = "make_gather", items = self:awaitables(place), return_exceptions = self.random:chance(40),
    slot = self.random:number(1, GROUPS),
  }
end)

add(8, false, "task", function() return { op = "turn" } end)
add(7, false, "task", function(self) return { op = "sleep", delay = self:delay() } end)
add(7, false, "task", function(self)
  return { op = "await", target = self:target(), method = self.random:chance(30) }
end)
add(3, false, "task", function(self, place)
  if place.level >= self.body_count then return nil end
  return { op = "await", target = { kind = "coro", body = self:body_above(place) } }
end)
add(4, false, "task", function(self, place)
  return { op = "gather", items = self:awaitables(place), return_exceptions = self.random:chance(40) }
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
    errors_only = self.random:chance(20) or nil,
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
queue_op(1, "task", "queue_join")
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
  return { op = "timeout", timeout = timeout, block = self:block(place) }
end)
add(2, "timeout", "any", function(self)
  return { op = "reschedule", delay = self.random:chance(80) and self.random:number(-1, 4) / 8 or nil, guard = true }
end)
add(6, "shield", "task", function(self, place) return { op = "await_shield", target = self:awaitable(place) } end)
add(3, "shield", "any", function(self, place)
  return { op = "make_shield", target = self:awaitable(place), slot = self.random:number(1, GROUPS) }
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
add(4, "context", "task", function(self) return { op = "variable_set", value = self:label("x") } end)
add(5, "context", "any", function() return { op = "variable_get" } end)

function Generator:group_spawn(place)
  return {
    op = "group_spawn", body = self:body_above(place), slot = self.random:number(1, TASKS),
    guard = self.random:chance(70) or nil,
  }
end

local function fits(self, op, place)
  if op.feature and not self.features[op.feature] then return false end
  if place.callback then return op.where == "any" end
  return op.where ~= "scope" or place.depth < 3
end

function Generator:statement(place)
  while true do
    local total = 0
    for _, op in ipairs(ops) do
      if fits(self, op, place) then total = total + op.weight end
    end
    local dice = self.random:number(1, total)
    for _, op in ipairs(ops) do
      if fits(self, op, place) then
        dice = dice - op.weight
        if dice <= 0 then
          local statement = op.make(self, place)
          if statement then return statement end
          break
        end
      end
    end
  end
end

function Generator:statements(place, count)
  local list = {}
  for i = 1, count do list[i] = self:statement(place) end
  return list
end

-- A list of statements inside of another statement.
function Generator:block(place, most, final)
  local inside = { level = place.level, depth = place.depth + 1, final = place.final or final == "final" }
  return self:statements(inside, self.random:number(1, most or 3))
end

function Generator:callback(place)
  if self.random:chance(40) or place.callback then return {} end
  return self:statements({ level = place.level, depth = 9, callback = true }, 1)
end

-- Late in the program everything that tasks may wait for happens once, so that fewer programs end in a deadlock.
function Generator:rescue()
  local actions = {}
  for slot = 1, self.objects.futures do
    actions[#actions + 1] = {
      op = "set_result", target = { kind = "future", slot = slot }, value = "late" .. slot, guard = true,
    }
  end
  if self.features.event then actions[#actions + 1] = { op = "event_set" } end
  if self.features.semaphore then actions[#actions + 1] = { op = "semaphore_release", guard = true } end
  if self.features.queue then
    for slot in ipairs(self.objects.queues) do
      actions[#actions + 1] = { op = "queue_put_nowait", slot = slot, value = 0, guard = true }
    end
  end
  local delay = self.random:number(8, 16) / 8
  return { op = "call_later", delay = delay, label = "rescue", actions = actions, slot = HANDLES + 1 }
end

--- The program for a seed.
---@param seed integer
---@param available table<string, boolean> set of features, as generator.features gives
---@return table program
function generator.program(seed, available)
  local random = new_random(seed)
  local features = {}
  for _, name in ipairs(feature_names) do
    local wanted = random:chance(30) -- drawn also where the feature is missing: the rest of the program stays the same
    features[name] = wanted and available[name] or false
  end
  features.uncancel = random:chance(25)
  local self = setmetatable({
    random = random,
    features = features,
    labels = 0,
    messages = random:chance(40),
    body_count = random:number(2, 5),
    objects = {
      futures = random:number(1, 2), queues = {}, semaphore = random:number(0, 2), bounded = random:chance(30),
    },
  }, Generator)
  for slot = 1, random:number(1, 2) do
    self.objects.queues[slot] = {
      kind = random:chance(80) and "Queue" or random:pick { "LifoQueue", "PriorityQueue" },
      maxsize = random:number(0, 2),
    }
  end
  local program = { seed = seed, objects = self.objects, bodies = {}, main = {} }
  for body = 1, self.body_count do
    local place = { level = body, depth = 0 }
    program.bodies[body] = self:statements(place, random:number(2, 6))
    if random:chance(50) then table.insert(program.bodies[body], { op = "return", value = self:label("r") }) end
  end
  if random:chance(70) then table.insert(program.main, self:rescue()) end
  local place = { level = 0, depth = 0 }
  for slot = 1, random:number(1, 3) do
    table.insert(program.main, { op = "spawn", body = self:body_above(place), slot = slot, form = "coro" })
  end
  for _ = 1, random:number(4, 10) do
    -- Main goes on after most errors.
    local statement = self:statement(place)
    if random:chance(60) then statement = { op = "try", block = { statement }, handler = {} } end
    table.insert(program.main, statement)
  end
  if random:chance(80) then table.insert(program.main, { op = "sleep", delay = random:number(1, 24) / 8 }) end
  return program
end

return generator
