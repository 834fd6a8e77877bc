-- The HTTP client against a server in the same process: connections kept and given up, cancelled, timed out.
local agather = require "agather"
local engine = require "spec.soak.engine"
local servers = require "spec.support.servers"

local equal, raises, bytes = engine.equal, engine.raises, engine.bytes

local answers = {
  ["/echo"] = function(request, stream)
    servers.respond(stream, "200 OK", nil, request.body)
    return true
  end,
  ["/hang"] = function() agather.sleep(0.3) end, -- it does not see that its peer leaves
  ["/half"] = function(_, stream) stream:write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf") end,
  ["/nonsense"] = function(_, stream) stream:write("220 mail.example ESMTP\r\n\r\n") end,
  ["/break"] = function(_, stream) stream:abort() end,
  ["/moved"] = function(_, stream)
    servers.respond(stream, "302 Found", "Location: /cookie\r\nSet-Cookie: taste=good; Path=/\r\n", "")
    return true
  end,
  ["/cookie"] = function(request, stream)
    servers.respond(stream, "200 OK", nil, request.headers.cookie or "none")
    return true
  end,
  ["/chunks"] = function(_, stream)
    stream:write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for place = 1, 50 do
      stream:write(("%x\r\n%s\r\n"):format(1000, ("%04d"):format(place):rep(250)))
      if place % 10 == 0 then agather.sleep(0.001) end
    end
    stream:write("0\r\n\r\n")
    return true
  end,
  ["/endless"] = function(_, stream)
    stream:write("HTTP/1.1 200 OK\r\n\r\n")
    while true do stream:write(("x"):rep(65536)) end
  end,
}

local function serve(stream)
  agather.pcall(function()
    while true do
      local request = servers.read_request(stream)
      if not request or answers[request.target](request, stream) ~= true then return end
    end
  end)
end

local function good(soak, client, base)
  local random = engine.random(3)
  soak:every(10, "what is posted comes back", function()
    local sent = bytes(random, random(random(5) == 1 and 300000 or 3000))
    equal(sent, client:post(base .. "/echo", { body = sent }):text())
  end)
  soak:every(5, "json comes back", function()
    local value = { list = { 1, 2, 3, n = nil }, text = ("é"):rep(random(50)), number = random(1000) }
    local got = client:post(base .. "/echo", { json = value }):json()
    equal(value.text, got.text)
    equal(value.number, got.number)
    equal(3, #got.list)
  end)
  soak:every(5, "twenty at a time", function()
    local jobs = {}
    for place = 1, 20 do
      jobs[place] = function() return client:post(base .. "/echo", { body = "number " .. place }):text() end
    end
    local results = agather.gather_list(jobs):await()
    for place = 1, 20 do equal("number " .. place, results[place]) end
  end)
  soak:every(3, "a client of its own follows redirects and keeps cookies", function()
    local own <close> = agather.http.Client { base_url = base }
    equal("taste=good", own:get("/moved"):text())
    equal(1, #own:cookies())
  end)
  soak:every(3, "a stream piece by piece", function()
    local response <close> = client:stream("GET", base .. "/chunks")
    local size = 0
    for piece in response:chunks() do size = size + #piece end
    equal(50000, size)
  end)
  soak:every(1, "a download", function()
    local path = soak.folder .. "/download"
    client:download(base .. "/chunks", path)
    equal(50000, agather.fs.stat(path).size)
    agather.fs.remove(path)
  end)
end

local function bad(soak, client, base)
  local http, random = agather.http, engine.random(4)
  soak:every(3, "a server that hangs is left after a time", function()
    raises(http.TimeoutError, client.get, client, base .. "/hang", { timeout = 0.02 })
  end)
  soak:every(5, "requests are cancelled anywhere", function()
    engine.cancelled(random() * 0.02, function()
      while true do client:get(base .. (random(2) == 1 and "/chunks" or "/hang")) end
    end)
  end)
  soak:every(3, "half an answer, nonsense, none at all", function()
    for _, path in ipairs { "/half", "/nonsense", "/break" } do raises(http.Error, client.get, client, base .. path) end
  end)
  soak:every(2, "a body without end is refused, a stream of it is left", function()
    raises(http.BodyTooLarge, client.get, client, base .. "/endless", { max_body = 500000 })
    local response <close> = client:stream("GET", base .. "/endless")
    local size = 0
    for piece in response:chunks() do
      size = size + #piece
      if size > 300000 then break end
    end
  end)
  soak:every(1, "nobody listens", function()
    raises(http.ConnectError, client.get, client, "http://127.0.0.1:1/")
  end)
end

return {
  name = "http",
  start = function(soak)
    local server = agather.net.start_server("127.0.0.1", 0, serve, { max_connections = 100 })
    local _, port = server:local_address()
    local serving = agather.create_task(function() server:serve_forever() end, { name = "http server" })
    local client = agather.http.Client {
      limits = { max_connections = 50, max_per_host = 8 }, proxy = false, cookies = false,
      timeout = { connect = engine.PATIENCE, read = engine.PATIENCE },
    }
    soak:at_end(function()
      client:close()
      server:shutdown(0)
      serving:await()
    end)
    local base = "http://127.0.0.1:" .. port
    good(soak, client, base)
    bad(soak, client, base)
    -- what the client keeps, and no more
    soak:settles("has only the connections that are kept", function() return server:connections() <= 10 end)
  end,
}
