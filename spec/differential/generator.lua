-- Makes random programs over agather's primitives from a seed: plain tables of statements, that interpreter.lua runs
-- with agather and interpreter.py with asyncio. Equal seeds make equal programs, on every machine.
--
-- A program has `main`, a list of statements, `bodies`, lists of statements for tasks, and `objects`, how many futures,
-- locks and so on there are. A statement is a table with `op` and what the op needs; the fields named in `blocks` hold
-- statements again. Body k starts only bodies above k, and a task waits only for tasks of bodies above its own, so that
-- programs end and no circle of awaits arises. `mains` holds the lists of further mains, that run one after the other on
-- the same loop.
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
  generator = "coroutine",
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

local slots = { tasks = 4, groups = 2, handles = 2, callbacks = 2, tokens = 2, contexts = 2, generators = 2 }

local ops = require "spec.differential.statements"

local Generator = {}
Generator.__index = Generator

function Generator:label(prefix)
  self.labels = self.labels + 1
  return prefix .. self.labels
end

function Generator:delay() return self.random:number(1, 6) / 8 end
function Generator:body_above(place) return self.random:number(place.level + 1, self.body_count) end
function Generator:slot(kind) return self.random:number(1, slots[kind]) end
function Generator:task() return { kind = "task", slot = self:slot("tasks") } end
function Generator:future() return { kind = "future", slot = self.random:number(1, self.objects.futures) } end
function Generator:group() return { kind = "group", slot = self:slot("groups") } end

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

function Generator:group_spawn(place)
  return {
    op = "group_spawn", body = self:body_above(place), slot = self:slot("tasks"),
    form = self.random:chance(40) and "spawn" or nil, guard = self.random:chance(70) or nil,
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
  if self.features.lock then actions[#actions + 1] = { op = "lock_release", guard = true } end
  if self.features.condition then actions[#actions + 1] = { op = "condition_release", guard = true } end
  if self.features.semaphore then actions[#actions + 1] = { op = "semaphore_release", guard = true } end
  if self.features.queue then
    for slot in ipairs(self.objects.queues) do
      actions[#actions + 1] = { op = "queue_put_nowait", slot = slot, value = 0, guard = true }
    end
  end
  local delay = self.random:number(8, 16) / 8
  return { op = "call_later", delay = delay, label = "rescue", actions = actions, slot = slots.handles + 1 }
end

function Generator:main_statements()
  local random, main = self.random, {}
  if random:chance(70) then table.insert(main, self:rescue()) end
  if random:chance(60) then -- and who still waits then is cancelled
    table.insert(main, {
      op = "call_later", delay = random:number(16, 24) / 8, label = "last", slot = slots.handles + 2,
      actions = { { op = "cancel", target = { kind = "main" } } },
    })
  end
  local place = { level = 0, depth = 0 }
  for slot = 1, random:number(1, 3) do
    table.insert(main, { op = "spawn", body = self:body_above(place), slot = slot, form = "coro" })
  end
  if self.features.generator then table.insert(main, ops.make_generator(self, place)) end
  for _ = 1, random:number(4, 10) do
    -- Main goes on after most errors.
    local statement = self:statement(place)
    if random:chance(60) then statement = { op = "try", block = { statement }, handler = {} } end
    table.insert(main, statement)
  end
  if random:chance(80) then table.insert(main, { op = "sleep", delay = random:number(1, 24) / 8 }) end
  return main
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
  features.eager = random:chance(15)
  features.loop = random:chance(35)
  features.sync = features.lock or features.event or features.semaphore or features.barrier
  local mains = random:chance(20) and random:number(1, 2) or 0
  features.stop = mains > 0 and random:chance(50)
  local self = setmetatable({
    random = random,
    features = features,
    labels = 0,
    messages = random:chance(40),
    body_count = random:number(2, 5),
    objects = {
      futures = random:number(1, 2), queues = {}, semaphore = random:number(0, 2), bounded = random:chance(30),
      parties = random:number(1, 3), shared = random:chance(20),
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
    if features.generator then ops.add_yields(self, program.bodies[body]) end
    if random:chance(50) then table.insert(program.bodies[body], { op = "return", value = self:label("r") }) end
  end
  program.main = self:main_statements()
  if mains > 0 then program.mains = {} end
  for place = 1, mains do program.mains[place] = self:main_statements() end
  return program
end

return generator
