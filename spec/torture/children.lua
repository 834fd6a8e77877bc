-- Starts, feeds and ends children, for torture.c.
local agather = require "agather"
local process = agather.process

local function see() end -- its arguments are what is used

local function spawn_and_talk()
  local child <close> = process.spawn { "cat", cwd = "/", extra_env = { B = "2" } }
  see(tostring(child), child:running())
  child.stdin:write("line\n")
  child.stdout:read()
  child.stdin:close()
  child:wait()
  agather.pcall(child.kill, child)
  child:close()
end

return {
  run = function()
    process.environment()
    process.run { "cat", stdin = "fed", env = { A = "1" }, timeout = 60 }
    process.run { "true", stdout = "null", stderr = "inherit", stdin = { path = "/dev/null" } }
    agather.pcall(process.run, { "exit 3", shell = true, check = true })
    spawn_and_talk()
    do
      local child <close> = process.spawn { "sleep", "60", stdin = "fed", stderr = "stdout" }
      child:kill("SIGSTOP")
      child:kill("SIGKILL")
      child:wait()
    end
    agather.pcall(process.run, { "no-such-command" })
    agather.pcall(process.run, { "yes", max_output = 10 })
    agather.pcall(process.run, { "sleep", "60", timeout = 0 })
    local task = agather.spawn(process.run, { "sleep 60", shell = true })
    agather.sleep(0)
    task:cancel()
    agather.wait { task }
    local child = process.spawn { "true" } -- left to the collector
    child:wait()
  end,
  after = function() assert(process.run({ "cat", stdin = "fed" }).stdout == "fed") end,
}
