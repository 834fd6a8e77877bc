-- Connections, servers and datagrams whose system calls fail: see faults_net_spec.lua.
local agather = require "agather"
local faults = require "spec.support.faults"
local net = agather.net

local long = ("x"):rep(100000)

local function answer(stream)
  local line = stream:read("l")
  stream:write(line, "\n", long)
  stream:shutdown()
  assert(not stream:read("l"))
end

local function ask(stream)
  stream:write("a line\n")
  assert(stream:read("l") == "a line")
  assert(stream:read("a") == long)
end

-- Both ends of a connection; the first error is the one.
local function talk(listener, connect)
  agather.gather(function()
    local stream <close> = listener:accept()
    answer(stream)
  end, function()
    local stream <close> = connect()
    ask(stream)
  end, { cancel_on_error = true }):await()
end

local SOCKET = { name = "socket", raises = "EACCES EAFNOSUPPORT EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT",
  either = "EINVAL" }

-- What is of the connection that was to be accepted, and what may be over when some other descriptor is closed.
local LOST = "EINTR EAGAIN ECONNABORTED EPERM EPROTO ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH"
local SCARCE = "EMFILE ENFILE ENOBUFS ENOMEM"

-- One that is not made leaves the descriptor open, so the other side may wait for the end in vain.
local CLOSE = { name = "close", hides = "EBADF EINTR EIO ENOSPC EDQUOT", follow = "TimeoutError", longest = 0.1 }

-- Of all streams.
local function streams(...)
  return {
    { name = "read", raises = "EBADF EFAULT EINVAL EIO ECONNRESET ETIMEDOUT ENOTCONN ENOMEM", hides = "EINTR EAGAIN" },
    { name = "write", raises = "EBADF EDESTADDRREQ EFAULT EINVAL EIO EPERM EPIPE ECONNRESET ENOMEM",
      hides = "EINTR EAGAIN ENOBUFS" },
    { name = "writev", raises = "EBADF EFAULT EINVAL EIO EPERM EPIPE ECONNRESET ENOMEM",
      hides = "EINTR EAGAIN ENOBUFS" },
    { name = "shutdown", hides = "EBADF EINVAL ENOTCONN ENOTSOCK", follow = "TimeoutError", longest = 0.1 },
    { name = "listen", raises = "EADDRINUSE EBADF ENOTSOCK EOPNOTSUPP" },
    { name = "epoll_wait", hides = "EINTR" },
    SOCKET, CLOSE, ...,
  }
end

faults.sweep {
  name = "TCP",
  run = function()
    local listener <close> = net.listen("127.0.0.1", 0)
    local _, port = listener:local_address()
    talk(listener, function() return net.connect("127.0.0.1", port) end)
  end,
  calls = streams(
    { name = "accept4", raises = SCARCE .. " EBADF EFAULT EINVAL ENOTSOCK EOPNOTSUPP", hides = LOST },
    { name = "connect", hides = "EINTR",
      raises = "EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED EFAULT EISCONN "
        .. "ENETUNREACH ENOTSOCK EPROTOTYPE ETIMEDOUT" },
    { name = "bind", raises = "EACCES EADDRINUSE EBADF EINVAL ENOTSOCK EADDRNOTAVAIL EFAULT ENOMEM" },
    { name = "setsockopt", either = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK ENOMEM ENOBUFS" },
    { name = "getsockname", either = "EBADF EFAULT EINVAL ENOBUFS ENOTSOCK" },
    { name = "ioctl", either = "EBADF EFAULT EINVAL ENOTTY" }
  ),
}

local path = os.tmpname()
os.remove(path)

faults.sweep {
  name = "Unix sockets",
  run = function()
    local listener <close> = net.listen_unix(path, { replace = true })
    talk(listener, function() return net.connect_unix(path) end)
  end,
  calls = streams(
    { name = "accept4", raises = SCARCE .. " EBADF EFAULT EINVAL ENOTSOCK EOPNOTSUPP", hides = LOST },
    { name = "connect", hides = "EINTR",
      raises = "EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED EFAULT EISCONN "
        .. "ENETUNREACH ENOTSOCK EPROTOTYPE ETIMEDOUT" },
    { name = "bind",
      raises = "EACCES EADDRINUSE EBADF EINVAL ENOTSOCK EADDRNOTAVAIL EFAULT ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR "
        .. "EROFS" },
    { name = "fchmod", raises = "EIO EBADF EPERM EROFS" },
    { name = "newfstatat", either = "EACCES EBADF EFAULT ELOOP ENOENT ENOMEM ENOTDIR EOVERFLOW" },
    { name = "ioctl", either = "EBADF EFAULT EINVAL ENOTTY" }
  ),
}

faults.sweep {
  name = "UDP",
  run = function()
    local one <close> = net.udp { local_address = { "127.0.0.1", 0 }, receive_buffer = 65536, broadcast = true }
    local other <close> = net.udp { remote_address = { one:local_address() } }
    other:send("datagram")
    local data, host, port = one:recv()
    assert(data == "datagram")
    one:send("another", host, port)
    assert(other:recv() == "another")
  end,
  calls = {
    { name = "sendto", hides = "EINTR EAGAIN",
      raises = "EACCES EBADF ECONNRESET EDESTADDRREQ EFAULT EINVAL EISCONN EMSGSIZE ENOBUFS ENOMEM ENOTCONN ENOTSOCK "
        .. "EOPNOTSUPP EPIPE" },
    { name = "recvfrom", hides = "EINTR EAGAIN",
      raises = "EBADF ECONNREFUSED EFAULT EINVAL ENOMEM ENOTCONN ENOTSOCK" },
    { name = "bind", raises = "EACCES EADDRINUSE EBADF EINVAL ENOTSOCK EADDRNOTAVAIL EFAULT ENOMEM" },
    { name = "connect", raises = "EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EBADF EFAULT ENETUNREACH" },
    { name = "setsockopt", raises = "EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK ENOMEM ENOBUFS" },
    { name = "getsockname", raises = "EBADF EFAULT EINVAL ENOBUFS ENOTSOCK" },
    { name = "ioctl", either = "EBADF EFAULT EINVAL ENOTTY" },
    SOCKET, CLOSE,
  },
}

faults.report()
