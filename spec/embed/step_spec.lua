-- A host steps a loop: ag_step, ag_step_for and what they answer.
local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("agather/core%.so$", "")

local output

local function says(line)
  assert.truthy(("\n" .. output):find("\n" .. line .. "\n", 1, true), output)
end

describe("a step", function()
  setup(function()
    local pipe = assert(io.popen("timeout 60 " .. build .. "step 2>&1"))
    output = pipe:read("a")
    assert.is_true(pipe:close(), output)
  end)

  it("of a loop without tasks says that all is done", function() says("nothing: done") end)

  it("without time runs one task, and leaves the others for the next", function()
    says("no time: more, 1 ran, timeout 0")
    says("no time: more, 2 ran, timeout 0")
    says("no time: done, 3 ran, timeout -1")
  end)

  it("with time runs what becomes ready, until nothing is", function() says("much time: done, 103 ran") end)

  it("runs what is ready once, where it has no time of its own", function() says("a step: more") end)

  it("returns before its time is over when all wait", function() says("a sleeper: idle") end)

  it("is not wanted until a failure that nobody hears of may be looked for", function()
    says("a failure: the host slept")
  end)

  it("from inside a task is refused", function() says("inside: reentrant reentrant") end)

  it("leaves the stack as it was", function() says("top 0") end)

  it("of a destroyed loop is refused, also after a collection", function()
    says("destroy: ok")
    says("destroyed: closed closed closed, timeout -1, fd -1")
  end)
end)
