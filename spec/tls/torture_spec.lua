-- Memory that fails, and a collection at every allocation, while TLS is spoken: see spec/embed/torture.c. By hand, all
-- 3,500 places: TLS_CERTIFICATES=... build/torture memory spec/tls/torture.lua
local core = assert(package.searchpath("agather.core", package.cpath))
local certificates = require("spec.support.certificates").make()
local program = core:gsub("agather/core%.so$", "torture")

local function torture(mode)
  local pipe = assert(io.popen(("TLS_CERTIFICATES=%s %s %s 2>/dev/null"):format(certificates.folder, program, mode)))
  local output = pipe:read("a")
  return pipe:close(), output
end

describe("TLS in a state whose memory fails", function()
  teardown(function() certificates.remove() end)

  it("leaves a state that goes on or closes, at every 53rd allocation", function()
    local ok, output = torture "memory spec/tls/torture.lua 53"
    assert.is_true(ok, output)
    assert.is_true(tonumber(output:match("(%d+) runs\n$")) > 50, output)
  end)

  it("keeps everything that it still needs when Lua collects at every allocation", function()
    local ok, output = torture "collect spec/tls/torture.lua"
    assert.is_true(ok, output)
    assert.equal("1 run\n", output)
  end)
end)
