-- Who is measured: how each is found, its version, and the commands that run its pieces of work.
--   tasks COUNT: command for the rows of tasks; server: command of its servers; startup: { plain, with the library };
--   client URL COUNT LIMIT: command of its HTTP client
-- A peer that is not installed has "missing", a sentence, instead.
local shell = require "bench.shell"

local function peers(top)
  local tools = (os.getenv("AGATHER_BUILD_DIR") or top .. "/build") .. "/bench/"
  local here = top .. "/bench/peers/"

  -- env of the agather peer: the build directory may be another than ./run's.
  local agather_lua = "lua5.4"
  if os.getenv("AGATHER_BUILD_DIR") then
    agather_lua = "env " .. shell.quote("LUA_CPATH=" .. os.getenv("AGATHER_BUILD_DIR") .. "/?.so;;") .. " lua5.4"
  end
  local python = shell.capture("test -x /usr/bin/python3") and "/usr/bin/python3" or "python3" -- Debian's has uvloop

  local function lua_peer(name, title, lua, version, files)
    local path = here .. name
    return {
      name = name, title = title,
      version = function() return shell.capture(lua .. " -e " .. shell.quote(version)) end,
      tasks = lua .. " " .. path .. "/tasks.lua",
      server = files.server and lua .. " " .. path .. "/net.lua",
      client = files.client and lua .. " " .. path .. "/client.lua",
      startup = files.module and
        { "lua5.4 -e ''", lua .. " -e " .. shell.quote(("require %q"):format(files.module)) },
    }
  end

  local function python_peer(name, title, module, options)
    return {
      name = name, title = title,
      version = function()
        return shell.capture(python .. " -c " .. shell.quote("import sys, asyncio\n" .. options.version))
      end,
      tasks = options.tasks and ("%s %sasyncio/tasks.py %s"):format(python, here, name),
      server = ("%s %sasyncio/net.py %s"):format(python, here, name),
      startup = module and { python .. " -c pass", python .. " -c " .. shell.quote("import " .. module) },
    }
  end

  local function python_client(name)
    return {
      name = name, title = name,
      version = function()
        return shell.capture(("%s -c 'import %s; print(%s.__version__)'"):format(python, name, name))
      end,
      client = ("%s %sasyncio/client.py %s"):format(python, here, name),
    }
  end

  local function go_peer(cores)
    local program = tools .. "go"
    return {
      name = "go" .. cores, title = cores == 1 and "Go, 1 core" or "Go, 2 cores",
      version = function()
        local version = shell.capture("go version")
        if not version then return nil end
        local sources = { here .. "go/main.go", here .. "go/tasks.go", here .. "go/net.go" }
        local made, message = shell.make(program, sources, "go build -o")
        if not made then return nil, message end
        return version:match("go(%d%S*)")
      end,
      tasks = ("env GOMAXPROCS=%d %s"):format(cores, program),
      server = ("env GOMAXPROCS=%d %s"):format(cores, program),
    }
  end

  return {
    lua_peer("agather", "agather", agather_lua, 'print(require "agather"._VERSION)',
      { server = true, client = true, module = "agather" }),
    lua_peer("bare", "bare Lua", "lua5.4", 'print((_VERSION:gsub("Lua ", "")))', {}),
    python_peer("asyncio", "asyncio", "asyncio",
      { tasks = true, version = "print('of CPython', sys.version.split()[0])" }),
    python_peer("uvloop", "uvloop", "uvloop", { tasks = true, version = "import uvloop; print(uvloop.__version__)" }),
    python_peer("uvloop-protocol", "uvloop, callbacks", nil, { version = "import uvloop; print(uvloop.__version__)" }),
    lua_peer("cqueues", "cqueues", "lua5.4", 'print(require "cqueues".VERSION)', { server = true, module = "cqueues" }),
    lua_peer("luv", "luv", "lua5.4", 'print("on libuv " .. require "luv".version_string())',
      { server = true, module = "luv" }),
    {
      name = "node", title = "Node.js",
      version = function() return shell.capture("node --version") end,
      tasks = "node --expose-gc " .. here .. "node/tasks.js",
      server = "node " .. here .. "node/net.js",
      client = "node " .. here .. "node/client.js",
    },
    python_client("aiohttp"),
    python_client("httpx"),
    go_peer(1),
    go_peer(2),
    {
      name = "epoll", title = "C, epoll",
      version = function()
        local made, message = shell.make(tools .. "epoll", { here .. "epoll/net.c" }, "cc -O2 -o")
        if not made then return nil, message end
        return shell.capture("cc --version | head -n 1")
      end,
      server = tools .. "epoll",
    },
  }
end

return peers
