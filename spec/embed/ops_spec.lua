-- Each case of ops.c is a sentence.
local host = require "spec.support.host"

describe("an operation", function()
  for _, name in ipairs(host.cases("embed_ops")) do
    it(name, function()
      local ok, output = host.run("embed_ops", name)
      assert.equal("", output)
      assert.is_true(ok)
    end)
  end
end)
