-- Calls of the system's resolver that fail: see faults_dns.lua. It looks up names in a hosts file of its own and asks
-- nobody else, in a mount namespace.
local strace = require "spec.support.strace"
local system = require "spec.support.system"

describe("a system call of a look-up that fails", function()
  it("is an error of the look-up, or none: nothing hangs or leaks, the loop goes on", function()
    if strace.missing() then return pending(strace.missing()) end
    if not os.execute("unshare -m true 2>/dev/null") then return pending("no mount namespace can be made here") end
    local folder <close> = system.folder()
    system.spill(folder:at("hosts"), "127.0.0.1 localhost\n192.0.2.7 known.test\n")
    system.spill(folder:at("nsswitch"), "hosts: files\n")
    local mounts = ("mount --bind %s /etc/hosts && mount --bind %s /etc/nsswitch.conf"):format(folder:at("hosts"),
      folder:at("nsswitch"))
    local output = strace.sweep("spec/uv/faults_dns.lua", "UV_THREADPOOL_SIZE=1 unshare -m sh -c '" .. mounts
      .. " && exec \"$@\"' sh")
    assert.matches("^%d+ faults, 0 complaints, all hit\n$", output)
  end)
end)
