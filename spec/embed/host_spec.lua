-- The hosts of examples/embed print what they promise.
local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("agather/core%.so$", "")

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read("a")
  return text, pipe:close()
end

-- The lines that a host prints, sorted: what runs side by side is free to print in any order.
local function lines_of(command)
  local text, ok = output_of(command)
  assert.is_true(ok, text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  table.sort(lines)
  return lines
end

local function exists(name)
  local file <close> = io.open(build .. name)
  return file ~= nil
end

describe("a host", function()
  it("needs no more than to open the library and to run a script", function()
    assert.same({ "soup and salad" }, lines_of(build .. "embed_smallest"))
  end)

  it("runs tasks beside its own poll loop", function()
    assert.same({ "input of 6 bytes", "task\t1", "task\t2", "task\t3" },
      lines_of("echo hello | " .. build .. "embed_poll"))
  end)

  it("gives scripts a share of each frame of a game", function()
    assert.same({ "400 plans were made in one frame: false", "the fox has walked 5 steps",
      "the snail has walked 20 steps" }, lines_of(build .. "embed_game"))
  end)

  it("runs tasks as a source of a GLib main loop", function()
    if not exists("embed_glib") then return pending("libglib2.0-dev is missing: the host in GLib was not built") end
    assert.same({ "task\t1", "task\t2", "task\t3", "tick 1 of GLib", "tick 2 of GLib" },
      lines_of(build .. "embed_glib"))
  end)

  it("shares its libuv loop with tasks and with Lua's luv", function()
    if not exists("embed_luv") then return pending("lua-luv-dev is missing: the host with luv was not built") end
    assert.same({ "20 ms of luv, 10 ms of agather", "tick of the host" }, lines_of(build .. "embed_luv"))
  end)
end)
