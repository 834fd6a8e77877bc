-- agather: asyncio's tasks and gather for Lua. The core is in C; this file is its front.
local agather = require "agather.core"

return agather
