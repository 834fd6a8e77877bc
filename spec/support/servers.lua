-- Servers for specs of HTTP: one of our own on agather.net that does what it is told, nginx, and python3's http.server.
local agather = require "agather"

local servers = {}

--- Whether sanitizers or an eager collector make everything slower: limits of time are of no use then.
servers.slow = package.searchpath("agather.core", package.cpath):find("asan", 1, true) ~= nil
  or os.getenv("AGATHER_COLLECTOR") ~= nil

local function shell(command)
  -- What the sanitizers preload is for our process alone.
  local pipe = assert(io.popen("unset LD_PRELOAD; { " .. command .. "\n} 2>&1"))
  local text = pipe:read("a")
  if not pipe:close() then error("failed: " .. command .. "\n" .. text, 2) end
  return text
end

local function new_directory()
  local directory = os.tmpname()
  os.remove(directory)
  shell("mkdir -m 755 " .. directory)
  return directory
end

local function write_file(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

--- Two free ports of 127.0.0.1: taken and given back.
---@return integer port, integer other_port
function servers.free_ports()
  return agather.run(function()
    local listener <close> = agather.net.listen("127.0.0.1", 0)
    local other <close> = agather.net.listen("127.0.0.1", 0)
    return (select(2, listener:local_address())), (select(2, other:local_address()))
  end)
end

-- ---- our own ----

local function read_chunked(stream)
  local pieces = {}
  while true do
    local size = tonumber(stream:read("l"):match("^%x+"), 16)
    local piece = size > 0 and stream:read_exactly(size) or ""
    stream:read("l")
    if size == 0 then return table.concat(pieces), #pieces end
    pieces[#pieces + 1] = piece
  end
end

--- Reads a request: a table with method, target, head (all of it), headers (lowercase name -> value), body; nil at the
--- end.
function servers.read_request(stream)
  local first = stream:read("L")
  if not first then return nil end
  local request = { headers = {} }
  request.method, request.target = first:match("^(%S+) (%S+)")
  local lines = { first }
  while true do
    local line = stream:read("L")
    if not line or line == "\r\n" then break end
    lines[#lines + 1] = line
    local name, value = line:match("^([^:]+):%s*(.-)\r\n$")
    name = name:lower()
    request.headers[name] = request.headers[name] and request.headers[name] .. ", " .. value or value
  end
  request.head = table.concat(lines)
  local length = math.tointeger(tonumber(request.headers["content-length"]))
  if length and length > 1 << 30 then return request end
  if length then
    request.body = length > 0 and stream:read_exactly(length) or ""
  elseif request.headers["transfer-encoding"] == "chunked" then
    request.body, request.pieces = read_chunked(stream)
  end
  return request
end

--- Writes a response with a length; [headers] is text with line ends.
function servers.respond(stream, status, headers, body)
  stream:write(("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s"):format(status, headers or "", #(body or ""), body or ""))
end

--- Starts a server in the running loop. [handle](request, stream) answers each request, connections stay open while it
--- returns true. Returns the base URL, and a table with connections (how many came), requests, and stop().
function servers.own(handle)
  local address = agather.future()
  local state = { connections = 0, requests = {} }
  local server = agather.spawn(agather.net.serve, "127.0.0.1", 0, function(stream)
    state.connections = state.connections + 1
    agather.pcall(function()
      while true do
        local request = servers.read_request(stream)
        if not request then return end
        state.requests[#state.requests + 1] = request
        if handle(request, stream) ~= true then return end
      end
    end)
  end, { on_listen = function(listener) address:set_result(listener:local_address()) end })
  local _, port = address:await()
  state.port = port
  function state.stop()
    server:cancel()
    pcall(agather.await, server)
  end
  return "http://127.0.0.1:" .. port, state
end

--- Runs client(base_url, state) beside such a server, and ends both.
function servers.with(handle, client)
  return agather.run(function()
    local base, state = servers.own(handle)
    local results = table.pack(client(base, state))
    state.stop()
    return table.unpack(results, 1, results.n)
  end)
end

-- ---- nginx ----

local function have(command) return (os.execute("command -v " .. command .. " >/dev/null 2>&1")) end

-- A certificate authority and a certificate of its for localhost and 127.0.0.1.
local function make_certificates(directory)
  write_file(directory .. "/names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
  shell(([[cd %s && export OPENSSL_CONF=/etc/ssl/openssl.cnf
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=agather test CA" -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem]])
    :format(directory))
end

local configuration = [[
pid DIR/pid; error_log DIR/error.log; worker_processes 1;
events { worker_connections 4096; }
http {
  access_log off; root DIR/html; keepalive_requests 1000000; default_type application/octet-stream;
  client_body_temp_path DIR/1; proxy_temp_path DIR/2; fastcgi_temp_path DIR/3; uwsgi_temp_path DIR/4; scgi_temp_path DIR/5;
  types { text/html html; text/plain txt; application/json json; }
  gzip on; gzip_min_length 100; gzip_types text/plain;
  server {
    listen 127.0.0.1:PORT; listen 127.0.0.1:TLS ssl http2; listen 127.0.0.2:TLS ssl http2; server_name localhost;
    ssl_certificate DIR/server.pem; ssl_certificate_key DIR/server.key;
    location /private { auth_basic "here"; auth_basic_user_file DIR/users; }
    location /moved { return 302 /hello.txt; }
    location /plain { return 302 http://localhost:PORT/hello.txt; }
    location /secure { return 302 https://localhost:TLS/hello.txt; }
    location /slow { limit_rate 1000; }
    EXTRA
  }
}
]]

--- Starts nginx with the files given (name -> content) and TLS and HTTP/2 under a certificate of an authority of its
--- own. Returns a table: url, tls_url, ca (a file), port, tls_port, directory, stop(); or nil where it is not installed.
function servers.nginx(files, extra)
  if not (have("nginx") or have("/usr/sbin/nginx")) or not have("openssl") then return nil end
  local directory = new_directory()
  make_certificates(directory)
  shell("mkdir " .. directory .. "/html " .. directory .. "/html/private")
  for name, content in pairs(files) do write_file(directory .. "/html/" .. name, content) end
  write_file(directory .. "/users", "user:" .. shell("openssl passwd -apr1 'pass word'"))
  local port, tls_port
  for attempt = 1, 3 do
    port, tls_port = servers.free_ports()
    local text = configuration:gsub("EXTRA", extra or ""):gsub("DIR", directory):gsub("PORT", port):gsub("TLS", tls_port)
    write_file(directory .. "/nginx.conf", text)
    shell("chmod -R go+rX " .. directory)
    local ok, err = pcall(shell, ("PATH=$PATH:/usr/sbin nginx -p %s -c %s/nginx.conf"):format(directory, directory))
    if ok then break end
    -- Somebody else has taken one of the ports since.
    if attempt == 3 or not err:find("Address already in use", 1, true) then error(err, 2) end
  end
  return {
    url = "http://localhost:" .. port, tls_url = "https://localhost:" .. tls_port, ca = directory .. "/ca.pem",
    port = port, tls_port = tls_port, directory = directory,
    stop = function() shell(("kill $(cat %s/pid); rm -rf %s"):format(directory, directory)) end,
  }
end

-- ---- python ----

--- Starts python3's http.server over files; its URL and a function that ends it; nil where there is no python3.
function servers.python(files)
  if not have("python3") then return nil end
  local directory = new_directory()
  for name, content in pairs(files) do write_file(directory .. "/" .. name, content) end
  local program = "import http.server as s; s.ThreadingHTTPServer.request_queue_size = 512; "
    .. "s.test(s.SimpleHTTPRequestHandler, s.ThreadingHTTPServer, port=0, bind='127.0.0.1')"
  local pipe = assert(io.popen(("unset LD_PRELOAD; cd %s; echo $$; exec python3 -u -c \"%s\" 2>/dev/null"):format(directory, program)))
  local pid = pipe:read("l")
  local port = assert(pipe:read("l"):match("port (%d+)"))
  return "http://127.0.0.1:" .. port, function()
    os.execute("kill " .. pid)
    pipe:close()
    os.execute("rm -r " .. directory)
  end
end

-- ---- descriptors ----

--- How many descriptors this process has open: the least of three looks, as popen has another one for a moment.
function servers.descriptors()
  local least = math.huge
  for _ = 1, 3 do
    local pipe = assert(io.popen("sleep 0.01; ls /proc/$PPID/fd | wc -l"))
    least = math.min(least, tonumber(pipe:read("a")))
    pipe:close()
  end
  return least
end

return servers
