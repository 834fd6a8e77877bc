-- An installed copy in an empty prefix: hosts build against it with pkg-config, and with find_package, and run.
local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("/agather/core%.so$", "")
local sanitized = build:find("asan", 1, true) ~= nil

local function shell(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1"))
  local text = pipe:read("a")
  return pipe:close(), text
end

local prefix = os.tmpname()
os.remove(prefix)

local function must(command)
  local ok, text = shell(command:gsub("%$prefix", prefix))
  assert.is_true(ok, text)
  return text
end

describe("an installed copy", function()
  if sanitized then
    it("is not for use when it was built with sanitizers", function() assert.truthy(build:find("asan$")) end)
    return
  end

  setup(function() must(("cmake --install %s --prefix $prefix"):format(build)) end)
  teardown(function() os.execute("rm -rf " .. prefix) end)

  it("builds a host with nothing but pkg-config", function()
    must("export PKG_CONFIG_PATH=$prefix/lib/pkgconfig; cc -D_DEFAULT_SOURCE -std=c11 -Wall -Wextra -Werror "
      .. "examples/embed/poll.c -o $prefix/poll $(pkg-config --cflags --libs agather lua5.4) -lm")
    assert.truthy(must("LD_LIBRARY_PATH=$prefix/lib $prefix/poll </dev/null"):find("task\t3", 1, true))
  end)

  it("builds hosts with find_package, with the shared and with the static library", function()
    must("mkdir -p $prefix/consumer")
    local file <close> = assert(io.open(prefix .. "/consumer/CMakeLists.txt", "w"))
    file:write([[
      cmake_minimum_required(VERSION 3.22)
      project(consumer C)
      find_package(agather 0.1 REQUIRED)
      find_package(PkgConfig REQUIRED)
      pkg_check_modules(LUA REQUIRED IMPORTED_TARGET lua5.4)
      foreach(kind agather static)
        add_executable(poll_${kind} ${SOURCE})
        target_link_libraries(poll_${kind} PRIVATE agather::${kind} PkgConfig::LUA m)
      endforeach()
    ]])
    file:flush()
    must("cmake -S $prefix/consumer -B $prefix/consumer/build -DCMAKE_PREFIX_PATH=$prefix "
      .. "-DSOURCE=$PWD/examples/embed/poll.c && cmake --build $prefix/consumer/build")
    for _, kind in ipairs { "agather", "static" } do
      assert.truthy(must(("$prefix/consumer/build/poll_%s </dev/null"):format(kind)):find("task\t3", 1, true))
    end
  end)

  it("runs the program and finds its modules", function()
    local text = must("env -u LUA_INIT LUA_PATH='$prefix/share/lua/5.4/?.lua;$prefix/share/lua/5.4/?/init.lua' "
      .. "LUA_CPATH='$prefix/lib/lua/5.4/?.so' $prefix/bin/agather "
      .. "-e 'print(net.listen(\"127.0.0.1\", 0):local_address())'")
    assert.truthy(text:find("^127%.0%.0%.1\t%d+\n$"), text)
  end)
end)
