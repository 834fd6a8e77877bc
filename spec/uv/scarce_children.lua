-- Starts, feeds and ends children, for spec/embed/torture.c: see scarce_spec.lua.
local agather = require "agather"
local process = agather.process

agather.run(function()
  local result = process.run { "cat", stdin = "fed", env = { A = "1" }, timeout = 60 }
  assert(result.status == 0 and result.stdout == "fed")
  do
    local child <close> = process.spawn { "cat", cwd = "/", extra_env = { B = "2" } }
    child.stdin:write("line\n")
    assert(child.stdout:read() == "line")
  end
  pcall(process.run, { "no-such-command" })
  local task = agather.spawn(process.run, { "sleep 60", shell = true })
  agather.sleep(0.01)
  task:cancel()
  pcall(agather.await, task)
end)
