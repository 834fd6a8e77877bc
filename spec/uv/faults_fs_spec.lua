-- Calls of files, folders and watchers that fail, in the pool's threads: each errno that the manual pages list; every one
-- of them under AGATHER_TORTURE=full. See faults_fs.lua.
local strace = require "spec.support.strace"

describe("a system call for files that fails", function()
  it("is an error of what needed it, or none: nothing hangs or leaks, the loop goes on", function()
    if strace.missing() then return pending(strace.missing()) end
    assert.matches("^%d+ faults, 0 complaints, all hit\n$", strace.sweep("spec/uv/faults_fs.lua", "UV_THREADPOOL_SIZE=1"))
  end)
end)
