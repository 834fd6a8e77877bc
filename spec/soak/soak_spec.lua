-- The soak is seen to fail: with a leak of each kind its check goes red, and names it; without, it is green.
local agather = require "agather"
local system = require "spec.support.system"

local SECONDS = 1.5

-- Runs a short soak; what it printed, and its status.
local function soak(folder, ...)
  local command = { "lua5.4", "spec/soak/main.lua", SECONDS, "--parts", "tasks", "--out", folder.path, ... }
  command.stderr, command.timeout = "stdout", 60
  local result = agather.process.run(command)
  return result.stdout, result.status
end

-- The lines that say of what it is not flat, or not what it was at the beginning.
local function complaints(output)
  local found = {}
  for line in output:gmatch("not ok %- ([^\n]+)") do found[#found + 1] = line end
  return table.concat(found, "\n")
end

describe("a soak", function()
  local outputs, statuses = {}, {}

  setup(function()
    agather.run(function()
      local jobs = {}
      for _, kind in ipairs { "none", "tasks", "descriptors", "memory", "children" } do
        jobs[#jobs + 1] = function()
          local folder <close> = system.folder()
          if kind == "none" then
            outputs[kind], statuses[kind] = soak(folder)
            outputs.samples, outputs.plot = system.slurp(folder:at "samples.csv"), system.slurp(folder:at "soak.svg")
          else
            outputs[kind], statuses[kind] = soak(folder, "--leak", kind)
          end
        end
      end
      agather.gather_list(jobs):await()
    end)
  end)

  it("is green where nothing leaks", function()
    assert.are.equal("", complaints(outputs.none))
    assert.are.equal(0, statuses.none)
    assert.is_truthy(outputs.none:find("ok %- tasks: %d+ operations, 0 failed"), outputs.none)
  end)

  it("writes its samples and a plot of them", function()
    assert.is_truthy(outputs.samples:find("^seconds,quiet,rss,lua,descriptors,tasks,threads,children,processor,\"tasks: "))
    assert.is_true(select(2, outputs.samples:gsub(",quiet,", "")) >= 9)
    assert.is_truthy(outputs.plot:find("<polyline", 1, true))
    assert.are.equal("</svg>\n", outputs.plot:sub(-7))
  end)

  for kind, complaint in pairs {
    tasks = "tasks stay flat", descriptors = "descriptors stay flat", memory = "Lua's memory stay flat",
    children = "children stay flat",
  } do
    it("goes red where " .. kind .. " leak", function()
      assert.are.equal(1, statuses[kind])
      assert.is_truthy(complaints(outputs[kind]):find(complaint, 1, true), outputs[kind])
    end)
  end
end)
