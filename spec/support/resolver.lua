-- Scripts that ask a name server of their own: dnsmasq, in a mount namespace in which /etc/resolv.conf names it.
local resolver = {}

local dnsmasq = "/usr/sbin/dnsmasq"

-- An address of the loopback network that nothing else uses, nor another run of the specs.
local function new_address()
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  local one, two, three = file:read(3):byte(1, 3)
  return ("127.%d.%d.%d"):format(64 + one // 2, two, 1 + three % 254)
end
local address = new_address()

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

--- Why there can be none, or nil.
---@return string?
function resolver.missing()
  local file = io.open(dnsmasq)
  if not file then return "dnsmasq is not installed" end
  file:close()
  if not os.execute("unshare -mpf true 2>/dev/null") then return "no mount namespace can be made here" end
end

--- Runs a script in a process of its own; returns what it printed, stderr after stdout, and the list of queries that
--- the name server got, such as "A one.test". It knows one.test (192.0.2.1, 2001:db8::1) and four.test (192.0.2.4);
--- none.test does not exist; silent.test is not answered, which ends with an error after a second.
---@param text string
---@return string output
---@return string[] queries
function resolver.script(text)
  local base = os.tmpname()
  write(base .. ".conf", "nameserver " .. address .. "\noptions timeout:1 attempts:1\n")
  write(base .. ".nss", "hosts: dns\n")
  write(base .. ".lua", "local agather = require \"agather\"\nlocal dns = agather.dns\n" .. text)
  -- silent.test is asked of a server that does not answer: a socket that nobody reads
  write(base .. ".sh", ([[
    set -e
    mount --bind BASE.conf /etc/resolv.conf
    mount --bind BASE.nss /etc/nsswitch.conf
    DNSMASQ --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= --no-daemon \
      --listen-address=ADDRESS --bind-interfaces --host-record=one.test,192.0.2.1,2001:db8::1 \
      --host-record=four.test,192.0.2.4 --local=/none.test/ --local=/9.2.0.192.in-addr.arpa/ \
      --server=/silent.test/ADDRESS#5353 --log-queries --log-facility=BASE.log \
      >/dev/null 2>&1 &
    perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0) && bind(S, pack_sockaddr_in(5353, inet_aton("ADDRESS")))
      && open(F, ">BASE.silent") && close(F) && sleep(20)' &
    tries=0
    until [ -e BASE.silent ] && getent ahostsv4 four.test >/dev/null; do
      tries=$((tries + 1))
      [ $tries -lt 500 ]
      sleep 0.01
    done
    : >BASE.log
    LD_PRELOAD=$SANITIZER timeout 10 lua5.4 BASE.lua 2>BASE.err
  ]]):gsub("BASE", base):gsub("DNSMASQ", dnsmasq):gsub("ADDRESS", address))
  -- Sanitizers are for the script alone. unshare heeds no other signal while it waits, and takes its child along.
  local pipe = assert(io.popen("SANITIZER=$LD_PRELOAD LD_PRELOAD= timeout -s KILL 20 unshare -mpf --kill-child sh "
    .. base .. ".sh"))
  local output = pipe:read("a")
  pipe:close()
  local queries = {}
  local log = io.open(base .. ".log") or error("the name server did not start")
  for line in log:lines() do
    local kind, name = line:match("query%[(%u+)%] (%S+)")
    if kind then queries[#queries + 1] = kind .. " " .. name end
  end
  log:close()
  local errors = assert(io.open(base .. ".err"))
  output = output .. errors:read("a")
  errors:close()
  for _, suffix in ipairs { "", ".conf", ".nss", ".lua", ".sh", ".log", ".silent", ".err" } do
    os.remove(base .. suffix)
  end
  return output, queries
end

return resolver
