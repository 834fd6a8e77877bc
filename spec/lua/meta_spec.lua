-- lua/agather/meta.lua annotates what the C core gives, no more and no less.
local agather = require "agather"

local function annotated(path, prefix)
  local names = {}
  for line in io.lines(path) do
    local owner, name = line:match("^function ([%w_.]+)[.:]([%w_]+)%(")
    if owner == prefix then names[name] = true end
  end
  return names
end

local function names_of(object)
  local names = {}
  for name, value in pairs(object) do
    if type(value) == "function" then names[name] = true end
  end
  return names
end

local function methods_of(object) return names_of(getmetatable(object).__index) end

describe("the annotations", function()
  local path = "lua/agather/meta.lua"

  it("name every function of the module, and no other", function()
    local expected = names_of(agather)
    for _, lazy in ipairs { "timeout", "timeout_at", "wait_for", "wait", "as_completed", "shield", "TaskGroup",
      "Barrier", "map", "from_callback" } do
      expected[lazy] = nil
    end
    assert.same(expected, annotated(path, "agather"))
    assert.same(names_of(agather.coroutine), annotated(path, "agather.coroutine"))
  end)

  it("name every method of the types, and no other", function()
    agather.run(function()
      local loop = agather.get_running_loop()
      local coro = agather.async(function() end)()
      local handle = loop:call_soon(print)
      handle:cancel()
      local objects = {
        Loop = loop, Handle = handle, Future = agather.future(), Coroutine = coro, Queue = agather.Queue(),
        Lock = agather.Lock(), Event = agather.Event(), Semaphore = agather.Semaphore(),
        Condition = agather.Condition(), ContextVar = agather.ContextVar("x"), Context = agather.copy_context(),
      }
      for name, object in pairs(objects) do assert.same(methods_of(object), annotated(path, name), name) end
      coro:close()
      local task_methods = methods_of(agather.current_task())
      for name in pairs(annotated(path, "Future")) do task_methods[name] = nil end
      assert.same(task_methods, annotated(path, "Task"))
    end)
    local runner <close> = agather.Runner()
    assert.same(methods_of(runner), annotated(path, "Runner"))
  end)
end)
