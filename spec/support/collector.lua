-- A helper of busted: sets the garbage collector as AGATHER_COLLECTOR says, so that collections come as often as they
-- can. AGATHER_COLLECTOR=generational or incremental; unset: Lua's default.
local mode = os.getenv("AGATHER_COLLECTOR")
if mode == "generational" then
  collectgarbage("generational", 1, 1)
elseif mode == "incremental" then
  collectgarbage("incremental", 1)
end
