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
      local log = os.tmpname()
      local pipe = assert(io.popen(("ASAN_OPTIONS=log_path=%s timeout 300 %s_host %s spec/torture/core.lua %d")
        :format(log, program, mode, step)))
      local output = pipe:read("a")
      local ok = pipe:close()
      os.execute("cat " .. log .. "*; rm -f " .. log .. "*")
      assert.is_true(ok, output)
      assert.is_true(tonumber(output:match("(%d+) runs\n$")) > 4000 / step, output)
    end)
  end
end)
