-- Each case of futures.c is a sentence.
local host = require "spec.support.host"

describe("a future of a C host", function()
  for _, name in ipairs(host.cases("embed_futures")) do
    it(name, function()
      local ok, output = host.run("embed_futures", name)
      assert.equal("", output)
      assert.is_true(ok)
    end)
  end
end)
