-- docs/embedding.md shows code of the programs in examples/embed as it is.
local hosts = require "spec.embed.hosts"

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

describe("docs/embedding.md", function()
  local page = read("docs/embedding.md")

  it("shows code that stands in examples/embed", function()
    local sources = {}
    for _, host in ipairs(hosts.list()) do sources[#sources + 1] = read("examples/embed/" .. host.name .. ".c") end
    local all, blocks = table.concat(sources, "\n"), 0
    for block in page:gmatch("```c\n(.-)```") do
      blocks = blocks + 1
      assert.truthy(all:find(block, 1, true), "not in examples/embed:\n" .. block)
    end
    assert.is_true(blocks > 5)
  end)

  it("names no function and no example that is not there", function()
    local headers = read("include/agather.h") .. read("include/agather_uv.h")
    for name in page:gmatch("ag_[%w_]+") do assert.truthy(headers:find(name, 1, true), name) end
    for name in page:gmatch("`(%w+)%.c`") do assert.truthy(hosts.named(name), name) end
  end)
end)
