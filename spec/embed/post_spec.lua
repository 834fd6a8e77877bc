-- Other threads and a loop: see post.c.
local host = require "spec.support.host"

local function output_of(...)
  local ok, output = host.run(...)
  assert.is_true(ok, output)
  return output
end

describe("four threads beside a loop", function()
  it("answer operations in any order, and none is lost", function()
    assert.equal("20000 answered\n", output_of("embed_post resolve", "20000"))
  end)

  if not host.sanitized then -- there the million takes a quarter of a minute
    it("answer a million operations, and none is lost", function()
      assert.equal("1000000 answered\n", output_of("embed_post resolve", "1000000"))
    end)
  end

  it("answer operations of a loop that does input and output", function()
    assert.equal("20000 answered\n", output_of("embed_post io", "20000"))
  end)

  it("may post and answer while the loop closes: each post runs or is dropped, each answer is released, once", function()
    local posts, answers = output_of("embed_post close", "50"):match("^(%d+) posts, (%d+) answers\n$")
    assert.is_true(tonumber(posts) >= 50)
    assert.equal(50 * 4 * 16 * 2, tonumber(answers))
  end)

  it("may post and wake while the loop gets other pollers", function()
    assert.equal("20000 posts\n", output_of("embed_post poller", "100"))
  end)
end)
