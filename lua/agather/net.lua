-- agather.net: TCP and Unix sockets, clients and servers. Streams and listeners are in C (src/uv); here are the options,
-- names and what is put together of them.
local agather = require "agather"
local check = require "agather.check"
local server = require "agather.server"
local uv = require "agather.uv"
require "agather.stream" -- gives streams the methods that are written in Lua

local net = {
  pair = require "agather.memory_pair",
}

-- ---- arguments ----

local function set(names)
  local known = {}
  for name in names:gmatch("%S+") do known[name] = true end
  return known
end

local connect_options = set "timeout local_address nodelay keepalive family happy_eyeballs_delay tls"
local connect_unix_options = set "timeout tls"
local listen_options = set "backlog reuseport nodelay keepalive tls on_error"
local listen_unix_options = set "backlog mode replace tls on_error"
local start_options = set "backlog reuseport nodelay keepalive max_connections on_error tls"
local start_unix_options = set "backlog mode replace max_connections on_error tls"
local serve_options = set "backlog reuseport nodelay keepalive max_connections on_error tls on_listen"
local serve_unix_options = set "backlog mode replace max_connections on_error tls on_listen"

local DEFAULT_BACKLOG, DEFAULT_KEEPALIVE, DEFAULT_DELAY = 511, 60, 0.25
local MOST_KEEPALIVE = 32767 -- the system's

local function check_host(host, name)
  if type(host) ~= "string" then check.fail(1, name, "host expected, got " .. check.type_name(host)) end
  if host == "" or #host > 253 then check.fail(1, name, "host name must have 1 to 253 bytes") end
  if host:find("\0", 1, true) then check.fail(1, name, "host name contains a zero byte") end
end

local function check_port(port, name)
  if math.type(port) ~= "integer" then
    local given = type(port) == "number" and tostring(port) or check.type_name(port)
    check.fail(2, name, "port expected, got " .. given)
  end
  if port < 0 or port > 65535 then check.fail(2, name, ("port must be from 0 to 65535, got %d"):format(port)) end
end

local function check_path(path, name)
  if type(path) ~= "string" then check.fail(1, name, "path expected, got " .. check.type_name(path)) end
  if path == "" or #path > 107 then check.fail(1, name, "path of a socket must have 1 to 107 bytes") end
  if path:find("\0", 1, true) then check.fail(1, name, "path contains a zero byte") end
end

-- A boolean option; [otherwise] is its default.
local function flag(options, option, otherwise, position, name)
  local value = options[option]
  if value == nil then return otherwise end
  if type(value) ~= "boolean" then
    check.fail(position, name, ("option '%s' must be a boolean, got %s"):format(option, check.type_name(value)))
  end
  return value
end

-- Seconds until the system asks a silent peer whether it is there, or 0.
local function keepalive_of(options, position, name)
  local value = options.keepalive
  if not value then return 0 end
  if value == true then return DEFAULT_KEEPALIVE end
  check.count(value, position, name, "keepalive")
  return math.min(value, MOST_KEEPALIVE)
end

local function backlog_of(options, position, name)
  local value = options.backlog
  if value == nil then return DEFAULT_BACKLOG end
  check.count(value, position, name, "backlog")
  return math.min(value, 0x7fffffff)
end

local function check_seconds_option(options, option, position, name)
  local value = options[option]
  if value ~= nil and (type(value) ~= "number" or value ~= value or value < 0) then
    check.fail(position, name, ("option '%s' must be a number of seconds, got %s"):format(option, tostring(value)))
  end
  return value
end

local function check_functions(options, position, name)
  for _, option in ipairs { "on_error", "on_listen" } do
    local value = options[option]
    if value ~= nil and type(value) ~= "function" then
      check.fail(position, name, ("option '%s' must be a function, got %s"):format(option, check.type_name(value)))
    end
  end
end

-- What the option tls makes of a stream: a function, or nil. [side] is "prepare_client" or "prepare_server"; [host] is
-- whom a client expects.
local function tls_of(options, side, position, name, host)
  local value = options.tls
  if not value then return nil end
  if value ~= true and type(value) ~= "table" then
    check.fail(position, name, "option 'tls' must be a boolean or a table, got " .. check.type_name(value))
  end
  local at = { position = position, name = name, prefix = "tls." }
  return agather.tls[side](value == true and {} or value, at, host)
end

-- ---- connecting ----

---@class agather.ConnectOptions
---@field timeout? number seconds for all of it
---@field family? "ipv4"|"ipv6"
---@field happy_eyeballs_delay? number seconds that an attempt has alone (0.25)
---@field local_address? string|table a numeric address, or { address, port }
---@field nodelay? boolean true: small writes are sent at once
---@field keepalive? boolean|integer true, or seconds of silence after which the system asks the peer
---@field tls? boolean|table true, or options of agather.tls

---@class agather.ListenOptions
---@field backlog? integer connections that wait in the system (511)
---@field reuseport? boolean other sockets may listen on the same port and share its connections
---@field nodelay? boolean for what is accepted: true
---@field keepalive? boolean|integer for what is accepted, as for connect
---@field tls? table options of agather.tls: what is accepted has shaken hands
---@field on_error? fun(err: any, peer: string) for listen with tls: a handshake failed

---@class agather.ListenUnixOptions
---@field backlog? integer connections that wait in the system (511)
---@field mode? integer of the socket's file (0600)
---@field replace? boolean a socket that an ended process has left there gives way

---@class agather.ServerOptions: agather.ListenOptions
---@field max_connections? integer at a time, with those that still send what was written; others wait in the system
---@field on_error? fun(err: any, peer?: string) for errors of handlers; without it the loop's exception handler has them
---@field tls? table options of agather.tls
---@field on_listen? fun(server: agather.Server) for serve: it listens now

---@class agather.UnixServerOptions: agather.ListenUnixOptions
---@field max_connections? integer at a time, with those that still send what was written; others wait in the system
---@field on_error? fun(err: any, peer?: string)
---@field tls? table
---@field on_listen? fun(server: agather.Server)

-- f(...), or after so many seconds a TimeoutError that says what took so long.
local function within(seconds, what, f, ...)
  if not seconds then return f(...) end
  local arguments, scope = table.pack(...), nil
  local ok, result = pcall(function()
    scope = agather.timeout(seconds)
    local _ <close> = scope
    return f(table.unpack(arguments, 1, arguments.n))
  end)
  if ok then return result end
  if scope:expired() and agather.is_error(result, agather.TimeoutError) then
    result = agather.TimeoutError(("%s: no answer in %g s"):format(what, seconds))
  end
  error(result, 0)
end

-- The addresses with the families in turn, beginning with that of the first (RFC 8305, section 4).
local function interleave(addresses)
  local lists = { ipv4 = {}, ipv6 = {} }
  for _, address in ipairs(addresses) do
    local list = lists[uv.family(address)]
    list[#list + 1] = address
  end
  local first = lists[uv.family(addresses[1])]
  local second = first == lists.ipv4 and lists.ipv6 or lists.ipv4
  local mixed = {}
  for place = 1, math.max(#first, #second) do
    mixed[#mixed + 1] = first[place]
    mixed[#mixed + 1] = second[place]
  end
  return mixed
end

local function addresses_of(host, family)
  local numeric = uv.family(host)
  if numeric and (not family or family == numeric) then return { host } end
  return interleave(uv.lookup(host, family))
end

local function connect(host, port, what, options)
  local addresses = addresses_of(host, options.family)
  local stream = uv.connect(addresses, port, what, options.delay, options.nodelay, options.keepalive,
    options.local_host, options.local_port)
  if options.tls then return options.tls(stream) end
  return stream
end

--- Connects to a host by TCP: to the first of its addresses that answers, where one that takes longer than
--- happy_eyeballs_delay is joined by the next. Raises OSError; TimeoutError after opts.timeout seconds.
---@async
---@param host string name or numeric address
---@param port integer
---@param opts? agather.ConnectOptions
---@return agather.Stream
function net.connect(host, port, opts)
  check_host(host, "connect")
  check_port(port, "connect")
  opts = check.options(opts, connect_options, 3, "connect")
  local timeout = check_seconds_option(opts, "timeout", 3, "connect")
  local from = opts.local_address
  if from ~= nil and type(from) ~= "table" then from = { from, 0 } end
  if from and (type(from[1]) ~= "string" or not uv.family(from[1])) then
    check.fail(3, "connect", "option 'local_address' must be a numeric address, got " .. tostring(from[1]))
  end
  local from_port = from and from[2] or 0
  if math.type(from_port) ~= "integer" or from_port < 0 or from_port > 65535 then
    check.fail(3, "connect", "option 'local_address' needs a port from 0 to 65535, got " .. tostring(from_port))
  end
  if opts.family ~= nil and opts.family ~= "ipv4" and opts.family ~= "ipv6" then
    check.fail(3, "connect", "option 'family' must be \"ipv4\" or \"ipv6\", got " .. tostring(opts.family))
  end
  local what = (host:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(host, port)
  local from_family = from and uv.family(from[1])
  if opts.family and from_family and opts.family ~= from_family then
    check.fail(3, "connect", ("local_address %s is not of the family %s"):format(from[1], opts.family))
  end
  return within(timeout, "connect " .. what, connect, host, port, what, {
    family = opts.family or from_family,
    delay = check_seconds_option(opts, "happy_eyeballs_delay", 3, "connect") or DEFAULT_DELAY,
    nodelay = flag(opts, "nodelay", true, 3, "connect"),
    keepalive = keepalive_of(opts, 3, "connect"),
    local_host = from and from[1], local_port = from_port,
    tls = tls_of(opts, "prepare_client", 3, "connect", host),
  })
end

local function connect_unix(path, tls)
  local stream = uv.connect_unix(path)
  if tls then return tls(stream) end
  return stream
end

--- Connects to a Unix socket. Raises OSError; TimeoutError after opts.timeout seconds.
---@async
---@param path string
---@param opts? { timeout?: number, tls?: boolean|table }
---@return agather.Stream
function net.connect_unix(path, opts)
  check_path(path, "connect_unix")
  opts = check.options(opts, connect_unix_options, 2, "connect_unix")
  local timeout = check_seconds_option(opts, "timeout", 2, "connect_unix")
  return within(timeout, "connect " .. path, connect_unix, path,
    tls_of(opts, "prepare_client", 2, "connect_unix"))
end

-- ---- listening ----

-- A listener for options that were checked to be known.
local function listen(host, port, opts, position, name)
  check_host(host, name)
  check_port(port, name)
  local backlog, reuseport = backlog_of(opts, position, name), flag(opts, "reuseport", false, position, name)
  local nodelay, keepalive = flag(opts, "nodelay", true, position, name), keepalive_of(opts, position, name)
  local address = host
  if host == "localhost" then
    address = "127.0.0.1"
  elseif not uv.family(host) then
    address = uv.lookup(host)[1]
  end
  return uv.listen(address, port, backlog, reuseport, nodelay, keepalive)
end

local function listen_unix(path, opts, position, name)
  check_path(path, name)
  local mode = opts.mode == nil and 384 or opts.mode -- 0600
  if math.type(mode) ~= "integer" or mode < 0 or mode > 511 then
    check.fail(position, name, "option 'mode' must be an integer up to 511 (octal 777), got " .. tostring(mode))
  end
  return uv.listen_unix(path, backlog_of(opts, position, name), mode, flag(opts, "replace", false, position, name))
end

local function itself(listener) return listener end

-- What the options tls and on_error make of a listener.
local function secure(opts, position, name)
  check_functions(opts, position, name)
  local prepare = tls_of(opts, "prepare_server", position, name)
  if not prepare then
    if opts.on_error then check.fail(position, name, "option 'on_error' needs 'tls'") end
    return itself
  end
  return function(listener) return require "agather.tls_listener"(listener, prepare, opts.on_error) end
end

--- Listens on one address: a numeric one, "localhost" (127.0.0.1), or the first that a name has. Port 0: any free one.
--- The listener has accept(), local_address() and close(). Raises OSError.
---@async
---@param host string
---@param port integer
---@param opts? agather.ListenOptions
---@return agather.Listener|agather.tls.Listener
function net.listen(host, port, opts)
  opts = check.options(opts, listen_options, 3, "listen")
  local secured = secure(opts, 3, "listen")
  return secured(listen(host, port, opts, 3, "listen"))
end

--- Listens on a Unix socket, whose file only its owner may use unless mode says otherwise (0600). The file goes when
--- the listener is closed. Raises OSError.
---@param path string
---@param opts? agather.ListenUnixOptions
---@return agather.Listener|agather.tls.Listener
function net.listen_unix(path, opts)
  opts = check.options(opts, listen_unix_options, 2, "listen_unix")
  local secured = secure(opts, 2, "listen_unix")
  return secured(listen_unix(path, opts, 2, "listen_unix"))
end

-- ---- serving ----

-- What server.new takes, of options that were checked to be known.
local function server_settings(opts, position, name)
  if opts.max_connections ~= nil then check.count(opts.max_connections, position, name, "max_connections") end
  check_functions(opts, position, name)
  return {
    max_connections = opts.max_connections,
    on_error = opts.on_error,
    prepare = tls_of(opts, "prepare_server", position, name),
  }
end

local function new_server(host, port, handler, opts, name)
  local settings = server_settings(opts, 4, name)
  return server.new(listen(host, port, opts, 4, name), handler, settings)
end

local function new_unix_server(path, handler, opts, name)
  local settings = server_settings(opts, 3, name)
  return server.new(listen_unix(path, opts, 3, name), handler, settings)
end

--- A server that listens and does not accept yet: call serve_forever. Each connection gets a task that runs
--- handler(stream) and a stream that is closed when it returns. An error of a handler ends its connection: it goes to
--- on_error(err, peer), or to the loop's exception handler.
---@async
---@param host string
---@param port integer 0 for any free one
---@param handler fun(stream: agather.Stream)
---@param opts? agather.ServerOptions
---@return agather.Server
function net.start_server(host, port, handler, opts)
  check.callable(handler, 3, "start_server")
  return new_server(host, port, handler, check.options(opts, start_options, 4, "start_server"), "start_server")
end

--- The same on a Unix socket; see listen_unix.
---@param path string
---@param handler fun(stream: agather.Stream)
---@param opts? agather.UnixServerOptions
---@return agather.Server
function net.start_unix_server(path, handler, opts)
  check.callable(handler, 2, "start_unix_server")
  opts = check.options(opts, start_unix_options, 3, "start_unix_server")
  return new_unix_server(path, handler, opts, "start_unix_server")
end

local function serve(started, on_listen)
  local running <close> = started
  if on_listen then on_listen(running) end
  running:serve_forever()
end

--- start_server and serve_forever in one: serves until the calling task is cancelled, which ends handlers too, or until
--- the server, which on_listen gets, is closed or shut down.
---@async
---@param host string
---@param port integer 0 for any free one
---@param handler fun(stream: agather.Stream)
---@param opts? agather.ServerOptions
function net.serve(host, port, handler, opts)
  check.callable(handler, 3, "serve")
  opts = check.options(opts, serve_options, 4, "serve")
  serve(new_server(host, port, handler, opts, "serve"), opts.on_listen)
end

--- The same on a Unix socket.
---@async
---@param path string
---@param handler fun(stream: agather.Stream)
---@param opts? agather.UnixServerOptions
function net.serve_unix(path, handler, opts)
  check.callable(handler, 2, "serve_unix")
  opts = check.options(opts, serve_unix_options, 3, "serve_unix")
  serve(new_unix_server(path, handler, opts, "serve_unix"), opts.on_listen)
end

-- ---- datagrams ----

local udp_options = set "local_address remote_address family reuseport broadcast receive_buffer"

-- An address option: nil, or { host, port }; a name is looked up.
local function udp_address(options, option, family)
  local value = options[option]
  if value == nil then return nil end
  if type(value) ~= "table" or type(value[1]) ~= "string" then
    check.fail(1, "udp", ("option '%s' must be { host, port }, got %s"):format(option, check.type_name(value)))
  end
  local port = value[2]
  if math.type(port) ~= "integer" or port < 0 or port > 65535 then
    check.fail(1, "udp", ("option '%s' must have a port from 0 to 65535, got %s"):format(option, tostring(port)))
  end
  check_host(value[1], "udp")
  return uv.family(value[1]) and value[1] or uv.lookup(value[1], family)[1], port
end

---@class agather.UDPOptions
---@field local_address? table { host, port } to receive at; port 0: any free one
---@field remote_address? table { host, port }: only with this peer
---@field family? "ipv4"|"ipv6" where no address tells (ipv4)
---@field reuseport? boolean
---@field broadcast? boolean
---@field receive_buffer? integer bytes that the system keeps for recv; more is dropped and counted

--- A socket for datagrams: send(data [, host, port]), recv() -> data, host, port, dropped(), local_address(),
--- peer_address(), close(). Raises OSError.
---@async
---@param opts? agather.UDPOptions
---@return agather.UDP
function net.udp(opts)
  opts = check.options(opts, udp_options, 1, "udp")
  if opts.family ~= nil and opts.family ~= "ipv4" and opts.family ~= "ipv6" then
    check.fail(1, "udp", "option 'family' must be \"ipv4\" or \"ipv6\", got " .. tostring(opts.family))
  end
  if opts.receive_buffer ~= nil then check.count(opts.receive_buffer, 1, "udp", "receive_buffer") end
  local reuseport, broadcast = flag(opts, "reuseport", false, 1, "udp"), flag(opts, "broadcast", false, 1, "udp")
  local remote, remote_port = udp_address(opts, "remote_address", opts.family)
  local here, port = udp_address(opts, "local_address", opts.family or remote and uv.family(remote))
  local family = opts.family or uv.family(remote or here or "127.0.0.1")
  for _, host in ipairs { remote or here, here } do
    if uv.family(host) ~= family then check.fail(1, "udp", ("address %s is not of the family %s"):format(host, family)) end
  end
  return uv.udp(family == "ipv6", here, port, remote, remote_port, reuseport, broadcast,
    opts.receive_buffer and math.min(opts.receive_buffer, 0x7fffffff))
end

return net
