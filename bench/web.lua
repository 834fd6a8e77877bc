-- nginx for the clients that are measured: one process that serves a small file from memory, on a free port.
local shell = require "bench.shell"

local web = {}

local configuration = [[
pid %s/pid; error_log %s/error.log; worker_processes 1; daemon on;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; open_file_cache max=10;
  client_body_temp_path %s/1; proxy_temp_path %s/2; fastcgi_temp_path %s/3; uwsgi_temp_path %s/4; scgi_temp_path %s/5;
  server {
    listen 127.0.0.1:%d;
    location / { default_type text/plain; return 200 "Hello, World!"; }
  }
}
]]

-- The first port of some that nginx can have.
local function start_at_free_port(directory)
  local complaint
  for port = 18080, 18180 do
    shell.write_file(directory .. "/nginx.conf", (configuration:gsub("%%s", directory):gsub("%%d", port)))
    local ok, message = shell.capture(("PATH=$PATH:/usr/sbin nginx -p %s -c %s/nginx.conf"):format(directory, directory))
    if ok then return port end
    complaint = message
    if not complaint:find("bind%(%)") then break end
  end
  return nil, complaint
end

--- Starts it; returns its URL and a function that ends it, or nil and why not.
function web.start()
  if not shell.capture("PATH=$PATH:/usr/sbin command -v nginx") then return nil, "nginx is not installed" end
  local directory = assert(shell.capture("mktemp -d"))
  local port, message = start_at_free_port(directory)
  local function stop()
    shell.capture(("kill $(cat %s/pid); rm -rf %s"):format(directory, directory))
  end
  if not port then
    stop()
    return nil, message
  end
  return ("http://127.0.0.1:%d/"):format(port), stop
end

return web
