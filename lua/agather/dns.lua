-- agather.dns: addresses of names and names of addresses, as the system finds them (hosts file, DNS, whatever
-- nsswitch.conf says). Look-ups run on libuv's threads; tasks that ask for the same name at the same time share one.
-- A task that is cancelled goes at once, but the system's resolver cannot be interrupted: a loop that closes, and a
-- program that ends, wait until it has given up what it is at.
local agather = require "agather"
local check = require "agather.check"
local uv = require "agather.uv"

local dns = {}

-- What a look-up gives stays good for five seconds, at most 256 of them; failures are not kept.
local resolve_options = { family = true, timeout = true, cache = true }
local reverse_options = { timeout = true, cache = true }

local function check_options(options, known, name)
  options = check.options(options, known, 2, name)
  if options.timeout ~= nil and type(options.timeout) ~= "number" then
    check.fail(2, name, "option 'timeout' must be a number, got " .. check.type_name(options.timeout))
  end
  if options.cache ~= nil and type(options.cache) ~= "boolean" then
    check.fail(2, name, "option 'cache' must be a boolean, got " .. check.type_name(options.cache))
  end
  return options
end

local function check_host(host)
  if type(host) ~= "string" then check.fail(1, "resolve", "string expected, got " .. check.type_name(host)) end
  if #host == 0 or #host > 253 then
    check.fail(1, "resolve", ("host name must have 1 to 253 bytes, got %d"):format(#host))
  end
  if host:find("\0", 1, true) then check.fail(1, "resolve", "host name contains a zero byte") end
end

-- Calls look_up(...), for [seconds] at most where they are given.
local function within(seconds, look_up, ...)
  if not seconds then return look_up(...) end
  local _ <close> = agather.timeout(seconds)
  return look_up(...)
end

---@class agather.dns.Address
---@field address string such as "192.0.2.1" or "2001:db8::1"; with "%interface" where it is link-local
---@field family "ipv4"|"ipv6"

--- The addresses of a host, in the system's order of preference: tables, as addresses go with their family, at least
--- one. Numeric addresses, and localhost with the names under it, are answered without a look-up.
--- Raises OSError (.code such as "EAI_NONAME", .address the name), TimeoutError.
---@async
---@param host string 1 to 253 bytes
---@param options? { family?: "ipv4"|"ipv6", timeout?: number, cache?: boolean } cache = false: ask anew
---@return agather.dns.Address[]
function dns.resolve(host, options)
  check_host(host)
  options = check_options(options, resolve_options, "resolve")
  local family = options.family
  if family ~= nil and family ~= "ipv4" and family ~= "ipv6" then
    check.fail(2, "resolve", ("option 'family' must be \"ipv4\" or \"ipv6\", got %s"):format(tostring(family)))
  end
  return within(options.timeout, uv.resolve, host, family, options.cache == false)
end

--- The name of a numeric address. Raises OSError (EAI_NONAME: it has none), TimeoutError.
---@async
---@param address string
---@param options? { timeout?: number, cache?: boolean } cache = false: ask anew
---@return string
function dns.reverse(address, options)
  if type(address) ~= "string" then
    check.fail(1, "reverse", "string expected, got " .. check.type_name(address))
  end
  if address:find("\0", 1, true) or not uv.family(address) then
    check.fail(1, "reverse", ("numeric address expected, got '%s'"):format(address))
  end
  options = check_options(options, reverse_options, "reverse")
  return within(options.timeout, uv.reverse, address, options.cache == false)
end

--- Forgets all answers. Who waits goes on to wait; who asks from now on asks anew.
function dns.clear_cache() uv.clear_dns_cache() end

return dns
