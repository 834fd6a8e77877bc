local agather = require "agather"
local net = require "spec.support.net"
local support = require "spec.support"
local system = require "spec.support.system"

local fs, process = agather.fs, agather.process

-- Calls f(folder) in a run and checks that it leaves no child, not even a zombie, and no descriptor.
local function clean(f)
  return function()
    local known = system.children() -- other specs may have left some
    agather.run(function()
      local folder <close> = system.folder()
      process.run { "true" } -- the loop's own descriptors come with the first use
      collectgarbage() -- files that others left open
      local before = system.descriptors()
      f(folder)
      collectgarbage()
      assert.same({}, system.children(known))
      assert.same(before, system.descriptors())
    end)
  end
end

local function raises(class, text, f, ...)
  local raised = support.raises(text, f, ...)
  assert.is_true(agather.is_error(raised, class), tostring(raised))
  return raised
end

local function fails(code, f, ...)
  local raised = raises(agather.OSError, code, f, ...)
  assert.equal(code, raised.code)
  return raised
end

local function alive(pid) return (os.execute(("kill -0 %d 2>/dev/null"):format(pid))) == true end

-- Waits, without a limit of its own, until a condition holds that something outside brings about.
local function until_true(f)
  while not f() do agather.sleep(0.002) end
end

describe("process.run", function()
  it("returns the status and what the child wrote", clean(function()
    assert.same({ status = 3, stdout = "out\n", stderr = "err\n" },
      process.run { "sh", "-c", "echo out; echo err >&2; exit 3" })
    assert.same({ status = 0, stdout = "", stderr = "" }, process.run { "true" })
  end))

  it("passes arguments as they are", clean(function()
    local odd = "a b\"'$HOME*\n;\\"
    assert.equal(odd .. "|1.5||", process.run { "printf", "%s|", odd, 1.5, "" }.stdout)
  end))

  it("tells the signal that ended the child", clean(function()
    local result = process.run { "sh", "-c", "kill -KILL $$" }
    assert.is_nil(result.status)
    assert.equal("SIGKILL", result.signal)
    assert.equal("SIG40", process.run { "sh", "-c", "kill -40 $$" }.signal)
  end))

  it("feeds standard input, and has none where nothing is said", clean(function(folder)
    assert.equal("fed", process.run { "cat", stdin = "fed" }.stdout)
    assert.equal("inherit", process.run { "cat", stdin = { data = "inherit" } }.stdout)
    assert.equal("", process.run { "cat" }.stdout)
    assert.equal("", process.run { "cat", stdin = "" }.stdout)
    fs.write_file(folder:at("x"), "from a file")
    assert.equal("from a file", process.run { "cat", stdin = { path = folder:at("x") } }.stdout)
    fails("ENOENT", process.run, { "cat", stdin = { path = folder:at("none") } })
  end))

  it("moves more than pipes hold, both ways at once", clean(function()
    local data = ("0123456789abcdef"):rep(100000)
    local result = process.run { "sh", "-c", "tee /dev/stderr", stdin = data }
    assert.is_true(result.stdout == data)
    assert.is_true(result.stderr == data)
  end))

  it("does not mind a child that ends without reading", clean(function()
    assert.equal(0, process.run { "true", stdin = ("x"):rep(1000000) }.status)
    assert.equal("x", process.run { "head", "-c", "1", stdin = ("x"):rep(1000000) }.stdout)
  end))

  it("sends output to files, to nothing, or error to output", clean(function(folder)
    local command = "echo out; echo err >&2"
    local result = process.run { "sh", "-c", command, stdout = { path = folder:at("o") }, stderr = "null" }
    assert.same({ status = 0 }, result)
    assert.equal("out\n", fs.read_file(folder:at("o")))
    process.run { "sh", "-c", command, stdout = { path = folder:at("o"), append = true }, stderr = "stdout" }
    assert.equal("out\nout\nerr\n", fs.read_file(folder:at("o")))
    assert.same({ status = 0, stdout = "out\nerr\n" }, process.run { "sh", "-c", command, stderr = "stdout" })
    local file <close> = fs.open(folder:at("f"), "w+")
    file:write("before\n")
    process.run { "sh", "-c", command, stdout = file, stderr = "null" }
    file:seek("set")
    assert.equal("before\nout\n", file:read("a"))
    local theirs <close> = assert(io.open(folder:at("l"), "w"))
    theirs:write("before\n")
    process.run { "sh", "-c", command, stdout = theirs, stderr = "stdout" }
    assert.equal("before\nout\nerr\n", fs.read_file(folder:at("l")))
    theirs:close()
    support.raises("option 'stdout': the file is closed", process.run, { "ls", stdout = theirs })
    file:close()
    fails("EBADF", process.run, { "ls", stdout = file })
  end))

  it("shares the place in a file of agather.fs with its children, as with files of io", clean(function(folder)
    local file <close> = fs.open(folder:at("log"), "w+")
    for i = 1, 2 do
      file:write("run ", i, "\n")
      process.run { "echo", "output", i, stdout = file }
    end
    local child = process.spawn { "sh", "-c", "echo one; read line; echo three", stdout = file }
    while #fs.read_file(folder:at("log")) < #"run 1\noutput 1\nrun 2\noutput 2\none\n" do agather.sleep(0.001) end
    file:write("two\n"):flush()
    child.stdin:write("go on\n")
    child:wait()
    file:write("four\n")
    file:seek("set")
    assert.equal("run 1\noutput 1\nrun 2\noutput 2\none\ntwo\nthree\nfour\n", file:read("a"))

    fs.write_file(folder:at("in"), "0123456789")
    local input <close> = fs.open(folder:at("in"))
    local function two() return process.run { "perl", "-e", "sysread STDIN, $x, 2; print $x", stdin = input }.stdout end
    assert.equal("0", input:read(1))
    assert.equal("12", two())
    assert.equal("34", two())
    assert.equal("5", input:read(1))
    assert.equal(6, input:seek())
    assert.equal("67", two())
    input:seek("set", 1)
    assert.equal("12", two())
    assert.equal("3456789", input:read("a"))
    assert.equal("", two())
  end))

  it("gives the child real pipes, which it may open by name", clean(function()
    assert.equal("fed", process.run { "cat /dev/stdin > /dev/stdout", shell = true, stdin = "fed" }.stdout)
  end))

  it("starts in the folder that is asked for", clean(function(folder)
    assert.equal(folder.path .. "\n", process.run { "pwd", cwd = folder.path }.stdout)
    local raised = fails("ENOENT", process.run, { "pwd", cwd = folder:at("none") })
    assert.equal(folder:at("none"), raised.address)
  end))

  it("replaces the environment by env and changes it by extra_env", clean(function()
    assert.equal("A=1\nB=two words\n", process.run { "env", env = { A = 1, B = "two words" } }.stdout)
    assert.equal("A=1\nC=3\n", process.run { "env", env = { A = 1, B = 2 }, extra_env = { B = false, C = "3" } }.stdout)
    local own = process.environment()
    assert.equal(os.getenv("PATH"), own.PATH)
    local lines = {}
    for line in process.run({ "env", "-0", extra_env = { AGATHER_X = "x", HOME = false } }).stdout:gmatch("(%Z+)%z") do
      local key, value = line:match("^([^=]+)=(.*)$")
      lines[key] = value
    end
    own.AGATHER_X, own.HOME = "x", nil
    assert.same(own, lines)
  end))

  it("uses a shell only when it is asked to", clean(function()
    assert.equal("$HOME\n", process.run { "echo", "$HOME" }.stdout)
    assert.equal("1 2\n", process.run { "echo $((1)) `echo 2`", shell = true }.stdout)
    support.raises("with the option 'shell' the command is one string, got 2", process.run, { "echo", "x", shell = true })
  end))

  it("names a command that cannot be started", clean(function()
    local raised = fails("ENOENT", process.run, { "no-such-command", "x" })
    assert.equal("process.run no-such-command: no such file or directory (ENOENT)", tostring(raised))
    assert.equal("no-such-command", raised.address)
    fails("EACCES", process.run, { "/etc/passwd" })
    fails("ENOENT", process.run, { "ls", env = { PATH = "/nowhere" } })
    fails("E2BIG", process.run, { "true", ("x"):rep(3000000) })
  end))

  it("raises LimitOverrunError for too much output, and ends the child", clean(function()
    local raised = raises(agather.LimitOverrunError, "more than 1000 bytes on stdout (max_output)", process.run,
      { "yes", max_output = 1000 })
    assert.equal(1000, raised.consumed)
    raises(agather.LimitOverrunError, "on stderr", process.run, { "yes >&2", shell = true, max_output = 100000 })
    assert.equal(5, #process.run { "printf", "12345", max_output = 5 }.stdout)
  end))

  it("raises CalledProcessError on request", clean(function()
    local raised = raises(process.CalledProcessError, "process.run sh: status 4", process.run,
      { "sh", "-c", "echo why >&2; exit 4", check = true })
    assert.equal(4, raised.status)
    assert.equal("why\n", raised.stderr)
    raises(process.CalledProcessError, "process.run sh: ended by SIGTERM", process.run,
      { "sh", "-c", "kill $$", check = true })
    assert.equal(0, process.run { "true", check = true }.status)
  end))

  it("ends the child after its time, and tells what it wrote by then", clean(function()
    local raised = raises(agather.TimeoutError, "process.run sh: not ended after 0.1 s", process.run,
      { "sh", "-c", "echo begun; exec sleep 60", timeout = 0.1 })
    assert.equal("begun\n", raised.stdout)
    assert.equal(0, process.run { "true", timeout = 60 }.status)
  end))

  it("kills a child that ignores SIGTERM after the grace time", clean(function()
    local loop = agather.get_running_loop()
    local begin = loop:time()
    raises(agather.TimeoutError, "not ended", process.run,
      { "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done", timeout = 0.2, grace = 0.3 })
    local took = loop:time() - begin
    assert.is_true(took >= 0.5 and took < 2, tostring(took))
  end))

  it("keeps an error of agather.timeout apart from its own", clean(function()
    local raised = raises(agather.TimeoutError, "", function()
      local _ <close> = agather.timeout(0.05)
      process.run { "sleep", "60", timeout = 50 }
    end)
    assert.is_nil(tostring(raised):find("process.run", 1, true))
  end))

  it("runs two hundred children at once", clean(function()
    local jobs = {}
    for i = 1, 200 do
      jobs[i] = function() return process.run({ "sh", "-c", "read x; echo $x; exit " .. i % 100, stdin = i .. "\n" }) end
    end
    local results = agather.gather_list(jobs):await()
    for i = 1, 200 do assert.same({ status = i % 100, stdout = i .. "\n", stderr = "" }, results[i]) end
  end))

  it("ends the child when it is cancelled, wherever it is", clean(function()
    for turns = 0, 14 do
      local task = agather.spawn(process.run, { "sh", "-c", "cat; exec sleep 60", stdin = ("x"):rep(100000) })
      for _ = 1, turns do agather.sleep(turns > 5 and 0.001 or 0) end
      task:cancel()
      pcall(agather.await, task)
      assert.is_true(task:cancelled())
    end
  end))

  it("ends the child when it is cancelled while the child's files are opened and closed", clean(function(folder)
    for turns = 0, 12 do
      local task = agather.spawn(process.run, { "sleep", "60", stdout = { path = folder:at("x") } })
      for _ = 1, turns do agather.sleep(turns > 4 and 0.0005 or 0) end
      task:cancel()
      pcall(agather.await, task)
      assert.is_true(task:cancelled())
    end
  end))

  it("kills at once when it is cancelled again during the grace time", clean(function(folder)
    local deaf = ("trap '' TERM; touch %s; while :; do sleep 0.05; done"):format(folder:at("deaf"))
    local task = agather.spawn(process.run, { "sh", "-c", deaf, grace = 60 })
    net.eventually(function() return pcall(system.slurp, folder:at("deaf")) end, "the child takes no SIGTERM")
    task:cancel()
    agather.sleep(0.05)
    assert.is_false(task:done())
    task:cancel()
    pcall(agather.await, task)
    assert.is_true(task:cancelled())
  end))

  it("refuses what is no command or option", clean(function()
    local cases = {
      { "table with a command expected, got string", "ls" },
      { "the command is missing: run{\"ls\", \"-l\"}", {} },
      { "the command is empty", { "" } },
      { "argument at place 2 must be a string, got table", { "ls", {} } },
      { "argument at place 2 contains a zero byte", { "ls", "a\0b" } },
      { "argument at place 1 contains a zero byte", { "ls\0x" } },
      { "the argument before place 3 is missing", { "ls", [3] = "x" } },
      { "unknown option 'stdinn'", { "ls", stdinn = "x" } },
      { "option 'stdout' must be \"pipe\", \"null\", \"inherit\", a file or { path = }, got \"log\"", { "ls", stdout = "log" } },
      { "option 'stdout' cannot be a table", { "ls", stdout = {} } },
      { "option 'stdin' cannot be a boolean", { "ls", stdin = true } },
      { "option 'stdin' cannot be \"pipe\"", { "ls", stdin = "pipe" } },
      { "path of option 'stdin' contains a zero byte", { "ls", stdin = { path = "a\0b" } } },
      { "option 'cwd' contains a zero byte", { "ls", cwd = "a\0b" } },
      { "option 'env' must be a table, got string", { "ls", env = "A=1" } },
      { "option 'env': \"A=B\" is no name of a variable", { "ls", env = { ["A=B"] = "x" } } },
      { "option 'env': number is no name of a variable", { "ls", env = { "A=1" } } },
      { "variable A contains a zero byte", { "ls", env = { A = "a\0" } } },
      { "variable A must be a string, got boolean", { "ls", env = { A = false } } },
      { "option 'timeout' must be a number of seconds, got -1", { "ls", timeout = -1 } },
      { "option 'grace' must be a number of seconds, got x", { "ls", grace = "x" } },
      { "option 'max_output' must be a number of bytes, got 1.5", { "ls", max_output = 1.5 } },
    }
    for _, case in ipairs(cases) do support.raises("bad argument #1 to 'run' (" .. case[1], process.run, case[2]) end
    support.raises("unknown option 'timeout'", process.spawn, { "ls", timeout = 1 })
  end))

  it("needs a running loop", function() support.raises("no running", process.run, { "true" }) end)
end)

describe("process.spawn", function()
  it("gives streams to talk with the child", clean(function()
    local child <close> = process.spawn { "sed", "-u", "s/a/b/" }
    child.stdin:write("banana\n")
    assert.equal("bbnana", child.stdout:read())
    child.stdin:close()
    assert.is_nil(child.stdout:read())
    assert.equal("", child.stderr:read("a"))
    assert.equal(0, child:wait())
    assert.matches("^agather%.Child %(sed, pid %d+, ended%)$", tostring(child))
  end))

  it("lets several tasks wait, and one that is cancelled takes nothing from the others", clean(function()
    local child <close> = process.spawn { "sh", "-c", "read x; exit 7" }
    local waiting = {}
    for i = 1, 5 do waiting[i] = agather.spawn(child.wait, child) end
    support.turns(2)
    waiting[1]:cancel()
    waiting[3]:cancel()
    waiting[5]:cancel()
    support.turns(2)
    collectgarbage()
    assert.is_true(child:running())
    child.stdin:write("go\n")
    assert.equal(7, waiting[2]:await())
    assert.equal(7, waiting[4]:await())
    assert.equal(7, child:wait())
    for _, place in ipairs { 1, 3, 5 } do assert.is_true(waiting[place]:cancelled()) end
    assert.is_false(child:running())
  end))

  it("sends signals while the child is there", clean(function()
    local child <close> = process.spawn { "sh", "-c", "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.02; done" }
    assert.equal("ready", child.stdout:read())
    assert.is_true(child:kill("SIGUSR1"))
    assert.equal("got", child.stdout:read())
    assert.equal(5, child:wait())
    assert.is_false(child:kill("SIGUSR1"))
    support.raises("bad argument #1 to 'kill' (unknown signal 'SIGNONE')", child.kill, child, "SIGNONE")
    local other <close> = process.spawn { "sleep", "60" }
    assert.is_true(other:kill())
    assert.same({ nil, "SIGTERM" }, { other:wait() })
  end))

  it("feeds a child in the background", clean(function()
    local child <close> = process.spawn { "cat", stdin = ("x"):rep(300000) }
    assert.is_nil(child.stdin)
    assert.equal(300000, #child.stdout:read("a"))
    assert.equal(0, child:wait())
    local deaf <close> = process.spawn { "sleep", "60", stdin = ("x"):rep(300000) }
    support.turns(3)
    deaf:close()
  end))

  it("hands a stream over to another child", clean(function()
    local first <close> = process.spawn { "printf", "b\\na\\nc\\n" }
    local second <close> = process.spawn { "sort", stdin = first.stdout }
    assert.equal("a\nb\nc\n", second.stdout:read("a"))
    assert.equal(0, second:wait())
    fails("EBADF", first.stdout.read, first.stdout)
    support.raises("bad argument #1 to 'spawn' (option 'stdin': the stream is closed)", process.spawn, { "sort", stdin = first.stdout })
  end))

  it("does not hand over a stream that was read from, nor lose one to a child that does not start", clean(function()
    local first <close> = process.spawn { "printf", "one\\ntwo\\n" }
    assert.equal("one", first.stdout:read())
    support.raises("option 'stdin': the stream has been read from", process.spawn, { "cat", stdin = first.stdout })
    assert.equal("two", first.stdout:read())
    local slow <close> = process.spawn { "sh", "-c", "read word; echo $word" }
    fails("ENOENT", process.spawn, { "no-such-command", stdin = slow.stdout })
    agather.spawn(function()
      for _ = 1, 5 do agather.sleep(0.001) end -- these turns are for a loop that no stream blocks
      slow.stdin:write("late\n")
    end)
    assert.equal("late", slow.stdout:read())
  end))

  it("serves a connection by a child that takes the socket over", clean(function()
    local port, served = agather.future(), agather.future()
    local server = agather.spawn(agather.net.serve, "127.0.0.1", 0, function(stream)
      served:set_result(process.run { "sh", "-c", "read x; echo \"got $x\"", stdin = stream, stdout = stream }.status)
    end, { on_listen = function(listener) port:set_result(select(2, listener:local_address())) end })
    local stream <close> = agather.net.connect("127.0.0.1", port:await())
    stream:write("hello\n")
    assert.equal("got hello", stream:read())
    assert.is_nil(stream:read())
    assert.equal(0, served:await())
    server:cancel()
    pcall(agather.await, server)
  end))

  it("gives the child no other descriptors", clean(function(folder)
    local listener = agather.net.listen("127.0.0.1", 0)
    local file = fs.open(folder:at("x"), "w")
    local other = process.spawn { "cat" }
    local result = process.run { "ls", "-l", "/proc/self/fd" }
    local numbers = {}
    for number in result.stdout:gmatch(" (%d+) %->") do numbers[#numbers + 1] = tonumber(number) end
    local inherited = {} -- what this process got from whoever started it is none of ours
    for number in system.output("ls -l /proc/self/fd"):gmatch(" (%d+) %->") do inherited[tonumber(number)] = true end
    for _, number in ipairs(numbers) do assert.is_true(number <= 3 or inherited[number], result.stdout) end
    listener:close()
    file:close()
    other:close()
  end))

  it("ends the child when the scope is left, by SIGTERM first", clean(function(folder)
    local pid
    do
      local child <close> = process.spawn { "sh", "-c",
        "trap 'echo ended > " .. folder:at("x") .. "; exit' TERM; echo ready; while :; do sleep 0.02; done" }
      pid = child.pid
      assert.equal("ready", child.stdout:read())
    end
    assert.is_false(alive(pid))
    assert.equal("ended\n", fs.read_file(folder:at("x")))
  end))

  it("closes twice, and what is used afterwards tells", clean(function()
    local child = process.spawn { "cat" }
    child:close()
    child:close()
    assert.same({ nil, "SIGTERM" }, { child:wait() })
    assert.is_false(child:kill("SIGKILL"))
    fails("EBADF", child.stdin.write, child.stdin, "x")
    fails("EBADF", child.stdout.read, child.stdout)
  end))

  it("wakes who reads and who waits when it is closed", clean(function()
    local child = process.spawn { "cat" }
    local reading, waiting = agather.spawn(child.stdout.read, child.stdout), agather.spawn(child.wait, child)
    support.turns(2)
    child:close()
    pcall(agather.await, reading)
    assert.is_true(reading:done())
    assert.same({ nil, "SIGTERM" }, { waiting:await() })
  end))

  local function gone(pid) return (system.state(pid) or "Z") == "Z" end

  it("ends the whole group of a detached child, also who ignores SIGTERM", clean(function()
    local child <close> = process.spawn { "sh", "-c",
      "sleep 60 & echo $!; sh -c \"trap '' TERM; echo ready; while :; do sleep 0.05; done\" & echo $!; wait",
      detached = true }
    local pids = {}
    for line in child.stdout:lines() do
      pids[#pids + 1] = tonumber(line)
      if #pids == 2 and line == "ready" or pids.ready and #pids == 2 then break end
      pids.ready = pids.ready or line == "ready"
    end
    for _, pid in ipairs(pids) do assert.is_false(gone(pid)) end
    child:close()
    for _, pid in ipairs(pids) do
      until_true(function() return gone(pid) end)
    end
  end))

  it("ends the commands of a shell with it", clean(function(folder)
    raises(agather.TimeoutError, "", process.run,
      { "echo $$ >" .. folder:at("x") .. "; sleep 60; echo end", shell = true, timeout = 0.1 })
    local group = tonumber(fs.read_file(folder:at("x")))
    until_true(function() return not alive(-group) end)
  end))

  it("leaves what a shell put into the background alone when it ends by itself", clean(function()
    local result = process.run { "sleep 0.3 >/dev/null 2>&1 & echo $!", shell = true }
    local pid = tonumber(result.stdout)
    assert.equal(0, result.status)
    assert.is_false(gone(pid))
    until_true(function() return gone(pid) end)
  end))

  it("reaps a child that nobody refers to", clean(function()
    local pid = process.spawn({ "sh", "-c", "read x" }).pid
    until_true(function()
      collectgarbage() -- closes its input, so it ends
      return not alive(pid)
    end)
  end))

  it("kills and reaps what runs when the loop closes", function()
    local pid
    agather.run(process.run, { "true" }) -- libuv has descriptors that stay
    local known, before = system.children(), system.descriptors()
    agather.run(function()
      local child = process.spawn { "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done" }
      pid = child.pid
    end)
    collectgarbage()
    assert.is_false(alive(pid))
    assert.same({}, system.children(known))
    assert.same(before, system.descriptors())
  end)

  it("ends the child of a run that is cancelled by the end of main", function()
    local known = system.children()
    agather.run(function()
      agather.spawn(process.run, { "sleep", "60" })
      agather.sleep(0.05)
      assert.is_not_nil(next(system.children(known)))
    end)
    assert.same({}, system.children(known))
  end)

  it("catches SIGCHLD while there are children, and no longer", function()
    agather.run(function()
      fs.stat("/")
      local before = system.caught()
      local child = process.spawn { "cat" }
      assert.not_equal(before, system.caught())
      local waiting = agather.spawn(agather.signal.wait, "SIGCHLD")
      support.turns(1)
      child:close()
      assert.equal("SIGCHLD", waiting:await())
      assert.equal(before, system.caught())
      pcall(process.run, { "no-such-command" })
      assert.equal(before, system.caught())
      local listening = agather.spawn(agather.signal.wait, "SIGCHLD")
      support.turns(1)
      local other = process.spawn { "true" }
      assert.equal("SIGCHLD", listening:await()) -- gone, and children are still reaped
      assert.equal(0, other:wait())
      assert.equal(before, system.caught())
    end)
  end)

  it("leaves SIGCHLD to another loop of libuv's that has children", function()
    if not package.searchpath("luv", package.cpath) then return pending("luv is missing: no second loop of libuv's") end
    local output = support.script([[ -- of its own: luv's loop lives as long as the state
      local luv = require "luv"
      local process = agather.process
      agather.run(function()
        local child = process.spawn { "cat" }
        local status
        local handle
        handle = luv.spawn("sleep", { args = { "0.1" } }, function(code)
          status = code
          handle:close()
        end)
        child:close()
        local _ <close> = agather.timeout(5)
        while not status do
          luv.run("nowait")
          agather.sleep(0.005)
        end
        print(status, process.run { "sh", "-c", "exit 3", timeout = 5 }.status)
      end)
      luv.run("nowait")
    ]])
    assert.equal("0\t3\n", output)
  end)

  it("tells that the host has reaped a child, and sends it no signal", function()
    local output = support.script([[
      local process = agather.process
      assert(package.loadlib(package.searchpath("reaper", package.cpath), "*"))
      local function gone(id)
        local file = io.open("/proc/" .. id)
        return not file or not file:close()
      end
      agather.run(function()
        local _ <close> = agather.timeout(5)
        local child <close> = process.spawn { "sh", "-c", "exit 3" }
        while not gone(child.pid) do end -- before the loop hears of it
        local killed = child:kill()
        local ok, err = pcall(child.wait, child)
        print(killed, child:running(), ok, agather.is_error(err, agather.OSError) and err.code or err)
      end)
    ]])
    assert.equal("false\tfalse\tfalse\tECHILD\n", output)
  end)

  it("ends a child in time where the loop does not hear of its end", function()
    if os.execute("strace -qq -o /dev/null true >/dev/null 2>&1") ~= true then return pending("strace is missing") end
    local folder <close> = system.folder()
    system.spill(folder:at("script.lua"), [[
      local agather = require "agather"
      agather.run(function()
        print(pcall(agather.process.run, { "true", timeout = 0.2, grace = 0.1 }))
        print(agather.process.run({ "true" }).status)
      end)
    ]])
    local output = system.output("timeout 10 strace -qq -o /dev/null -e inject=wait4:error=ECHILD:when=1 lua5.4 "
      .. folder:at("script.lua") .. " 2>&1")
    assert.equal("false\tprocess.run true: not ended after 0.2 s\n0\n", output)
  end)

  it("works where this process has closed its standard input, output and error", function()
    local folder <close> = system.folder()
    local script <close> = assert(io.open(folder:at("script.lua"), "w"))
    script:write([[
      local agather = require "agather"
      agather.run(function()
        local result = agather.process.run { "sh", "-c", "cat; echo err >&2", stdin = "fed" }
        agather.process.run { "echo", "nowhere", stdout = "inherit" }
        agather.fs.write_file(arg[1], result.stdout .. result.stderr)
      end)
    ]])
    script:close()
    for _, closed in ipairs { "<&- >&- 2>&-", "<&- >/dev/null", ">&-" } do
      assert.is_true(os.execute(("timeout 10 lua5.4 %s %s %s"):format(folder:at("script.lua"), folder:at("x"), closed)))
      assert.equal("federr\n", system.output("cat " .. folder:at("x")))
    end
  end)

  it("survives descriptors that run out, at every one", function()
    local output, status = support.script([[
      local process = agather.process
      agather.run(function()
        local codes = {}
        local function try()
          local ok, err = pcall(process.run, { "cat", stdin = "x" })
          return ok or err.code
        end
        assert(try() == true)
        for spare = 0, 12 do
          local held = {}
          while true do
            local file = io.open("/dev/null")
            if not file then break end
            held[#held + 1] = file
          end
          for _ = 1, spare do table.remove(held):close() end
          codes[#codes + 1] = tostring(try())
          for _, file in ipairs(held) do file:close() end
          assert(try() == true)
        end
        print(table.concat(codes, " "))
      end)
    ]], "ulimit -n 40;")
    assert.matches("^EMFILE EMFILE .*true true\n$", output)
    assert.equal(0, status)
  end)
end)
