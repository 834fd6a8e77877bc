-- src/uv/poller.c: looking at the system.
local support = require "spec.support"

describe("the poller on libuv", function()
  it("does not block on what was due before it looked, however slow the machine", function()
    local clock = package.searchpath("slow_clock", package.cpath)
    local preload = os.getenv("LD_PRELOAD") or ""
    local output, status = support.script([[
      agather.run(function()
        local listener <close> = agather.net.listen("127.0.0.1", 0) -- the loop is libuv's from here on
        for i = 1, 12 do agather.sleep(i * 0.001) end
        print("awake")
      end)
    ]], "LD_PRELOAD='" .. preload .. (preload ~= "" and ":" or "") .. assert(clock) .. "'")
    assert.equal("awake\n", output)
    assert.equal(0, status)
  end)
end)
