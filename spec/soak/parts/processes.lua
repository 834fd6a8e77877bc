-- Children: run to their ends, fed and read by pipes, killed, timed out, cancelled; and signals.
local agather = require "agather"
local engine = require "spec.soak.engine"

local equal, raises, bytes = engine.equal, engine.raises, engine.bytes

return {
  name = "processes",
  start = function(soak)
    local process, random = agather.process, engine.random(6)
    soak:every(2, "cat gives back what it was fed", function()
      local sent = bytes(random, random(300000))
      local result = process.run { "cat", stdin = sent }
      equal(sent, result.stdout)
      equal(0, result.status)
    end)
    soak:every(1, "output, errors and status of a shell", function()
      local result = process.run { "echo out; echo err >&2; exit 3", shell = true, extra_env = { SOAK = "1" } }
      equal("out\n", result.stdout)
      equal("err\n", result.stderr)
      equal(3, result.status)
    end)
    soak:every(1, "one that hangs is ended after a time", function()
      raises(agather.TimeoutError, process.run, { "sleep", "1000", timeout = 0.02, grace = 1 })
    end)
    soak:every(0.5, "one that will not end is killed", function()
      local err = raises(agather.TimeoutError, process.run,
        { "trap '' TERM; echo there; while :; do sleep 1000; done", shell = true, timeout = 0.1, grace = 0.05 })
      assert(err.stdout == "there\n" or err.stdout == "")
    end)
    soak:every(1, "one is killed and reaped", function()
      local child <close> = process.spawn { "sleep", "1000" }
      assert(child:kill("SIGKILL"))
      local status, signal = child:wait()
      equal(nil, status)
      equal("SIGKILL", signal)
    end)
    soak:every(1, "pipes to and from", function()
      local child <close> = process.spawn { "cat" }
      for _ = 1, 10 do
        local line = ("%d"):format(random(1000000))
        child.stdin:write(line, "\n")
        equal(line, child.stdout:read())
      end
      child.stdin:close()
      equal("", child.stdout:read("a"))
      equal(0, (child:wait()))
    end)
    soak:every(1, "who waits for one is cancelled", function()
      engine.cancelled(random() * 0.02, process.run, { "sleep", "1000", grace = 1 })
    end)
    soak:every(1, "a command that is not there", function()
      local err = raises(agather.OSError, process.run, { "/nowhere/command" })
      equal("ENOENT", err.code)
    end)
    soak:every(0.5, "a signal arrives", function()
      local waiting = agather.spawn(agather.signal.wait, "SIGUSR1")
      agather.sleep(0)
      local pid = assert(io.open("/proc/self/stat")):read("n")
      process.run { "kill", "-USR1", pid }
      equal("SIGUSR1", agather.wait_for(waiting, engine.PATIENCE))
    end)
  end,
}
