-- src/uv/pool.c
local system = require "spec.support.system"

-- As a user of its own, as nothing limits root's processes and threads; one that may read the build, wherever it is.
local as_user = ("setpriv --reuid=%d --regid=65534 --clear-groups --inh-caps=+dac_read_search "
  .. "--ambient-caps=+dac_read_search "):format(100000 + system.pid % 50000)

-- One use in a process that may have [limit] processes and threads, two of which it is itself: "ok", a code, or nothing
-- where it ended.
local function use(limit, what)
  return system.output(([[%sprlimit --nproc=%d timeout 20 lua5.4 -e '
    local agather = require "agather"
    local process, worker = agather.process, agather.worker
    local ok, err = pcall(agather.run, function() %s end)
    print(ok and "ok" or err.code or err)' 2>&1]]):format(as_user, limit, what)):gsub("\n$", "")
end

describe("a process that may have few threads", function()
  local function fails_until(enough, code, what)
    assert.equal(code, use(2, what))
    for limit = 3, enough - 1 do assert.matches("^" .. code .. "$", use(limit, what)) end
    assert.equal("ok", use(enough, what))
  end

  it("gets EAGAIN where the pool has no threads, however many are missing, and never dies of it", function()
    if use(50, "") ~= "ok" then return pending("another user cannot be made here") end
    fails_until(6, "EAGAIN", [[agather.fs.stat("/")]])
    fails_until(6, "EAGAIN", [[agather.dns.reverse("127.0.0.1")]])
  end)

  it("gets EAGAIN where a worker or a child cannot begin", function()
    if use(50, "") ~= "ok" then return pending("another user cannot be made here") end
    fails_until(3, "EAGAIN", [[worker.Pool { size = 1 }:run(function() end)]])
    fails_until(3, "EAGAIN", [[process.run { "true" }]])
  end)
end)
