-- A host whose memory fails: see scarce.c.
local host = require "spec.support.host"

describe("a host whose memory fails", function()
  it("gets statuses, never an error, and goes on when there is memory again", function()
    local ok, output = host.run("embed_scarce", "memory")
    assert.is_true(ok, output)
    assert.is_true(tonumber(output:match("^(%d+) runs\n$")) > 500, output)
  end)

  it("keeps everything that is still needed when Lua collects at every allocation", function()
    local ok, output = host.run("embed_scarce", "collect")
    assert.is_true(ok, output)
    assert.equal("1 run\n", output)
  end)
end)
