-- Finalizers of the script's own that run in the middle of the library's functions: see spec/support/finalizer.lua.
local support = require "spec.support"

-- Runs one of spec/finalizer_programs.lua; it must have come by so many places.
local function holds(program, places)
  local output, status = support.script(('require("spec.finalizer_programs").%s()'):format(program))
  local problems, found = output:match("^(.-)(%d+) places\n") -- what follows was reported, to stderr
  assert.equal(0, status, output)
  assert.equal("", problems or output)
  assert.is_true(tonumber(found) >= places, found)
end

describe("a finalizer that runs at any allocation", function()
  it("may close or run a loop that is at rest", function() holds("idle", 120) end)
  it("may settle, cancel, run and stop what tasks are about to do", function() holds("tasks", 700) end)
  it("may close, cancel and run what streams and sockets are about to do", function() holds("streams", 200) end)
  it("may close, cancel and run what files, watchers and workers are about to do", function() holds("files", 150) end)
  it("may end, cancel and run what children are about to do", function() holds("children", 30) end)
end)
