local agather = require "agather"
local support = require "spec.support"

-- The error of f, which must begin with the line of this file that called the library.
local function here(text, f)
  local err = support.raises(text, f)
  assert.truthy(tostring(err):find("^[^\n]*check_spec%.lua:%d+: bad argument"), tostring(err))
end

describe("an error of a bad argument", function()
  it("names the line of the caller", function()
    support.virtual(function()
      here("(table of options expected, got number)", function() agather.map(print, {}, 5) end)
      here("'limit'", function() agather.map(print, {}, { limit = 0 }) end)
      here("(unknown option 'limt')", function() agather.map(print, {}, { limt = 1 }) end)
      here("'limit'", function() agather.gather_list({}, { limit = 0 }) end)
      here("place 1 of the list, got number", function() agather.gather_list({ 5 }, { limit = 1 }) end)
      here("got number", function() agather.as_completed(5) end)
      local group <close> = agather.TaskGroup()
      here("awaitable expected, got number", function() group:create_task(5) end)
    end)
  end)

  it("tells of a thread that has started, runs, or is dead, and where in a list it stands", function()
    support.virtual(function()
      local started, dead = coroutine.create(coroutine.yield), coroutine.create(function() end)
      assert(coroutine.resume(started))
      assert(coroutine.resume(dead))
      local group <close> = agather.TaskGroup()
      for _, thread in ipairs { started, dead, (coroutine.running()) } do
        for _, call in ipairs {
          function() agather.wait_for(thread, 1) end,
          function() agather.shield(thread) end,
          function() group:create_task(thread) end,
        } do
          here("(coroutine was already started)", call)
        end
        local list = { function() end, thread }
        for _, call in ipairs {
          function() agather.wait(list) end,
          function() agather.as_completed(list) end,
          function() agather.gather_list(list) end,
          function() agather.gather_list(list, { limit = 1 }) end,
        } do
          here("(coroutine at place 2 of the list was already started)", call)
        end
      end
      assert.same({ 7, n = 1 }, agather.gather_list({ coroutine.create(function() return 7 end) }, { limit = 1 }):await())
    end)
  end)
end)
