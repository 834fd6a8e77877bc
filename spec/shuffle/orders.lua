-- Runs the random programs of spec/differential in other orders than asyncio's and checks what no order may change:
--   lua5.4 spec/shuffle/orders.lua COUNT [SEED]
-- each body starts once, first, and ends once, no callback of the library fails, no assertion of the core does, and the
-- program comes to an end. What statements give depends on the order, so traces are not compared. See .ci/shuffle.
local agather = require "agather"
local generator = require "spec.differential.generator"
local interpreter = require "spec.differential.interpreter"

local count, first = tonumber(arg[1]), tonumber(arg[2]) or 1
if not count then
  io.stderr:write("usage: lua5.4 spec/shuffle/orders.lua COUNT [SEED]\n")
  os.exit(2)
end

io.stdout:setvbuf("line") -- what a long run has found is seen at once
local ORDERS, MOST = 3, 10
local features = generator.features(agather)
local shown, failed, runs = 0, 0, 0

-- What is wrong with a trace, or nil.
local function wrong(trace)
  local starts, ends = {}, {}
  for _, line in ipairs(trace) do
    local name, what = line:match("^%S+ (b%d+%.%d+) (.*)")
    if name then
      if what == "starts" then starts[name] = (starts[name] or 0) + 1 end
      if what == "ends" or what:find("^ends with ") or what == "is closed" then ends[name] = (ends[name] or 0) + 1 end
      if starts[name] ~= 1 then return "before its start, or twice: " .. line end
      if (ends[name] or 0) > 1 then return "ends twice: " .. line end
    end
    if line:find("library's callback", 1, true) then return line end
  end
end

for seed = first, first + count - 1 do
  local program = generator.program(seed, features)
  for order = 1, ORDERS do
    debug.getregistry()["agather.shuffle"] = seed * ORDERS + order
    local ok, trace = pcall(interpreter.run, program)
    runs = runs + 1
    local problem = ok and wrong(trace) or not ok and tostring(trace)
    if problem then
      failed = failed + 1
      shown = shown + 1
      if shown <= MOST then print(("not ok - program %d of spec/differential in order %d: %s"):format(seed, order, problem)) end
    end
  end
end
print(("%s - %d runs of %d programs of spec/differential in other orders, %d fail"):format(
  failed == 0 and "ok" or "not ok", runs, count, failed))
os.exit(failed == 0, true)
