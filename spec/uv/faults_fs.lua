-- Files, folders, watchers and names whose system calls fail: see faults_fs_spec.lua.
local agather = require "agather"
local faults = require "spec.support.faults"
local system = require "spec.support.system"
local fs = agather.fs

local folder <close> = system.folder()
local long = ("x"):rep(300000)

-- Names are new in each round, as one that failed leaves what it has made.
local round = 0

local function use_files()
  round = round + 1
  local top = folder:at(tostring(round))
  fs.mkdir(top .. "/b", { parents = true })
  fs.write_file(top .. "/w", "text")
  fs.write_file(top .. "/w", long, { atomic = true })
  assert(fs.read_file(top .. "/w") == long)
  fs.copy_file(top .. "/w", top .. "/b/copy")
  assert(fs.stat(top .. "/b/copy").size == #long)
  fs.rename(top .. "/b/copy", top .. "/b/renamed")
  assert(fs.exists(top .. "/b/renamed"))
  do
    local file <close> = fs.open(folder:at("file"), "w+")
    file:write("a line\n", long):sync()
    file:seek("set")
    assert(file:read("l") == "a line")
    assert(file:read("a") == long)
  end
  fs.write_file(folder:at("file"), long)
  assert(fs.read_file(folder:at("file")) == long)
  assert(#fs.scandir(top) == 2)
  fs.remove(top, { recursive = true })
  assert(not fs.exists(top))
end

local PATH = "EACCES ELOOP ENAMETOOLONG ENOTDIR ENOMEM EFAULT "
local files = { folder:at("file") }

faults.sweep {
  name = "files",
  run = use_files,
  threads = faults.threads,
  calls = {
    { name = "openat", hides = "EINTR", either = "ENOENT EEXIST", follow = "ENOTEMPTY",
      raises = PATH .. "EBUSY EDQUOT EFBIG EINVAL EISDIR EMFILE ENFILE ENODEV ENOSPC ENXIO EOPNOTSUPP EOVERFLOW EPERM "
        .. "EROFS ETXTBSY EAGAIN" },
    { name = "newfstatat", raises = "EACCES EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOMEM EOVERFLOW",
      either = "ENOENT ENOTDIR", follow = "assertion" },
    { name = "pread64", raises = "EBADF EFAULT EINVAL EIO EISDIR ENXIO EOVERFLOW", hides = "EINTR" },
    { name = "pwrite64", raises = "EBADF EDQUOT EFAULT EFBIG EINVAL EIO ENOSPC EPERM", hides = "EINTR" },
    { name = "read", raises = "EBADF EFAULT EINVAL EIO EISDIR", hides = "EINTR", paths = files },
    { name = "write", raises = "EBADF EDQUOT EFAULT EFBIG EINVAL EIO ENOSPC EPERM", hides = "EINTR", paths = files },
    { name = "fsync", raises = "EBADF EIO ENOSPC EROFS EINVAL EDQUOT", either = "EINTR" },
    { name = "rename",
      raises = PATH .. "EBUSY EDQUOT EINVAL EISDIR EMLINK ENOENT ENOSPC ENOTEMPTY EEXIST EPERM EROFS EXDEV" },
    { name = "mkdir", raises = PATH .. "EDQUOT EMLINK ENOSPC EPERM EROFS", either = "EEXIST ENOENT EINVAL", follow = "ENOENT" },
    { name = "unlinkat", raises = "EACCES EBUSY EFAULT EIO ELOOP ENAMETOOLONG ENOMEM EPERM EROFS",
      either = "EISDIR ENOENT ENOTDIR ENOTEMPTY", follow = "ENOTDIR ENOTEMPTY EISDIR ENOENT assertion" },
    { name = "getdents64", raises = "EBADF EFAULT EINVAL ENOTDIR", either = "ENOENT", follow = "ENOTEMPTY assertion" },
    { name = "lseek", either = "EBADF EINVAL ENXIO EOVERFLOW ESPIPE", follow = "ESPIPE" },
    { name = "close", either = "EBADF EINTR EIO ENOSPC EDQUOT" },
  },
}

faults.sweep {
  name = "watchers",
  run = function()
    local watcher <close> = fs.watch(folder.path)
    system.spill(folder:at("changed"), "x")
    assert(watcher:wait())
  end,
  calls = {
    { name = "inotify_init1", raises = "EINVAL EMFILE ENFILE ENOMEM", fresh = true },
    { name = "inotify_add_watch",
      raises = "EACCES EBADF EEXIST EFAULT EINVAL ENAMETOOLONG ENOENT ENOMEM ENOSPC ENOTDIR" },
    { name = "inotify_rm_watch", hides = "EBADF EINVAL" },
    { name = "read", hides = "EINTR EAGAIN" },
  },
}

faults.report()
