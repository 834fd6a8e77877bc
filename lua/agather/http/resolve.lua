-- Names to addresses for the requests of a loop: those that ask for one name at one time share a look-up, and an answer
-- holds for some seconds.
local agather = require "agather"
local curl = require "agather.curl"

local KEPT = 10 -- seconds
local MOST = 1000 -- names kept

-- loop -> host -> { addresses, good_until } or { task }
local known = setmetatable({}, { __mode = "k" })

local function names_of(loop)
  local names = known[loop]
  if not names then
    names = { count = 0, entries = {} }
    known[loop] = names
  end
  return names
end

local function remember(names, host, addresses, good_until)
  if names.count >= MOST then names.count, names.entries = 0, {} end
  if not names.entries[host] then names.count = names.count + 1 end
  names.entries[host] = { addresses = addresses, good_until = good_until }
end

local function look_up(names, loop, host)
  local addresses, problem = curl.resolve(host)
  if addresses then
    remember(names, host, addresses, loop:time() + KEPT)
  else
    names.entries[host] = nil
  end
  return addresses, problem
end

--- The numeric addresses of a host (those of IPv6 in brackets); nil and what is wrong where it has none.
---@async
---@param host string
---@return string[]? addresses
---@return string? problem
return function(host)
  local loop = agather.get_running_loop()
  local names = names_of(loop)
  local entry = names.entries[host]
  if entry and entry.addresses and entry.good_until > loop:time() then return entry.addresses end
  if not (entry and entry.task) then
    entry = { task = agather.spawn(look_up, names, loop, host) }
    names.entries[host] = entry
  end
  return agather.await(agather.shield(entry.task))
end
