-- Re-entrancy in C: what a host calls from each of its callbacks. The cases are in spec/embed/reentry.c.
local host = require "spec.support.host"

describe("a host", function()
  for _, name in ipairs(host.cases "embed_reentry") do
    it(name, function()
      local ok, output = host.run("embed_reentry", name)
      assert.is_true(ok, output)
      assert.equal("", output)
    end)
  end
end)
