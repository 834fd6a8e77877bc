-- Statements about context variables: a part of interpreter.lua, as contexts.py.
local agather = require "agather"

return function(run)
  local function variable(self, statement) return statement.bare and self.bare or self.variable end

  function run.variable_get(self, frame, statement)
    if not statement.bare then
      self:log(frame, "variable " .. self.variable:get())
    elseif statement.default then
      self:log(frame, "bare " .. self.bare:get(statement.default))
    else
      self:log(frame, "bare " .. self.bare:get())
    end
  end

  function run.variable_set(self, _, statement)
    self.tokens[statement.slot] = variable(self, statement):set(statement.value)
  end

  function run.variable_reset(self, frame, statement)
    local token = self.tokens[statement.slot]
    if not token then return end
    variable(self, statement):reset(token)
    self:log(frame, "reset")
  end

  function run.copy_context(self, _, statement)
    local other = self.contexts[statement.of]
    self.contexts[statement.slot] = other and other:copy() or agather.copy_context()
  end

  function run.context_get(self, frame, statement)
    local context = self.contexts[statement.slot]
    if not context then return end
    self:log(frame, ("there it is %s and %s"):format(
      context:get(self.variable, "default"), context:get(self.bare, "default")))
  end

  function run.task_context_get(self, frame, statement)
    local entry = self:target(statement.target)
    if not entry then return end
    self:log(frame, ("%s has variable %s"):format(entry.name, entry.value:get_context():get(self.variable, "default")))
  end

  function run.context_run(self, frame, statement)
    local context = self.contexts[statement.slot]
    if not context then return end
    local function actions(label)
      self:log(frame, "within " .. label)
      self:block(frame, statement.actions)
      return "result"
    end
    self:log(frame, "context gives " .. context:run(actions, "the context"))
  end
end
