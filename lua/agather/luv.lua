-- Lua's luv beside agather: where both are loaded, luv's loop has its turns while agather's waits, so that its timers and
-- sockets run, and their callbacks may resolve futures (see agather.from_callback). Each keeps its own loop: they may use
-- different copies of libuv, and none is entered twice.
-- An error in a callback of luv is luv's affair: it ends the process, unless the host has set another handler. Handles
-- that are unref'd have their turn only while luv has others.
--
-- Where a host steps the loop, whether luv is joined is its choice, since it may run luv's loop itself: a script that
-- knows that it does not calls require("agather.luv").join().
local agather = require "agather"
local uv = require "agather.uv"

local module = {}

local closed = false -- whether the script has closed luv's loop: asking luv for it would end the process then

-- Has luv say when its loop is closed.
local function watch_closing(luv)
  local loop_close = luv.loop_close
  function luv.loop_close()
    local result, message, name = loop_close()
    closed = closed or result ~= nil
    return result, message, name
  end
end

local watched

--- Lets luv's loop have its turns with the running loop. Happens by itself when luv is loaded.
---@return boolean joined false where the host runs luv's loop, or it is closed
function module.join()
  local luv = require "luv"
  if closed then return false end
  if watched ~= luv then watch_closing(luv) end
  watched = luv
  local loop = agather.get_running_loop()
  local scheduled = false

  local function turn()
    scheduled = false
    luv.run("nowait")
  end

  -- The seconds that luv can wait for, or nil where it wants nothing. A turn that is due is put into the loop's queue.
  local function look(readable)
    if scheduled then return 0 end
    if closed or luv.loop_mode() ~= nil or not luv.loop_alive() then return nil end
    luv.update_time()
    local timeout = luv.backend_timeout()
    if readable or timeout == 0 then
      loop:call_soon(turn)
      scheduled = true
      return 0
    end
    return timeout < 0 and math.huge or timeout / 1000
  end

  return uv.join(luv.backend_fd(), look)
end

return module
