-- companion: libraries with a loop of their own are met before a loop blocks.
local support = require "spec.support"

describe("a companion", function()
  it("is joined once to each loop, when it is loaded", function()
    local output = support.script [[
      local joined = 0
      agather.companion("a.companion", function()
        joined = joined + 1
        print("joined to", agather.get_running_loop(), agather.current_task())
      end)
      agather.run(function() agather.sleep(0.001) end)
      print(joined)
      package.loaded["a.companion"] = true
      agather.run(function() agather.sleep(0.001) agather.sleep(0.001) end)
      print(joined)
      agather.run(function() end)
      print(joined)
    ]]
    assert.equal("0\njoined to\t<Loop running>\tnil\n1\njoined to\t<Loop running>\tnil\n2\n", output)
  end)

  it("is joined when a task loads it", function()
    local output = support.script [[
      agather.companion("a.companion", function() print("joined") end)
      agather.run(function()
        agather.sleep(0.001)
        package.loaded["a.companion"] = {}
        print("loaded")
        agather.sleep(0.001)
        print("slept")
      end)
    ]]
    assert.equal("loaded\njoined\nslept\n", output)
  end)

  it("that cannot be joined is reported, and the loop goes on", function()
    local output = support.script [[
      agather.companion("a.companion", function() error("no") end)
      agather.run(function()
        agather.get_running_loop():set_exception_handler(function(context)
          print(context.message, tostring(context.exception):match("no$"))
        end)
        package.loaded["a.companion"] = true
        agather.sleep(0.001)
        agather.sleep(0.001)
        print("end")
      end)
    ]]
    assert.equal("Exception while a.companion was joined to the loop\tno\nend\n", output)
  end)

  it("for which there was no memory is joined later, and the loop does not wait for ever meanwhile", function()
    local output = support.script [[
      local tried = 0
      agather.run(function()
        local future = agather.future()
        agather.companion("a.companion", function()
          tried = tried + 1
          if tried == 1 then error("not enough memory", 0) end
          future:set_result("joined")
        end)
        package.loaded["a.companion"] = true
        agather.get_running_loop():set_exception_handler(function(context) print(context.message) end)
        local waker = agather.get_running_loop():call_later(10, function() error("too late") end)
        print(future:await(), tried)
        waker:cancel()
      end)
    ]]
    assert.equal("joined\t2\n", output)
  end)

  it("that is named again has its new function alone", function()
    local output = support.script [[
      agather.companion("a.companion", function() print("old") end)
      agather.companion("a.companion", function() print("new") end)
      package.loaded["a.companion"] = true
      agather.run(function() agather.sleep(0.001) end)
    ]]
    assert.equal("new\n", output)
  end)

  it("has a name and a function, and there are no more than eight", function()
    local output = support.script [[
      print(pcall(function() agather.companion() end))
      print(pcall(function() agather.companion("x") end))
      local ok, raised
      for i = 1, 8 do ok, raised = pcall(agather.companion, "x" .. i, print) end
      print(ok, raised)
    ]]
    assert.truthy(output:find("bad argument #1 to 'companion' (string expected, got no value)", 1, true), output)
    assert.truthy(output:find("bad argument #2 to 'companion' (function expected, got no value)", 1, true), output)
    assert.truthy(output:find("false\tcompanion: no more than 8\n", 1, true), output)
  end)
end)
