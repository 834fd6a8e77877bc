-- agather: asyncio's tasks and gather for Lua. The core is in C; this file is its front: submodules load with
-- their first use.
local agather = require "agather.core"

local submodules = { net = true }

return setmetatable(agather, {
  __index = function(module, name)
    if submodules[name] then
      local submodule = require("agather." .. name)
      rawset(module, name, submodule)
      return submodule
    end
  end,
})
