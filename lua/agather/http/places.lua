-- Places: how many requests of a client may be under way, in all and to one host.
local agather = require "agather"
local hops = require "agather.http.hop"

local function acquire(client, hop)
  local gate = client.gate
  if not gate then return end
  if gate:locked() then
    hops.in_time({ limits = { timeout_total = hop.limits.timeout_total }, ends_at = hop.ends_at, method = hop.method,
      url = hop.url }, gate.acquire, gate)
  else
    gate:acquire()
  end
end

-- The gate of a host: few requests at a time to each.
local function gate_of(client, hop)
  local per_host = client.settings.limits.max_per_host
  if not per_host then return nil end
  local key = hop.target.host .. ":" .. hop.target.port
  local entry = client.hosts[key]
  if not entry then
    entry = { gate = agather.Semaphore(per_host), users = 0 }
    client.hosts[key] = entry
  end
  entry.users = entry.users + 1
  return entry, key
end

-- The places in the client's gates that a request holds.
local Places = {}
Places.__index = Places

function Places:give_back()
  if self.held then self.client.gate:release() end
  if self.host_held then self.entry.gate:release() end
  self.held, self.host_held = false, false
  local entry = self.entry
  if entry then
    entry.users = entry.users - 1
    if entry.users == 0 then self.client.hosts[self.key] = nil end
    self.entry = nil
  end
end

Places.__close = Places.give_back

-- Waits for the places that the client's limits ask for.
function Places:take(hop)
  if self.entry then
    acquire(self.entry, hop)
    self.host_held = true
  end
  acquire(self.client, hop)
  self.held = self.client.gate ~= nil
end

--- The places that a request needs, not taken yet: `places:take(hop)` waits for them.
return function(client, hop)
  local entry, key = gate_of(client, hop)
  return setmetatable({ client = client, entry = entry, key = key }, Places)
end
