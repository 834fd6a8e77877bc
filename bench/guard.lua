-- The regression guard: ./run bench/guard.lua [--update]
-- Counts the instructions per unit of the works in bench/guard/works.lua under callgrind, which a noisy machine does
-- not change, and compares them with bench/guard/counts.json. Fails when one is more than 3 % above; --update writes anew
-- what was counted. Counts hold for one compiler and one lua5.4, so the file names those that it was made with.
local top = arg[0]:match("^(.*)/bench/[^/]*$") or arg[0]:match("^bench/") and "." or ".."
package.path = top .. "/?.lua;" .. package.path

local json = require "bench.json"
local shell = require "bench.shell"

local allowed = 1.03
local count = 20000
local works = { "spawn", "switch", "sleep", "queue" }
local file = top .. "/bench/guard/counts.json"

local function instructions(work, units)
  local lua = "lua5.4"
  if os.getenv("AGATHER_BUILD_DIR") then
    lua = "env " .. shell.quote("LUA_CPATH=" .. os.getenv("AGATHER_BUILD_DIR") .. "/?.so;;") .. " lua5.4"
  end
  local output, message = shell.capture(("valgrind --tool=callgrind --callgrind-out-file=/dev/null %s %s %s %d 2>&1")
    :format(lua, shell.quote(top .. "/bench/guard/works.lua"), work, units))
  local counted = output and output:match("Collected : (%d+)")
  if not counted then error("callgrind failed: " .. (message or output), 0) end
  return tonumber(counted)
end

local function main()
  if not shell.capture("valgrind --version") then
    io.stderr:write("bench/guard.lua needs valgrind\n")
    os.exit(2)
  end
  local made_with = {
    compiler = shell.capture("cc --version | head -n 1") or "unknown",
    lua = shell.capture("lua5.4 -v") or "unknown",
  }
  local text = shell.read_file(file) or ""
  local failed = false
  local counts = {}
  for _, work in ipairs(works) do
    local now = (instructions(work, count) - instructions(work, 0)) / count
    local kept = tonumber(text:match(('"%s": ([%%d.]+)'):format(work)))
    local ratio = kept and now / kept
    counts[work] = math.floor(now * 10 + 0.5) / 10
    failed = failed or not ratio or ratio > allowed
    print(("%-8s %8.1f instructions per unit%s"):format(work, now,
      ratio and (", %+.1f %% of %.1f"):format((ratio - 1) * 100, kept) or ", nothing to compare with"))
  end
  if arg[1] == "--update" then
    shell.write_file(file, json.encode { instructions_per_unit = counts, made_with = made_with })
    print("wrote " .. file)
  elseif failed then
    print(("FAILED: above +%.0f %%, or not counted before; --update keeps these as the new counts"):format(
      (allowed - 1) * 100))
    for name, value in pairs(made_with) do
      if not text:find(value, 1, true) then print(("(the counts were made with another %s)"):format(name)) end
    end
    os.exit(1)
  end
end

main()
