-- Children and workers, and loops that begin, whose system calls fail: see faults_children_spec.lua.
local agather = require "agather"
local faults = require "spec.support.faults"
local process, worker = agather.process, agather.worker
local sanitized = (os.getenv("LD_PRELOAD") or ""):find("asan", 1, true)

faults.sweep {
  name = "children",
  run = function()
    assert(process.run { "cat", stdin = "fed" }.stdout == "fed")
    local child <close> = process.spawn { "sh", "-c", "read line; echo $line; exit 3" }
    child.stdin:write("a line\n")
    assert(child.stdout:read() == "a line")
    assert(child:wait() == 3)
  end,
  calls = {
    { name = "pipe2", raises = "EFAULT EINVAL EMFILE ENFILE ENOPKG" },
    { name = "clone", raises = "EAGAIN ENOMEM ENOSPC EPERM EUSERS EINVAL" },
    { name = "read", hides = "EINTR" },
    { name = "wait4", hides = "EINTR" },
    { name = "epoll_wait", hides = "EINTR" },
  },
}

local function map_with(threads)
  return function()
    local pool <close> = worker.Pool { size = threads }
    assert(#pool:map(function(n) return n * 2 end, { 1, 2, 3, 4 }) == 4)
  end
end

faults.sweep {
  name = "a worker",
  run = map_with(1),
  calls = {
    { name = "clone3", raises = "EAGAIN", either = "ENOMEM ENOSPC EPERM EUSERS EINVAL", follow = "EAGAIN" },
  },
}

faults.sweep {
  name = "workers",
  run = map_with(2),
  calls = {
    -- where the first thread begins, it does the work of one that does not
    { name = "clone3", either = "EAGAIN ENOMEM ENOSPC EPERM EUSERS EINVAL", follow = "EAGAIN" },
    -- of the main thread: the workers' stacks, where none is left over; AddressSanitizer dies of it
    not sanitized and { name = "mmap", rare = true, follow = "EAGAIN ENOMEM",
      either = "EACCES EAGAIN EINVAL ENFILE ENODEV ENOMEM EOVERFLOW EPERM" } or nil,
  },
}

faults.sweep {
  name = "loops",
  run = function() agather.net.udp():close() end,
  calls = {
    { name = "epoll_create1", raises = "EMFILE ENFILE ENOMEM", either = "EINVAL", fresh = true },
    { name = "eventfd2", raises = "EINVAL EMFILE ENFILE ENODEV ENOMEM", fresh = true },
    { name = "pipe2", raises = "EMFILE ENFILE", fresh = true },
  },
}

faults.report()
