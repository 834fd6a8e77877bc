-- src/uv/poller.c: looking at the system.
local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"

describe("the poller on libuv", function()
  it("looks for input and output although tasks are ready all the time", function()
    net.with_connection(function(one, other)
      local arrived = false
      local busy = agather.spawn(function()
        local loop = agather.get_running_loop()
        local last = loop:time() + 3
        while not arrived and loop:time() < last do agather.sleep(0) end
        return arrived
      end)
      one:write("a line\n")
      assert.equal("a line", other:read("l"))
      arrived = true
      assert.is_true(busy:await())
    end)
  end)

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
