-- Statements about the loop, its handles and the names of tasks: a part of interpreter.lua, as loops.py.
local agather = require "agather"

return function(run, Interpreter)
  function run.call_soon(self, frame, statement)
    self.handles[statement.slot] = self.loop:call_soon(self:callback(frame, statement), statement.value)
  end

  function run.call_later(self, frame, statement)
    local callback = self:callback(frame, statement)
    if statement.at then
      local when = self.loop:time() + statement.delay
      self.handles[statement.slot] = self.loop:call_at(when, callback, statement.value)
    else
      self.handles[statement.slot] = self.loop:call_later(statement.delay, callback, statement.value)
    end
  end

  function run.cancel_handle(self, frame, statement)
    local handle = self.handles[statement.slot]
    if not handle then return end
    handle:cancel()
    self:log(frame, ("handle cancelled %s"):format(handle:cancelled()))
  end

  function run.look_at_handle(self, frame, statement)
    local handle = self.handles[statement.slot]
    if not handle then return end
    local when = handle:when() and ("%g"):format(handle:when() - self.start)
    self:log(frame, ("handle cancelled %s when %s"):format(handle:cancelled(), when))
  end

  -- Names that were not given count from that of the first main.
  function Interpreter:name_of(task)
    if not task then return "nil" end
    local number = math.tointeger(task:get_name():match("^Task%-(%d+)$"))
    return number and ("Task+%d"):format(number - self.first_number) or task:get_name()
  end

  function run.name(self, frame, statement)
    local entry = self:target(statement.target)
    if entry then self:log(frame, ("%s is named %s"):format(entry.name, self:name_of(entry.value))) end
  end

  function run.set_name(self, _, statement)
    local entry = self:target(statement.target)
    if entry then entry.value:set_name(statement.name) end
  end

  function run.current_task(self, frame) self:log(frame, "runs in " .. self:name_of(agather.current_task())) end

  function run.all_tasks(self, frame)
    local names = {}
    for place, task in ipairs(agather.all_tasks()) do names[place] = self:name_of(task) end
    table.sort(names)
    self:log(frame, "tasks " .. table.concat(names, " "))
  end

  function run.look_at_loop(self, frame)
    local loop = self.loop
    self:log(frame, ("loop running %s closed %s debug %s own %s"):format(
      loop:is_running(), loop:is_closed(), loop:get_debug(), agather.get_running_loop() == loop))
  end

  function run.run_again(self, _, statement)
    if statement.how == "close" then
      self.loop:close()
    elseif statement.how == "run_forever" then
      self.loop:run_forever()
    else
      self.loop:run_until_complete(agather.future())
    end
  end

  function run.stop(self) self.loop:stop() end

  function run.tell(self, _, statement)
    self.loop:call_exception_handler {
      message = "told " .. statement.label, exception = statement.error and agather.Error(statement.error),
    }
  end
end
