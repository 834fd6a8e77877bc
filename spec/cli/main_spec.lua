-- The agather program: scripts as main tasks, its options, exit codes and messages.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "bin/agather")

-- Runs the program; returns its output, errors among it, and its exit status.
local function agather(arguments, input)
  local pipe = assert(io.popen(("printf '%%s' %q | %s %s 2>&1"):format(input or "", program, arguments)))
  local text = pipe:read("a")
  local _, _, status = pipe:close()
  return text, status
end

-- Writes a script, runs it, removes it.
local function run(code, arguments, options)
  local name = os.tmpname()
  local file <close> = assert(io.open(name, "w"))
  file:write(code)
  file:flush()
  local text, status = agather(("%s %s %s"):format(options or "", name, arguments or ""))
  os.remove(name)
  return text, status, name
end

describe("the agather program", function()
  it("runs a script as the main task, with the library's names as globals", function()
    local text, status = run([[
      local task = spawn(function() sleep(0.001) return "slept" end)
      print(await(task), gather(function() return 1 end):await()[1], agather.await == await)
    ]])
    assert.equal("slept\t1\ttrue\n", text)
    assert.equal(0, status)
  end)

  it("tells of an error that cannot be told", function()
    local text, status = run([[error(setmetatable({}, { __tostring = function() error("x") end }))]])
    assert.equal("agather: an error that is a table, and cannot be told\n", text)
    assert.equal(1, status)
  end)

  it("gives the script its arguments", function()
    local text, _, name = run("print(arg[0], arg[1], arg[2], ...)", "one 'two words'")
    assert.equal(name .. "\tone\ttwo words\tone\ttwo words\n", text)
  end)

  it("leaves what is no name of the library nil, and Lua's own functions as they are", function()
    assert.equal("nil\ttrue\n", (run("print(undefined_name, pcall ~= agather.pcall)")))
  end)

  it("reads a script from standard input", function() assert.equal("here\n", (agather("-", "print('here')"))) end)

  it("runs code of the command line before the script, and requires modules", function()
    assert.equal("first\nsecond\n", (run("print(word)", "", "-e \"print('first') word = 'second'\"")))
    assert.equal("function\n", (agather("-l agather.check -e \"print(type(_G['agather.check'].fail))\"")))
  end)

  it("jumps over waits with a virtual clock", function()
    local started = os.time()
    assert.equal("done\n", (run("sleep(3600) print('done')", "", "--virtual-clock")))
    assert.is_true(os.time() - started < 60)
  end)

  it("tells in debug mode where a coroutine object was made that nobody awaited", function()
    local text, _, name = run("local job = async(function() end, 'job')\njob()\n", "", "--debug")
    assert.truthy(text:find(name .. ":2: coroutine job", 1, true), text)
  end)

  it("ends with a traceback and status 1 when the script fails", function()
    local text, status, name = run("local function deep() error('wrong') end\ndeep()")
    assert.equal(1, status)
    assert.truthy(text:find("agather: " .. name .. ":1: wrong\nstack traceback:", 1, true), text)
    assert.truthy(text:find(name .. ":2: in main chunk", 1, true), text)
  end)

  it("shows the traceback of an error object too", function()
    local text, status = run("spawn(function() error(TimeoutError('too late')) end):await()")
    assert.equal(1, status)
    assert.truthy(text:find("agather: too late\nstack traceback:", 1, true), text)
    assert.truthy(text:find("awaited by Task-1", 1, true), text)
  end)

  it("is cancelled by SIGINT", function()
    local text, status = run([[
      agather.get_running_loop():call_later(0.01, function() io.popen("kill -INT $PPID"):close() end)
      local _ <close> = setmetatable({}, { __close = function() print("closed") end })
      sleep(10)
    ]])
    assert.equal(1, status)
    assert.equal("closed\nagather: interrupted\n", text:match("^closed\nagather: interrupted\n"), text)
  end)

  it("says how it is used", function()
    local text, status = agather("")
    assert.equal(1, status)
    assert.truthy(text:find("^usage: agather"), text)
    assert.truthy(agather("--wrong"):find("unknown option '--wrong'\nusage:", 1, true))
    assert.truthy(agather("-e"):find("an argument is missing after '-e'\nusage:", 1, true))
    assert.truthy(agather("/no/such/file.lua"):find("cannot open /no/such/file.lua", 1, true))
    assert.truthy(agather("--version"):find("^agather %d+%.%d+%.%d+, Lua 5%.4"))
  end)
end)
