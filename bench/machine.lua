-- What the figures were measured on.
local shell = require "bench.shell"

local function first(text, pattern) return text and text:match(pattern) end

local function machine(top)
  local revision = shell.capture(("git -C %s rev-parse --short HEAD"):format(shell.quote(top)))
  local changed = shell.capture(("git -C %s status --porcelain -- src lua include"):format(shell.quote(top)))
  return {
    processor = first(shell.read_file("/proc/cpuinfo"), "model name%s*:%s*([^\n]+)") or shell.capture("uname -m"),
    cores = tonumber(shell.capture("nproc")),
    memory = ("%.0f GB"):format((tonumber(first(shell.read_file("/proc/meminfo"), "MemTotal:%s*(%d+)")) or 0) / 1e6),
    kernel = shell.capture("uname -sr"),
    lua = (shell.capture("lua5.4 -v") or _VERSION):match("Lua [%d.]+"),
    load = first(shell.read_file("/proc/loadavg"), "^%S+"),
    revision = (revision or "unknown") .. (changed and changed ~= "" and ", changed" or ""),
    date = os.date("!%Y-%m-%d %H:%M UTC"),
  }
end

return machine
