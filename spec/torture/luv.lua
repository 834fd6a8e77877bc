-- Lua's luv beside the loop, for torture.c: its timers run while ours waits.
package.loaded.luv = nil
local luv = require "luv"
local agather = require "agather"

return {
  run = function()
    local timer = luv.new_timer()
    local _ <close> = setmetatable({}, { __close = function() timer:close() end })
    local fired = agather.future()
    timer:start(1, 0, function()
      if not fired:done() then fired:set_result() end
    end)
    agather.wait_for(fired, 1)
    require("agather.luv").join()
    agather.sleep(0.001)
  end,
}
