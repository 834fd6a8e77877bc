-- Calls of servers, TLS and HTTP that fail: each errno that the manual pages list; every one of them under
-- AGATHER_TORTURE=full. See faults_peers.lua.
local strace = require "spec.support.strace"

describe("a system call for a server, TLS or HTTP that fails", function()
  it("is an error of what needed it, or none: nothing hangs or leaks, the loop goes on", function()
    if strace.missing() then return pending(strace.missing()) end
    assert.matches("^%d+ faults, 0 complaints, all hit\n$", strace.sweep("spec/uv/faults_peers.lua"))
  end)
end)
