-- Servers, TLS and HTTP whose system calls fail: see faults_peers_spec.lua.
local agather = require "agather"
local certificates = require("spec.support.certificates").make()
local faults = require "spec.support.faults"
local http, net = agather.http, agather.net

local SCARCE = "EMFILE ENFILE ENOBUFS ENOMEM"
local LOST = "EINTR EAGAIN ECONNABORTED EPERM EPROTO ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH"

-- A server with its clients. What a handler raises ends the round; what accept meets while descriptors are scarce does not.
local function serve(handler, options, clients)
  local failed = agather.future()
  options.on_error = function(err, peer)
    if peer and not failed:done() then failed:set_exception(err) end
  end
  local server <close> = net.start_server("127.0.0.1", 0, handler, options)
  local _, port = server:local_address()
  agather.gather(function() server:serve_forever() end, function()
    clients(port)
    server:shutdown(1)
    if not failed:done() then failed:set_result() end
  end, failed, { cancel_on_error = true }):await()
end

local function echo(stream)
  for line in stream:lines() do stream:write(line, "\n") end
end

faults.sweep {
  name = "a server",
  run = function()
    serve(echo, { max_connections = 2 }, function(port)
      agather.map(function()
        local stream <close> = net.connect("127.0.0.1", port)
        stream:write("a line\n")
        assert(stream:read() == "a line")
      end, { 1, 2, 3 }, { cancel_on_error = true })
    end)
  end,
  follow = "ECONNRESET EPIPE assertion", -- of a client whose handler failed
  calls = {
    { name = "accept4", hides = SCARCE .. " " .. LOST, raises = "EBADF EFAULT EINVAL ENOTSOCK EOPNOTSUPP" },
    { name = "read", raises = "EIO ECONNRESET ETIMEDOUT", hides = "EINTR EAGAIN" },
    { name = "writev", raises = "EIO EPIPE ECONNRESET", hides = "EINTR EAGAIN" },
    { name = "socket", raises = "EMFILE ENFILE ENOBUFS ENOMEM" },
    { name = "connect", raises = "EADDRNOTAVAIL EAGAIN ECONNREFUSED ENETUNREACH ETIMEDOUT", hides = "EINTR" },
    { name = "setsockopt", either = "EINVAL ENOPROTOOPT ENOMEM" },
  },
}

faults.sweep {
  name = "TLS",
  run = function()
    serve(echo, { tls = { cert = certificates.server_pem, key = certificates.server_key } }, function(port)
      local stream <close> = net.connect("127.0.0.1", port,
        { tls = { ca = certificates.ca_pem, server_name = "a.example" } })
      stream:write("a line\n")
      assert(stream:read() == "a line")
    end)
  end,
  follow = "ECONNRESET EPIPE assertion UNEXPECTED_EOF",
  calls = {
    { name = "accept4", hides = "EMFILE ECONNABORTED EINTR EAGAIN", raises = "EBADF" },
    { name = "read", raises = "EIO ECONNRESET ETIMEDOUT", hides = "EINTR EAGAIN" },
    -- not EPIPE and ECONNRESET: after them reading comes to an end by itself, but not here, where the peer is still there
    { name = "write", raises = "EIO EPERM ENOMEM", hides = "EINTR EAGAIN ENOBUFS" },
    { name = "connect", raises = "EADDRNOTAVAIL EAGAIN ECONNREFUSED ENETUNREACH ETIMEDOUT", hides = "EINTR" },
  },
}

local function answer(stream)
  while true do
    local line
    repeat line = stream:read("L") until not line or line == "\r\n"
    if not line then return end
    stream:write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
  end
end

faults.sweep {
  name = "HTTP",
  run = function()
    serve(answer, {}, function(port)
      local client <close> = http.Client { timeout = 2 }
      for _ = 1, 2 do assert(client:get(("http://127.0.0.1:%d/"):format(port)):text() == "hello") end
    end)
  end,
  follow = "http ECONNRESET",
  calls = {
    { name = "socket", either = "EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT" },
    { name = "connect",
      either = "ETIMEDOUT EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED EFAULT "
        .. "EISCONN ENETUNREACH ENOTSOCK EPROTOTYPE EINTR" },
    { name = "sendto", either = "EACCES EBADF ECONNRESET EFAULT EINVAL ENOBUFS ENOMEM ENOTCONN ENOTSOCK EPIPE",
      hides = "EAGAIN EINTR" },
    { name = "recvfrom", either = "EBADF ECONNREFUSED ECONNRESET EFAULT EINVAL ENOMEM ENOTCONN ENOTSOCK",
      hides = "EAGAIN EINTR" },
    { name = "setsockopt", either = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK ENOMEM" },
    { name = "getsockopt", either = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK" },
    { name = "getsockname", either = "EBADF EFAULT EINVAL ENOBUFS ENOTSOCK" },
    { name = "getpeername", either = "EBADF EFAULT EINVAL ENOBUFS ENOTCONN ENOTSOCK" },
    { name = "fcntl", either = "EACCES EAGAIN EBADF EINVAL EMFILE EPERM" },
    { name = "poll", either = "EFAULT EINTR EINVAL ENOMEM" },
    { name = "socketpair", either = "EAFNOSUPPORT EFAULT EMFILE ENFILE EOPNOTSUPP EPROTONOSUPPORT" },
  },
}

certificates.remove()
faults.report()
