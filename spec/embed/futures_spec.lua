-- Each case of futures.c is a sentence.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "embed_futures")

describe("a future of a C host", function()
  for name in assert(io.popen(program)):lines() do
    it(name, function()
      local pipe = assert(io.popen(("timeout 10 %s '%s' 2>&1"):format(program, name:gsub("'", "'\\''"))))
      local output = pipe:read("a")
      assert.is_true(pipe:close(), output)
      assert.equal("", output)
    end)
  end
end)
