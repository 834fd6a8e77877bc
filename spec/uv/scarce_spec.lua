-- Memory that fails, and a collection at every allocation, while files and children are used: see spec/embed/torture.c.
local system = require "spec.support.system"

local core = assert(package.searchpath("agather.core", package.cpath))
local program = core:gsub("agather/core%.so$", "torture")

local function torture(mode, script)
  local folder <close> = system.folder()
  local pipe = assert(io.popen(("AGATHER_FOLDER=%s timeout 60 %s %s spec/uv/%s.lua 2>&1"):format(folder.path, program,
    mode, script)))
  local output = pipe:read("a")
  return pipe:close(), output
end

describe("a state whose memory fails", function()
  it("goes on after files were used, whichever allocation was the first to fail", function()
    local ok, output = torture("memory", "scarce_files")
    assert.is_true(ok, output)
    assert.is_true(tonumber(output:match("(%d+) runs\n$")) > 300, output)
  end)
end)

describe("a state that collects at every allocation", function()
  for _, script in ipairs { "scarce_files", "scarce_children" } do
    it("keeps what it still needs: " .. script, function()
      local ok, output = torture("collect", script)
      assert.is_true(ok, output)
      assert.equal("1 run\n", output:match("[^\n]*\n$"))
    end)
  end
end)
