-- Look-ups whose system calls fail in the system's resolver: see faults_dns_spec.lua.
local agather = require "agather"
local faults = require "spec.support.faults"

-- What the resolver makes of a file that it cannot read, or of a socket that it does not get.
local ANY = "EAI_NONAME EAI_AGAIN EAI_FAIL EAI_MEMORY EAI_NODATA EAI_ADDRFAMILY EAI_OVERFLOW EAI_SYSTEM"

faults.sweep {
  name = "look-ups",
  run = function()
    assert(agather.dns.reverse("127.0.0.1", { cache = false }):find("local"))
    assert(agather.dns.resolve("known.test", { cache = false })[1].address == "192.0.2.7")
  end,
  follow = ANY .. " EMFILE ENFILE ENOMEM EACCES EINTR EIO ENOENT assertion",
  threads = faults.threads,
  calls = {
    { name = "openat", either = "EMFILE ENFILE ENOMEM EACCES EINTR ELOOP ENOENT ENOTDIR" },
    { name = "read", either = "EIO EINTR EISDIR EBADF EINVAL", paths = { "/etc/hosts" } },
    { name = "newfstatat", either = "EACCES ENOMEM ENOENT EBADF" },
    { name = "lseek", either = "EBADF EINVAL" },
    { name = "close", hides = "EINTR EIO" },
  },
}

faults.report()
