-- Random programs whose invariants must hold in whatever order the loop runs what is ready in one iteration: here in the
-- usual order. .ci/shuffle runs more of them, and in other orders, which takes a build of its own.
-- A program that failed: lua5.4 spec/shuffle/main.lua 1 SEED ORDER, after .ci/shuffle has built.
local program = require "spec.shuffle.program"

local FIRST, COUNT = 1, 200

describe("random programs", function()
  it("keep their invariants, and have every piece", function()
    local seen = {}
    for seed = FIRST, FIRST + COUNT - 1 do
      local failures, pieces = program.run(seed, 0)
      assert.equal("", table.concat(failures, "\n"), "program " .. seed)
      for _, name in ipairs(pieces) do seen[name] = true end
    end
    for _, name in ipairs(program.names) do assert.is_true(seen[name] or false, "no program has " .. name) end
  end)
end)
