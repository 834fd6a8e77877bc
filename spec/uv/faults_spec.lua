-- System calls that fail: strace answers them with an error while a script uses files and children.
local system = require "spec.support.system"

local function have_strace() return os.execute("strace -qq -o /dev/null true >/dev/null 2>&1") == true end

-- What the script prints while strace injects: "CALL:error=CODE:when=N", in the calls that the flags choose.
local function inject(fault, flags, script)
  local folder <close> = system.folder()
  local file <close> = assert(io.open(folder:at("script.lua"), "w"))
  file:write("local agather = require \"agather\"\n", script)
  file:close()
  return system.output(("timeout 20 strace %s -qq -o /dev/null -e inject=%s lua5.4 %s 2>&1"):format(flags, fault,
    folder:at("script.lua")))
end

-- Two children; the code of what failed and whether the second ran, how many descriptors are lost, and whether there
-- is a zombie.
local CHILDREN = [[
  local process = require "agather.process"
  local function count()
    local n = 0
    for number = 0, 40 do
      local file = io.open("/proc/self/fdinfo/" .. number)
      n = n + (file and 1 or 0)
      if file then file:close() end
    end
    return n
  end
  agather.run(function()
    agather.net.pair() -- the loop's own descriptors
    pcall(process.spawn, { "cat", stdin = "pipe", stdout = { path = "/nowhere/none" } })
    process.run { "true" }
    local before = count()
    local codes = {}
    for i = 1, 2 do
      local ok, err = pcall(process.run, { "cat", stdin = "x", timeout = 5 })
      codes[i] = ok and err.stdout or err.code or tostring(err)
    end
    collectgarbage()
    agather.sleep(0.01)
    local children <close> = io.open("/proc/self/task/" .. io.open("/proc/self/stat"):read("n") .. "/children")
    collectgarbage()
    print(codes[1], codes[2], count() - before <= 1, children and children:read("a"):match("%d") or "no child")
  end)
]]

local FILES = [[
  local fs = require "agather.fs"
  local folder = os.getenv("AGATHER_FOLDER")
  local function try(f, ...)
    local ok, err = pcall(f, ...)
    return ok and "ok" or err.code or tostring(err)
  end
  local function use()
    local file <close> = fs.open(folder .. "/f", "w+")
    file:write("text"):sync()
    file:seek("set")
    file:read("a")
  end
  agather.run(function()
    print(try(fs.write_file, folder .. "/w", "text"), try(fs.write_file, folder .. "/a", "text", { atomic = true }),
      try(use), try(fs.scandir, folder), try(fs.remove, folder .. "/d", { recursive = true }), #fs.scandir(folder))
  end)
]]

describe("a system call that fails", function()
  if not have_strace() then
    it("is injected by strace", function() pending("strace is missing, or may not trace: no failing system calls") end)
    return
  end

  -- The first or the second child gets the error, or the call was not a child's: then both run.
  local function hits(call, code, numbers)
    local count = 0
    for number = numbers[1], numbers[2] do
      local output = inject(("%s:error=%s:when=%d"):format(call, code, number), "", CHILDREN)
      local first, second, rest = output:match("^(%S+)%s(%S+)%s(.*)$")
      assert.equal("true\tno child\n", rest, output)
      local codes = { x = 0, [code] = 1 }
      assert.is_true(codes[first] and codes[second] and codes[first] + codes[second] < 2, output)
      count = count + codes[first] + codes[second]
    end
    return count
  end

  it("is EMFILE of the child that needed the pipe, and the next one runs", function()
    assert.is_true(hits("pipe2", "EMFILE", { 10, 17 }) >= 4)
  end)

  it("is EAGAIN of the child that could not be made, and the next one runs", function()
    assert.equal(2, hits("clone", "EAGAIN", { 2, 4 }))
  end)

  it("is the error of the child that it kept from beginning", function()
    -- not EACCES, ENOENT and ENOTDIR: the next folder of PATH is tried; not ENOEXEC: the shell is
    local calls = {
      { "execve", "E2BIG EAGAIN EFAULT EINVAL EIO EISDIR ELIBBAD ELOOP EMFILE ENAMETOOLONG ENFILE ENOMEM EPERM ETXTBSY" },
      { "dup2", "EBADF EBUSY EINTR EMFILE" },
      { "chdir", "EACCES EFAULT EIO ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR" },
    }
    local stride, count = os.getenv("AGATHER_TORTURE") == "full" and 1 or 7, 0
    local program = system.output("command -v cat"):gsub("\n", "")
    for _, entry in ipairs(calls) do
      local call, codes = entry[1], entry[2]
      for code in codes:gmatch("%S+") do
        count = count + 1
        if count % stride == 1 % stride then
          local only = call == "execve" and "-P " .. program or ""
          assert.equal(("%s\t%s\t\n"):format(code, code), inject(("%s:error=%s"):format(call, code), "-f " .. only, [[
            local process = agather.process
            agather.run(function()
              local codes = {}
              for i = 1, 2 do
                codes[i] = select(2, pcall(process.run, { "cat", stdin = "x", timeout = 5, cwd = "/" })).code
              end
              local children <close> = io.open("/proc/self/task/" .. io.open("/proc/self/stat"):read("n") .. "/children")
              print(codes[1], codes[2], children:read("a"))
            end)
          ]]))
        end
      end
    end
  end)

  it("is an error of the operation on the file, which leaves nothing behind", function()
    local function files(fault, names)
      local folder <close> = system.folder()
      os.execute("mkdir -p " .. folder:at("d/e"))
      local flags = "-f"
      for name in names:gmatch("%S+") do flags = flags .. " -P " .. folder:at(name) end
      return inject(fault, "-E AGATHER_FOLDER=" .. folder.path .. " " .. flags, FILES)
    end
    assert.equal("ok\tok\tok\tok\tok\t3\n", files("openat:error=EMFILE:when=1", "none"))
    assert.equal("EMFILE\tok\tok\tok\tok\t2\n", files("openat:error=EMFILE:when=1", "w"))
    assert.equal("ok\tok\tEMFILE\tok\tok\t2\n", files("openat:error=EMFILE:when=1", "f"))
    assert.equal("ok\tok\tENOSPC\tok\tok\t3\n", files("pwrite64:error=ENOSPC", "f"))
    assert.equal("ok\tok\tEIO\tok\tok\t3\n", files("pread64:error=EIO", "f"))
    assert.equal("ok\tok\tok\tok\tok\t3\n", files("pwrite64,write,read,pread64:error=EINTR:when=1", "w f"))
    assert.equal("ENOSPC\tok\tok\tok\tok\t3\n", files("write:error=ENOSPC", "w"))
    assert.equal("EDQUOT\tok\tok\tok\tok\t3\n", files("write:error=EDQUOT", "w")) -- a name that libuv has not
    assert.equal("ok\tEACCES\tok\tok\tok\t2\n", files("rename:error=EACCES", ""))
    assert.equal("ok\tok\tok\tok\tEMFILE\t4\n", files("openat:error=EMFILE", "d"))
  end)

  it("is EAGAIN of the work that the pool has no threads for, whichever it was, and the next works", function()
    local firsts = { "fs.stat, '/'", "dns.reverse, '127.0.0.1'", "fs.read_file, '/'", "dns.resolve, 'localhost.test'" }
    for number, first in ipairs(firsts) do
      local script = [[
        local function try(f, ...)
          local ok, err = pcall(f, ...)
          return ok and "ok" or err.code
        end
        agather.run(function()
          local fs, dns = agather.fs, agather.dns
          print(try(FIRST), try(fs.stat, "/"), try(dns.reverse, "127.0.0.1"))
        end)
      ]]
      assert.equal("EAGAIN\tok\tok\n", inject("clone3:error=EAGAIN:when=" .. number, "",
        (script:gsub("FIRST", first))))
    end
  end)
end)
