-- Other threads and a loop: see post.c.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "embed_post")
local sanitized = core:find("asan", 1, true) ~= nil

local function post(mode, count)
  local pipe = assert(io.popen(("timeout 60 %s %s %d 2>&1"):format(program, mode, count)))
  local output = pipe:read("a")
  assert.is_true(pipe:close(), output)
  return output
end

describe("four threads beside a loop", function()
  it("answer operations in any order, and none is lost", function()
    assert.equal("20000 answered\n", post("resolve", 20000))
  end)

  if not sanitized then -- there the million takes a quarter of a minute
    it("answer a million operations, and none is lost", function()
      assert.equal("1000000 answered\n", post("resolve", 1000000))
    end)
  end

  it("may post and answer while the loop closes: each post runs or is dropped, each answer is released, once", function()
    local posts, answers = post("close", 50):match("^(%d+) posts, (%d+) answers\n$")
    assert.is_true(tonumber(posts) >= 50)
    assert.equal(50 * 4 * 16 * 2, tonumber(answers))
  end)

  it("may post and wake while the loop gets other pollers", function()
    assert.equal("20000 posts\n", post("poller", 100))
  end)
end)
