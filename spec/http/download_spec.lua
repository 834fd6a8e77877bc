-- Downloads: into a file, whole or not at all.
local agather = require "agather"
local servers = require "spec.support.servers"
local support = require "spec.support"

local http = agather.http

local function content(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local path
local body = ("0123456789"):rep(100000)

local function slowly(_, stream)
  stream:write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(#body))
  for start = 1, #body, 100000 do
    stream:write(body:sub(start, start + 99999))
    agather.sleep(0.001)
  end
end

describe("a download", function()
  before_each(function()
    path = os.tmpname()
    os.remove(path)
  end)
  after_each(function()
    os.remove(path)
    assert.is_nil(content(path .. ".part"))
  end)

  it("is the body in a file, and tells how far it is", function()
    servers.with(slowly, function(base)
      local told = {}
      local response = http.download(base, path, { progress = function(done, total) told[#told + 1] = { done, total } end })
      assert.equal(200, response.status)
      assert.is_true(content(path) == body)
      assert.is_true(#told > 2)
      assert.same({ #body, #body }, told[#told])
      for place = 2, #told do assert.is_true(told[place][1] >= told[place - 1][1]) end
    end)
  end)

  it("shows a line when it is done", function()
    local written = {}
    local stderr = io.stderr
    io.stderr = { write = function(_, ...) written[#written + 1] = table.concat { ... } end, flush = function() end }
    local restored = support.closing(function() io.stderr = stderr end)
    do
      local _ <close> = restored
      servers.with(slowly, function(base) http.download(base, path, { progress = true }) end)
    end
    assert.truthy(table.concat(written):find("1.0 MB of 1.0 MB  100%", 1, true))
  end)

  it("that is compressed is unpacked, and its total unknown", function()
    local files = servers.nginx { ["a.txt"] = body }
    if not files then return pending("nginx is missing") end
    agather.run(function()
      local last_total = 0
      http.download(files.url .. "/a.txt", path, { progress = function(_, total) last_total = total end })
      assert.is_nil(last_total)
      assert.is_true(content(path) == body)
    end)
    files.stop()
  end)

  it("goes through no link, and over no rest, that stands where it is gathered", function()
    local other = os.tmpname()
    assert(os.execute(("ln -s %s %s.part"):format(other, path)))
    servers.with(slowly, function(base)
      http.download(base, path)
      assert.is_true(content(other) == "")
      assert.is_true(content(path) == body)
      local rest <close> = assert(io.open(path .. ".part", "w"))
      rest:write(("rest"):rep(#body))
      rest:flush()
      http.download(base, path)
      assert.is_true(content(path) == body)
    end)
    os.remove(other)
  end)

  it("that fails, is cancelled or finds an error leaves nothing", function()
    servers.with(function(request, stream)
      if request.target == "/short" then return stream:write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc") end
      if request.target == "/none" then return servers.respond(stream, "404 Not Found") end
      stream:write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
      agather.sleep(10)
    end, function(base)
      support.raises("bytes remaining", http.download, base .. "/short", path)
      support.raises("404 Not Found", http.download, base .. "/none", path)
      local task = agather.spawn(http.download, base .. "/hang", path)
      while not content(path .. ".part") do agather.sleep(0.001) end
      task:cancel()
      support.raises("", agather.await, task)
      assert.is_nil(content(path))
    end)
  end)

  it("is ended by an error of the function that it tells", function()
    servers.with(slowly, function(base)
      local function enough(done) if done >= 2 then error("enough", 0) end end
      assert.equal("enough", support.raises("enough", http.download, base, path, { progress = enough }))
      assert.is_nil(content(path))
      assert.is_nil(content(path .. ".part"))
    end)
  end)

  it("to where no file can be is an OSError", function()
    servers.with(slowly, function(base)
      local err = support.raises("/nowhere/at/all.part", http.download, base, "/nowhere/at/all")
      assert.is_true(agather.is_error(err, agather.OSError))
    end)
  end)

  it("names what is wrong with its arguments", function()
    agather.run(function()
      support.raises("bad argument #2 to 'download' (path expected, got nil)", http.download, "http://127.0.0.1:9/")
      support.raises("option 'progress' must be a boolean or a function", http.download, "http://127.0.0.1:9/", path,
        { progress = 5 })
      support.raises("unknown option 'speed'", http.download, "http://127.0.0.1:9/", path, { speed = 5 })
    end)
  end)
end)
