-- Runs the programs of a file, each a Lua table on a line, with agather and prints each trace as a line of JSON: a
-- process of its own, so that a crash ends nothing else.
--   lua5.4 spec/differential/interpret.lua PROGRAMS
local interpreter = require "spec.differential.interpreter"
local json = require "spec.differential.json"
require "spec.support.collector"

io.stdout:setvbuf("line")
for line in io.lines(arg[1]) do
  local trace = interpreter.run(assert(load("return " .. line))())
  collectgarbage() -- what is left of an ended loop must be sound
  print(json.encode(trace))
end
