-- src/core/restrict.c and safe.c: what scripts see in restricted mode, and what it does.
local limited = require "spec.support.limited"

-- Runs the script in restricted mode; returns what it printed.
local function restricted(script, ...)
  return limited("restrict", "spawn=" .. script, "run=5", ...)
end

-- Prints one line per value that can be reached from _G: tables, metatables, and what is in them.
local walk = [[
  local seen = {}
  local function walk(name, value)
    local metatable = getmetatable(value)
    if type(value) ~= "string" and metatable then walk(name .. "!", metatable) end
    if type(value) ~= "table" or seen[value] then return end
    seen[value] = name
    for key, field in pairs(value) do
      if type(key) == "string" then
        print(name .. "." .. key)
        walk(name .. "." .. key, field)
      elseif field ~= true or type(key) ~= "userdata" then
        print(name, key, field)
      end
    end
  end
  seen[agather.Error] = "Error"
  walk("_G", _G)
]]

local class = { "__index", "__name", "__tostring", "name", "parent", "subclass" }
local errors = {
  "BrokenBarrierError", "CancelledError", "DeadlockError", "ExceptionGroup", "IncompleteReadError",
  "InvalidStateError", "KeyboardInterrupt", "LimitError", "LimitOverrunError", "LookupError", "OSError", "QueueEmpty",
  "QueueFull", "QueueShutDown", "RuntimeError", "TimeoutError",
}

-- The golden list: whatever is not here must not be there.
local golden = {
  [""] = { "_G", "_VERSION", "agather", "assert", "collectgarbage", "coroutine", "error", "getmetatable", "ipairs", "load",
    "math", "next", "os", "pairs", "pcall", "print", "rawequal", "rawget", "rawlen", "rawset", "require", "select",
    "setmetatable", "string", "table", "tonumber", "tostring", "type", "utf8", "xpcall" },
  [".agather"] = { "ALL_COMPLETED", "Barrier", "BoundedSemaphore", "Condition", "ContextVar", "Error", "Event",
    "FIRST_COMPLETED", "FIRST_EXCEPTION", "LifoQueue", "Lock", "PriorityQueue", "Queue", "Semaphore", "TaskGroup",
    "_VERSION", "all_tasks", "as_completed", "async", "await", "copy_context", "coroutine", "create_task",
    "current_task", "ensure_future", "error_object", "from_callback", "future", "gather", "gather_list",
    "get_running_loop", "is_awaitable", "is_error", "map", "pcall", "shield", "sleep", "spawn", "timeout", "timeout_at", "wait",
    "wait_for", "xpcall" },
  [".coroutine"] = { "close", "create", "isyieldable", "resume", "running", "status", "wrap", "yield" },
  [".os"] = { "clock", "date", "difftime", "time" },
  [".string"] = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "pack", "packsize", "rep",
    "reverse", "sub", "unpack", "upper" },
  [".table"] = { "concat", "insert", "move", "pack", "remove", "sort", "unpack" },
  [".utf8"] = { "char", "charpattern", "codepoint", "codes", "len", "offset" },
}

describe("restricted mode", function()
  it("lets a script reach what stands in this list, and nothing else", function()
    local expected = {}
    local function expect(prefix, names)
      for _, name in ipairs(names) do expected["_G" .. prefix .. "." .. name] = true end
    end
    for prefix, names in pairs(golden) do expect(prefix, names) end
    for name in pairs(math) do expect(".math", { name }) end
    expect(".agather", errors)
    local seen = {}
    for line in restricted(walk):gmatch("[^\n]+") do
      local coroutine_field = line:match("^_G%.agather%.coroutine%.(%a+)$") or line:match("^_G%.coroutine%.(%a+)$")
      local field = line:match("^_G%.agather%.%a+Error%.([%a_]+)$") or line:match("^_G%.agather%.%a+Group%.([%a_]+)$")
        or line:match("^_G%.agather%.Queue%a+%.([%a_]+)$") or line:match("^_G%.agather%.KeyboardInterrupt%.([%a_]+)$")
      if coroutine_field then
        seen["_G.coroutine." .. coroutine_field] = true
      elseif field then
        local known = {}
        for _, name in ipairs(class) do known[name] = true end
        assert.is_true(known[field], line)
      else
        seen[line] = true
      end
    end
    assert.same(expected, seen)
  end)

  it("gives no metatable but those that scripts have set, and error classes", function()
    local output = restricted("print(getmetatable(''), getmetatable(agather.future()), getmetatable(agather.TaskGroup()), "
      .. "getmetatable(agather.get_running_loop()), getmetatable(agather.current_task()), getmetatable(agather.Error)) "
      .. "print(getmetatable({}), getmetatable(setmetatable({}, {a = 1})).a, getmetatable(agather.Error()) == agather.Error, "
      .. "getmetatable(setmetatable({}, {__metatable = 'mine'}))) print(pcall(setmetatable, agather.Error, {})) "
      .. "print(pcall(setmetatable, setmetatable({}, {__metatable = 1}), {})) print(pcall(getmetatable))")
    assert.equal("false\tfalse\tfalse\tfalse\tfalse\tfalse\nnil\t1\ttrue\tmine\nfalse\tcannot change a protected metatable\n"
      .. "false\tcannot change a protected metatable\nfalse\tbad argument #1 to 'getmetatable' (value expected)\n", output)
  end)

  it("refuses finalizers, also those hidden in classes of errors", function()
    local output = restricted("print(pcall(setmetatable, {}, {__gc = function() print('run') end})) "
      .. "print(pcall(setmetatable, {}, {__gc = true})) local E = agather.Error:subclass('E') "
      .. "for _, class in ipairs {E, agather.TimeoutError, agather.LimitError} do class.__gc = function() print('run') end end "
      .. "E() agather.TimeoutError('x') pcall(table.move, {}, 1, 1e15, 2) pcall(agather.wait_for, agather.sleep, 0) "
      .. "local t = setmetatable({}, E) print('none')", "do=collectgarbage()", "used")
    assert.equal(2, select(2, output:gsub("a metatable with __gc is not allowed here", "")), output)
    assert.is_nil(output:find("run\n", 1, true), output)
  end)

  it("loads text only, of limited size, with the restricted globals", function()
    local output = limited("chunk=100", "limit", "restrict", "spawn=print(load('return _G')() == _G, _ENV == _G) "
      .. "print(load('\\27Lua')) print(load('return 1', 'name', 'b')) print(load('return x', 'name', 't', {x = 5})()) "
      .. "print(load('syntax error', '=name')) print(pcall(load, ('-'):rep(101))) "
      .. "local pieces = {'return ', '7', ''} local i = 0 "
      .. "local numbers = {'return ', 7, 5} local j = 0 print(load(function() j = j + 1 return numbers[j] end)()) "
      .. "print(load(function() i = i + 1 return pieces[i] end)()) print(pcall(load, function() return '--' end)) "
      .. "print(pcall(load, function() return {} end)) print(pcall(load, 5)) print(pcall(load)) "
      .. "print(load('return ...', nil)(1, 2))", "run=5")
    local lines = {}
    for line in output:gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.same({
      "true\ttrue",
      lines[2], -- says what byte it did not expect
      "nil\tattempt to load a text chunk (mode is 'b')",
      "5",
      "nil\tname:1: syntax error near 'error'",
      "false\tchunk too large: the limit is 100 bytes",
      "75",
      "7",
      "false\tchunk too large: the limit is 100 bytes",
      "false\treader function must return a string",
      "false\tbad argument #1 to 'load' (function expected, got number)",
      "false\tbad argument #1 to 'load' (value expected)",
      "1\t2",
    }, lines)
    assert.truthy(lines[2]:find("^nil\t"), lines[2])
  end)

  it("calls the handlers of xpcall when the error has unwound, with the results of Lua's", function()
    local output = restricted("print(xpcall(function(...) return ... end, print, 1, nil, 3)) "
      .. "print(xpcall(error, function(e) return e .. '!', 2 end, 'boom')) print(xpcall(error, error, 'twice')) "
      .. "print(pcall(xpcall, error)) local order = {} "
      .. "xpcall(function() local _ <close> = setmetatable({}, {__close = function() order[1] = 'closed' end}) error() end, "
      .. "function() order[2] = 'handled' end) print(order[1], order[2]) "
      .. "print(xpcall(function() agather.sleep(0) error('late', 0) end, function(e) agather.sleep(0) return e end))")
    assert.equal("true\t1\tnil\t3\nfalse\tboom!\t2\nfalse\ttwice\n"
      .. "false\tbad argument #2 to 'xpcall' (function expected, got no value)\nclosed\thandled\nfalse\tlate\n", output)
  end)

  it("lets cancellations through agather.xpcall, and nothing else", function()
    local output = restricted("print(agather.xpcall(error, function(e) return e .. '!' end, 'boom')) "
      .. "local task = agather.spawn(function() agather.xpcall(agather.sleep, print, 9) print('not cancelled') end) "
      .. "agather.sleep(0) task:cancel() agather.sleep(0) print(task:cancelled())")
    assert.equal("false\tboom!\ntrue\n", output)
  end)

  it("has caps on what C functions do in one call", function()
    local output = limited("string=100", "elements=10", "limit", "restrict", "spawn=local long = setmetatable({}, "
      .. "{__len = function() return 1 << 62 end, __index = rawlen}) "
      .. "for _, f in ipairs { function() return ('x'):rep(101) end, function() return ('x'):rep(51, ', ') end, "
      .. "function() return table.concat(long) end, function() return table.concat({}, '', 1, 1 << 62) end, "
      .. "function() table.insert(long, 1, 1) end, function() table.move({}, math.mininteger, math.maxinteger, 1) end, "
      .. "function() table.remove(long, 1) end, function() table.sort(long) end } do "
      .. "local ok, e = pcall(f) print(ok, agather.is_error(e, agather.LimitError), e.limit, e.value, e) end", "run=5")
    local places = { "string.rep", "string.rep", "table.concat", "table.concat", "table.insert", "table.move", "table.remove",
      "table.sort" }
    local expected = ""
    for i, place in ipairs(places) do
      expected = expected .. (i < 3 and "false\ttrue\tstring\t100\t%s: more than the 100 bytes that are allowed\n"
        or "false\ttrue\telements\t10\t%s: more than the 10 elements that are allowed\n"):format(place)
    end
    assert.equal(expected, output)
  end)

  it("leaves these functions as they were below the caps", function()
    local output = restricted("print(('ab'):rep(2, '-'), ('x'):rep(-1), (''):rep(1 << 60)) local t = {3, 1, 2} table.sort(t) "
      .. "table.insert(t, 4) table.insert(t, 1, 0) print(table.concat(t, ','), table.concat(t, '', 2, 3), table.remove(t), "
      .. "table.remove(t, 1), #table.move(t, 1, 3, 2)) print(pcall(function() table.concat(5) end)) print(pcall(table.insert, {}, 9, 1)) "
      .. "print(pcall(string.rep)) print(#table.concat({}), table.remove({}))")
    assert.truthy(output:find("0\tnil\n$"), output)
    assert.equal("ab-ab\t\t\n", output:match("^[^\n]*\n"))
    assert.truthy(output:find("0,1,2,3,4\t12\t4\t0\t4\n", 1, true), output)
    assert.truthy(output:find("false\tscript:1: bad argument #1 to 'concat' (table expected, got number)", 1, true), output)
    assert.truthy(output:find("(position out of bounds)", 1, true), output)
    assert.truthy(output:find("false\tbad argument #1 to 'string.rep' (string expected, got no value)", 1, true), output)
  end)

  it("lets scripts count memory, not collect it", function()
    local output = restricted("print(collectgarbage('count') > 1) print(pcall(collectgarbage)) "
      .. "print(pcall(collectgarbage, 'stop'))")
    assert.equal("true\nfalse\tbad argument #1 to 'collectgarbage' (only 'count' is allowed here, got 'collect')\n"
      .. "false\tbad argument #1 to 'collectgarbage' (only 'count' is allowed here, got 'stop')\n", output)
  end)

  it("keeps scripts from the host's loop", function()
    local output = restricted("local loop = agather.get_running_loop() for _, name in ipairs {'close', 'run_forever', "
      .. "'run_until_complete', 'set_debug', 'set_exception_handler', 'stop'} do print(loop[name]) end print(loop:time() > 0)")
    assert.equal(("nil\n"):rep(6) .. "true\n", output)
  end)

  it("lets require find what is there, under its name", function()
    local output = restricted("print(require 'agather' == agather, require 'string' == string, "
      .. "require 'agather.coroutine' == agather.coroutine) "
      .. "for _, name in ipairs {'io', 'debug', 'agather.net', 'agather.core', 'package', ''} do print(pcall(require, name)) end")
    assert.equal("true\ttrue\ttrue\n", output:match("^[^\n]*\n"))
    assert.equal(6, select(2, output:gsub("false\tmodule '[%a.]*' is not allowed here\n", "")), output)
  end)

  it("makes coroutines through which waiting reaches the loop", function()
    local output = restricted("local next = coroutine.wrap(function() agather.sleep(0.001) coroutine.yield(1) return 2 end) "
      .. "print(next(), next()) print(coroutine.isyieldable(), coroutine.status(coroutine.create(print)))")
    assert.equal("1\t2\ntrue\tsuspended\n", output)
  end)

  it("survives coroutines that close each other without end", function()
    local output = restricted("local last = false for i = 1, 20000 do local previous = last last = coroutine.create(function() "
      .. "local _ <close> = setmetatable({}, {__close = function() if previous then coroutine.close(previous) end end}) "
      .. "coroutine.yield() end) coroutine.resume(last) end print(pcall(coroutine.close, last)) print('alive')")
    assert.truthy(output:find("alive\n", 1, true), output)
  end)

  it("leaves the library whole: scopes, groups, maps with progress, generators", function()
    local output = restricted("local n = 0 do local group <close> = agather.TaskGroup() "
      .. "for i = 1, 3 do group:spawn(function() agather.sleep(0.001) n = n + i end) end end "
      .. "local squares = agather.map(function(i) return i * i end, {1, 2, 3}, {limit = 2, progress = function() end}) "
      .. "print(n, squares[3], pcall(agather.wait_for, agather.sleep, 'x')) "
      .. "for task in agather.as_completed {agather.spawn(agather.sleep, 0.001, 'a')} do print(task:await()) end "
      .. "print(pcall(agather.wait_for, agather.future(), 0.001))")
    assert.truthy(output:find("^6\t9\tfalse\t[^\n]*bad argument #2 to 'wait_for' %(number expected, got string%)\na\n"), output)
  end)

  it("gives what the allow-list names", function()
    local output = limited("restrict=print,pairs,string.rep,agather.sleep,agather.coroutine,os", "spawn="
      .. "print(pairs, string.rep, string.find, ('').find, agather.sleep, agather.spawn, os.time, os.exit, table, next, load) "
      .. "local n = 0 for k in pairs(_G) do n = n + 1 end print(n)", "run=1")
    assert.equal("function\tfunction\tnil\tnil\tfunction\tnil\tfunction\tnil\tnil\tnil\tnil\n6\n",
      (output:gsub(": %w+", "")))
  end)

  it("gives a submodule that the allow-list names, and no function that is not known to be safe", function()
    local output = limited("restrict=print,agather.net,agather.run,agather.spawn,require", "spawn=print(agather.net.connect ~= nil, "
      .. "agather.run, agather.spawn ~= nil, require 'agather.net' == agather.net)", "run=1")
    assert.equal("true\tnil\ttrue\ttrue\n", output)
  end)

  it("can only shrink", function()
    local output = limited("restrict=print,string.rep,string.len,math", "do=added, removed = 1, 2",
      "restrict=print,string.rep,string.find,debug,io,added", "spawn=print(string.rep ~= nil, string.len, string.find, debug, "
      .. "io, math, added, removed)", "run=1", "restrict", "spawn=print(math, string.len)", "run=1")
    assert.equal("true\tnil\tnil\tnil\tnil\tnil\t1\tnil\nnil\tnil\n", output)
  end)

  it("shows scripts what the host sets afterwards, and leaves what was loaded before as it was", function()
    local output = limited("do=before = load('return io ~= nil, os.execute ~= nil')", "do=keep = before",
      "do=registry = debug.getregistry() registry.keep = before", "restrict", "do=answer = 42",
      "spawn=print(answer, keep, registry, io)", "run=1")
    assert.equal("42\tnil\tnil\tnil\n", output)
  end)
end)
