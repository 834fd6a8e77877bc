-- Memory that fails at every allocation while a host drives the loop: see torture_host.c. What scripts meet is in
-- spec/torture.
local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "torture")

describe("a host whose memory fails", function()
  -- AGATHER_TORTURE=full tries every allocation, which takes a minute.
  local step = os.getenv("AGATHER_TORTURE") == "full" and 1 or 17

  for mode, what in pairs {
    plain = "goes on with other tasks, whichever allocation was the first to fail",
    restricted = "goes on with other tasks where it also sets limits and restricts",
  } do
    it(what, function()
      local pipe = assert(io.popen(("timeout 300 %s_host %s spec/torture/core.lua %d"):format(program, mode, step)))
      local output = pipe:read("a")
      assert.is_true(pipe:close(), output)
      local runs, lost = output:match("(%d+) runs, (%d+) of them lost a finalizer\n$")
      assert.is_true(tonumber(runs) > 4000 / step, output)
      assert.is_true(tonumber(lost) < tonumber(runs) / 10, output)
    end)
  end
end)
