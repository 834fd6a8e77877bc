---@meta agather.net
-- Annotations of what agather.net gives and is written in C; nothing loads this file. Streams are annotated in
-- stream.lua: those in C have the same methods. spec/lua/net_spec.lua checks that names agree.

---@class agather.Listener what net.listen and net.listen_unix give
local Listener = {}
--- The next connection. One task accepts at a time. Raises OSError: with EMFILE, ENFILE, ENOBUFS or ENOMEM the
--- connection waits in the system, and another accept may get it.
---@async
---@return agather.Stream
function Listener:accept() end
--- Host and port, or the path of a Unix socket.
---@return string host
---@return integer? port
function Listener:local_address() end
--- Accepts no more; removes the file of a Unix socket. Who accepts gets an OSError (EBADF). Twice is harmless.
function Listener:close() end

---@class agather.UDP what net.udp gives
local UDP = {}
--- The next datagram, with the host and port that sent it. One task receives at a time. Raises OSError: on a connected
--- socket also ECONNREFUSED, where nobody listens at the other side.
---@async
---@return string data
---@return string host
---@return integer port
function UDP:recv() end
--- Sends one datagram; waits where the system has no room. Host and port go where the socket is not connected. Raises
--- OSError (EMSGSIZE: it is too long).
---@async
---@param data string
---@param host? string a numeric address
---@param port? integer
function UDP:send(data, host, port) end
---@return string host
---@return integer port
function UDP:local_address() end
--- Of a connected socket; otherwise an OSError (ENOTCONN).
---@return string host
---@return integer port
function UDP:peer_address() end
--- How many datagrams came and found the system's queue full (see receive_buffer).
---@return integer
function UDP:dropped() end
--- Who receives or sends gets an OSError (EBADF). Twice is harmless.
function UDP:close() end
