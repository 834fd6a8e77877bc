-- The hosts of examples/embed: how each is built, which its first comment says, and what it prints, which is here.
local hosts = {}

local prints = {
  game = { "400 plans were made in one frame: false", "the fox has walked 5 steps", "the snail has walked 20 steps" },
  glib = { "task\t1", "task\t2", "task\t3", "tick 1 of GLib", "tick 2 of GLib" },
  luv = { "20 ms of luv, 10 ms of agather", "tick of the host" },
  pool = { "cancelled\ttrue", "negative\tfalse\tthe limit is below zero", "primes\t168", "primes\t4", "primes\t9592",
    "the loop ran on\ttrue" },
  poll = { "input of 6 bytes", "task\t1", "task\t2", "task\t3" },
  threads = { "nobody is left to answer", "pong to ping 1", "pong to ping 2", "pong to ping 3" },
  smallest = { "soup and salad" },
}

local input = { poll = "hello\n" }

--- Runs a command; returns whether it succeeded, and what it printed.
function hosts.shell(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1"))
  local text = pipe:read("a")
  return pipe:close(), text
end

--- The examples: a list of tables with name, build (the command in its comment), packages (for pkg-config), prints (the
--- sorted lines; nil: its spec knows).
function hosts.list()
  local list = {}
  local _, files = hosts.shell("ls examples/embed/*.c")
  for file in files:gmatch("[^\n]+") do
    local source <close> = assert(io.open(file))
    local comment = source:read("a"):match("^/%*(.-)%*/"):gsub("%s*\n%*%*%s*", " ")
    local build = assert(comment:match("Build: (cc [^;*]*%S)"), file .. ": its first comment says no 'Build: cc ...'")
    local name = file:match("([%w_]+)%.c$")
    list[#list + 1] = {
      name = name,
      build = build,
      packages = assert(build:match("agather ([%w%.%- ]*)%)")),
      prints = prints[name],
    }
  end
  return list
end

--- The example of this name.
function hosts.named(name)
  for _, host in ipairs(hosts.list()) do
    if host.name == name then return host end
  end
end

--- Runs a host; returns the lines that it printed, sorted: what runs side by side is free to print in any order.
function hosts.run(command, host)
  local ok, text = hosts.shell(("printf '%%s' '%s' | timeout 60 %s"):format(input[host.name] or "", command))
  assert(ok, command .. ":\n" .. text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  table.sort(lines)
  return lines
end

return hosts
