local agather = require "agather"
local support = require "spec.support"

local raises, virtual = support.raises, support.virtual

local class_names = {
  "CancelledError", "TimeoutError", "InvalidStateError", "QueueEmpty", "QueueFull", "QueueShutDown",
  "BrokenBarrierError", "IncompleteReadError", "LimitOverrunError", "OSError", "DeadlockError", "KeyboardInterrupt",
  "ExceptionGroup", "LimitError",
}

describe("error classes", function()
  for _, name in ipairs(class_names) do
    it("has " .. name .. ", derived from Error", function()
      local object = agather[name]("message")
      assert.is_true(agather.is_error(object, agather[name]))
      assert.is_true(agather.is_error(object, agather.Error))
      assert.equal(name, tostring(agather[name]))
    end)
  end

  it("derives TLSError from OSError", function()
    local object = agather.TLSError("message")
    assert.is_true(agather.is_error(object, agather.OSError))
    assert.is_true(agather.is_error(object, agather.Error))
    assert.equal("TLSError", tostring(agather.TLSError))
    assert.is_false(agather.is_error(agather.OSError("message"), agather.TLSError))
  end)

  it("makes objects whose string is the message", function()
    assert.equal("no route", tostring(agather.Error("no route")))
    assert.equal("no route", agather.Error("no route").message)
  end)

  it("makes objects whose string is the name of the class when there is no message", function()
    assert.equal("TimeoutError", tostring(agather.TimeoutError()))
    assert.equal("TimeoutError", tostring(agather.TimeoutError("")))
  end)

  it("gives an object the fields of a second argument", function()
    local object = agather.OSError("refused", { code = "ECONNREFUSED", errno = 111 })
    assert.equal("ECONNREFUSED", object.code)
    assert.equal(111, object.errno)
    assert.equal("refused", tostring(object))
  end)

  it("makes objects that are their own value", function()
    local object = agather.Error("x")
    assert.equal(object, object.value)
  end)

  it("lets scripts derive classes of their own, to any depth", function()
    local Base = agather.Error:subclass("Base")
    local Leaf = Base:subclass("Leaf")
    local object = Leaf("message")
    assert.equal("Leaf", tostring(Leaf))
    assert.equal("Leaf", object.name)
    assert.equal("Leaf", tostring(Leaf()))
    assert.is_true(agather.is_error(object, Leaf))
    assert.is_true(agather.is_error(object, Base))
    assert.is_true(agather.is_error(object, agather.Error))
    assert.is_false(agather.is_error(Base(), Leaf))
    assert.is_false(agather.is_error(object, agather.TimeoutError))
  end)

  it("shows what is added to a class in its objects and in derived classes", function()
    local Base = agather.Error:subclass("Base")
    local Leaf = Base:subclass("Leaf")
    function Base:shout() return self.message:upper() end
    assert.equal("HELP", Base("help"):shout())
    assert.equal("HELP", Leaf("help"):shout())
  end)

  it("says what subclass needs", function()
    raises("bad argument #1 to 'subclass' (error class expected", function() return agather.Error.subclass() end)
    raises("bad argument #1 to 'subclass' (string expected, got no value)", function()
      return agather.Error:subclass()
    end)
  end)
end)

describe("is_error", function()
  it("tells error objects from any other value", function()
    assert.is_true(agather.is_error(agather.Error("x")))
    for _, value in ipairs{ "x", 1, true, {}, print, io.stdout, setmetatable({}, {}), agather.Error } do
      assert.is_false(agather.is_error(value))
    end
    assert.is_false(agather.is_error(nil))
    assert.is_false(agather.is_error())
    assert.is_false(agather.is_error("x", agather.Error))
  end)

  it("says that its second argument is no class", function()
    raises("bad argument #2 to 'is_error' (error class expected)", function() return agather.is_error("x", 2) end)
    raises("bad argument #2 to 'is_error' (error class expected)", function() return agather.is_error("x", {}) end)
  end)
end)

describe("a raised value", function()
  local function exception(value)
    return virtual(function()
      local task = agather.spawn(function() error(value, 0) end)
      pcall(task.await, task)
      return task:exception()
    end)
  end

  it("reaches the awaiter as it is, whatever it is", function()
    for _, value in ipairs{ "text", 42, false, true, { code = 1 }, print, agather.Error("object") } do
      virtual(function()
        local ok, raised = pcall(agather.await, agather.spawn(function() error(value, 0) end))
        assert.is_false(ok)
        assert.equal(value, raised)
      end)
    end
  end)

  it("is the object itself where that has a field of the name value, as limits' errors do", function()
    for _, value in ipairs{ 42, "text", false } do
      local object = agather.LimitError("too many", { limit = "tasks", value = value })
      virtual(function()
        local function fail() error(object, 0) end
        assert.equal(object, select(2, pcall(agather.await, agather.spawn(fail))))
        assert.equal(object, select(2, pcall(agather.await, agather.gather(fail))))
        assert.equal(object, agather.await(agather.gather(fail, { return_exceptions = true }))[1])
      end)
      assert.equal(object, select(2, pcall(agather.run, function() error(object, 0) end)))
      assert.equal(value, object.value)
    end
  end)

  it("is the value of an error object where it stands beside results", function()
    local value = { code = 1 }
    local object = exception(value)
    assert.is_true(agather.is_error(object))
    assert.equal(value, object.value)
    assert.equal("boom", exception("boom").value)
    assert.equal("boom", tostring(exception("boom")))
    assert.is_false(exception(false).value)
  end)

  it("that is no string is named by its type in the object's string", function()
    assert.equal("(error object is a table value)", tostring(exception({})))
    assert.equal("(error object is a boolean value)", tostring(exception(false)))
  end)

  it("that is an error object stands for itself", function()
    local object = agather.TimeoutError("late")
    assert.equal(object, exception(object))
  end)

  it("carries the traceback of the place where it was raised", function()
    local function deepest() error("boom") end
    virtual(function()
      local task = agather.spawn(function()
        deepest()
        return 1
      end)
      pcall(task.await, task)
      local line = debug.getinfo(deepest, "S").linedefined
      assert.truthy(task:exception().traceback:find("error_spec.lua:" .. line .. ":", 1, true))
    end)
  end)

  it("keeps the first traceback when it is raised again", function()
    virtual(function()
      local object = agather.Error("x")
      local first = agather.spawn(function() error(object) end)
      pcall(first.await, first)
      local traceback = object.traceback
      assert.truthy(traceback)
      local second = agather.spawn(function() first:await() end)
      pcall(second.await, second)
      assert.equal(traceback, object.traceback)
    end)
  end)

  it("of an error in a close handler replaces the one that unwinds", function()
    virtual(function()
      local task = agather.spawn(function()
        local _ <close> = support.closing(function() error("in close", 0) end)
        error("in body", 0)
      end)
      assert.equal("in close", raises("in close", task.await, task))
    end)
  end)
end)

describe("an error", function()
  it("the object of a number has its digits, and of an object with __tostring its text, as lua's own reports", function()
    virtual(function()
      for text, value in pairs{ ["42"] = 42, text = setmetatable({}, { __tostring = function() return "text" end }) } do
        local task = agather.spawn(function() error(value) end)
        pcall(task.await, task)
        assert.equal(text, tostring(task:exception()))
      end
    end)
  end)

  it("a message that is a number is shown", function()
    assert.equal("12", tostring(agather.Error(12)))
  end)

  it("a raised nil reaches the awaiter as nil", function()
    virtual(function()
      local task = agather.spawn(function() error(nil) end)
      assert.same({ false, nil, n = 2 }, table.pack(pcall(task.await, task)))
    end)
  end)

  it("a class that is raised is an object of it: CancelledError cancels, pcall lets it through", function()
    virtual(function()
      local task = agather.spawn(function() agather.pcall(error, agather.CancelledError) end)
      pcall(task.await, task)
      assert.is_true(task:cancelled())
    end)
  end)
end)
