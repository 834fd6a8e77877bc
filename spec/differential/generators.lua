-- Statements about generators that wait, agather.coroutine: a part of interpreter.lua, as generators.py.
local agather = require "agather"
local shown = require "spec.differential.shown"

local coroutine = agather.coroutine

-- What is raised in a generator to close it.
local function is_exit(err) return agather.is_error(err) and tostring(err):find("the coroutine was closed", 1, true) end

return function(run, Interpreter)
  function Interpreter:generator(frame, statements, final)
    return function()
      local _ <close> = setmetatable({}, { __close = function() self:block(frame, final) end })
      local _ <close> = setmetatable({}, {
        __close = function(_, err)
          if err == nil then return end
          self:log(frame, is_exit(err) and "is closed" or "ends with " .. shown.error(err))
        end,
      })
      self:log(frame, "starts")
      self:block(frame, statements)
      self:log(frame, "ends")
    end
  end

  run.yield = function(self, frame, statement)
    if not frame.yields then
      self:log(frame, "has nobody to yield to")
      return
    end
    self:log(frame, "is given " .. shown.value(coroutine.yield(statement.value)))
  end

  function run.make_generator(self, _, statement)
    local frame, statements = self:new_frame(statement.body)
    frame.yields = true
    local thread, resume = nil, coroutine.resume
    local body = self:generator(frame, statements, statement.final)
    if statement.wrap then
      local wrapped = coroutine.wrap(function(...)
        thread = coroutine.running()
        return body(...)
      end)
      function resume(_, value) return pcall(wrapped, value) end
    else
      thread = coroutine.create(body)
    end
    self.generators[statement.slot] = {
      level = statement.body, name = "y" .. statement.slot, resume = resume, fresh = true,
      thread = function() return thread end,
    }
  end

  function run.generator_status(self, frame, statement)
    local entry = self.generators[statement.slot]
    if not entry then return end
    local thread = entry.thread() -- a wrapped one is known when it runs
    local status = thread and coroutine.status(thread) or entry.closed and "dead" or "suspended"
    if status == "running" then status = "normal" end -- asyncio knows one word for both
    self:log(frame, ("%s is %s"):format(entry.name, status))
  end

  -- Whether there was one.
  local function next_value(self, frame, entry, value)
    if entry.fresh then value, entry.fresh = nil, false end
    local ok, result
    if not entry.closed then
      ok, result = entry.resume(entry.thread(), value)
      local over = type(result) == "string" and result:find("cannot resume dead coroutine", 1, true)
      if not ok and not over then error(result, 0) end
    end
    if not ok or coroutine.status(entry.thread()) == "dead" then
      self:log(frame, entry.name .. " is over")
      return false
    end
    self:log(frame, ("%s yields %s"):format(entry.name, shown.value(result)))
    return true
  end

  local function generator_for(self, frame, statement)
    local entry = self.generators[statement.slot]
    return entry and entry.level > frame.level and entry or nil
  end

  function run.generator_next(self, frame, statement)
    local entry = generator_for(self, frame, statement)
    if entry then next_value(self, frame, entry, statement.value) end
  end

  function run.generator_iterate(self, frame, statement)
    local entry = generator_for(self, frame, statement)
    if not entry then return end
    for _ = 1, statement.count do
      if not next_value(self, frame, entry, nil) then return end
      if self:block(frame, statement.block) then return true end
    end
  end

  function run.generator_close(self, frame, statement)
    local entry = generator_for(self, frame, statement)
    if not entry then return end
    local thread = entry.thread()
    if thread then
      local failed = coroutine.status(thread) == "dead" -- Lua's close gives its error once more, asyncio's aclose does not
      local ok, err = coroutine.close(thread)
      if not ok and not failed then error(err, 0) end
    else
      entry.closed = true
    end
    self:log(frame, entry.name .. " closed")
  end
end
