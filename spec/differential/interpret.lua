-- Runs the programs of a file, a Lua table, with agather and prints each trace as a line of JSON: a process of its own,
-- so that a crash ends nothing else.
--   lua5.4 spec/differential/interpret.lua PROGRAMS.lua
local interpreter = require "spec.differential.interpreter"
local json = require "spec.differential.json"
require "spec.support.collector"

io.stdout:setvbuf("line")
for _, program in ipairs(dofile(arg[1])) do print(json.encode(interpreter.run(program))) end
io.stdout:flush()
