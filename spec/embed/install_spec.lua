-- An installed copy in an empty prefix: every host of examples/embed builds against it by the command in its comment,
-- with nothing but pkg-config, and with find_package, and runs.
local hosts = require "spec.embed.hosts"

local core = assert(package.searchpath("agather.core", package.cpath))
local build = core:gsub("/agather/core%.so$", "")
local sanitized = build:find("asan", 1, true) ~= nil

local prefix = os.tmpname()
os.remove(prefix)

local function must(command)
  local ok, text = hosts.shell((command:gsub("%$prefix", prefix)))
  assert.is_true(ok, text)
  return text
end

local function have(packages) return (hosts.shell("pkg-config --exists " .. packages)) end

-- Hosts whose scripts need no module in a file: they run with the static library as well.
local has_no_files = { game = true, poll = true, pool = true, smallest = true, threads = true }

-- Where Lua finds the installed copy, and nothing else of ours.
local environment = ("env -u LUA_INIT LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua' "
  .. "LUA_CPATH='%s/lib/lua/5.4/?.so' LD_LIBRARY_PATH=%s/lib "):format(prefix, prefix, prefix, prefix)

local function check_run(program, host)
  if host.prints then assert.same(host.prints, hosts.run(environment .. program, host)) end
end

describe("an installed copy", function()
  if sanitized then
    it("is not for use when it was built with sanitizers", function() assert.truthy(build:find("asan$")) end)
    return
  end

  setup(function() must(("cmake --install %s --prefix $prefix && mkdir $prefix/c $prefix/cmake"):format(build)) end)
  teardown(function() os.execute("rm -rf " .. prefix) end)

  for _, host in ipairs(hosts.list()) do
    it("builds examples/embed/" .. host.name .. ".c with nothing but pkg-config, by the command in it", function()
      if not have(host.packages) then return pending("pkg-config lacks one of " .. host.packages) end
      local command = host.build:gsub("^cc (%S+)", "cc -Wall -Wextra -Werror -o $prefix/c/" .. host.name
        .. " examples/embed/%1")
      must("export PKG_CONFIG_PATH=$prefix/lib/pkgconfig; " .. command)
      check_run(prefix .. "/c/" .. host.name, host)
    end)
  end

  it("builds all of them with find_package, with the shared and with the static library", function()
    local lists = { [[
      cmake_minimum_required(VERSION 3.22)
      project(consumer C)
      find_package(agather 0.1 REQUIRED)
      find_package(PkgConfig REQUIRED)
    ]] }
    local built = {}
    for _, host in ipairs(hosts.list()) do
      if have(host.packages) then
        built[#built + 1] = host
        lists[#lists + 1] = ([[
          pkg_check_modules(%s REQUIRED IMPORTED_TARGET %s)
          foreach(kind %s)
            add_executable(%s_${kind} ${SOURCES}/%s.c)
            target_link_libraries(%s_${kind} PRIVATE agather::${kind} PkgConfig::%s m)
          endforeach()
        ]]):format(host.name, host.packages, has_no_files[host.name] and "agather static" or "agather", host.name, host.name,
          host.name, host.name)
      end
    end
    local file <close> = assert(io.open(prefix .. "/cmake/CMakeLists.txt", "w"))
    file:write(table.concat(lists))
    file:flush()
    must("cmake -G Ninja -S $prefix/cmake -B $prefix/cmake/build -DCMAKE_PREFIX_PATH=$prefix "
      .. "-DSOURCES=$PWD/examples/embed && ninja -C $prefix/cmake/build")
    for _, host in ipairs(built) do check_run(prefix .. "/cmake/build/" .. host.name .. "_agather", host) end
    for _, host in ipairs(built) do
      if has_no_files[host.name] then
        check_run(prefix .. "/cmake/build/" .. host.name .. "_static", host)
      end
    end
  end)

  for _, language in ipairs { "C11", "C++17" } do
    it("has headers that " .. language .. " takes without a warning", function()
      local compiler = language == "C11" and "cc -std=c11 -D_GNU_SOURCE" or "c++ -std=c++17 -x c++"
      local program = prefix .. "/c/consumer_" .. language
      must("export PKG_CONFIG_PATH=$prefix/lib/pkgconfig; " .. compiler .. " -Wall -Wextra -Wpedantic -Werror "
        .. (language == "C11" and "spec/embed/consumer.c" or "-include lua.hpp spec/embed/consumer.c -x none")
        .. " -o " .. program .. " $(pkg-config --cflags --libs agather lua5.4 libuv)")
      must("export PKG_CONFIG_PATH=$prefix/lib/pkgconfig; echo '#include <agather.h>' | " .. compiler:gsub(" %-D_GNU_SOURCE", "")
        .. " -x " .. (language == "C11" and "c" or "c++") .. " -Wall -Wextra -Wpedantic -Werror -fsyntax-only "
        .. "$(pkg-config --cflags agather lua5.4) -")
      assert.equal("42\nstatus 3, waited in the poller\n", must(environment .. program))
    end)
  end

  it("exports what agather.h declares, and luaopen_*, and nothing else", function()
    local header <close> = assert(io.open("include/agather.h"))
    local expected, found = { luaopen_agather_core = true }, {}
    for declaration in header:read("a"):gmatch("\nAG_API ([^;]*)") do
      expected[declaration:match("(ag_[%w_]+) ?%(") or declaration:match("(luaopen_[%w_]+) ?%(")] = true
    end
    for name in must("nm -D --defined-only --format=just-symbols $prefix/lib/libagather.so"):gmatch("[^\n]+") do
      found[name] = true
    end
    assert.same(expected, found)
  end)

  it("has modules that export luaopen_* alone, and a static library with names of its own", function()
    local names = must("nm -D --defined-only --format=just-symbols $prefix/lib/lua/5.4/agather/*.so "
      .. "| grep -v ':$' | grep .")
    for name in names:gmatch("[^\n]+") do assert.truthy(name:find("^luaopen_agather_"), name) end
    names = must("nm -g --defined-only --format=just-symbols $prefix/lib/libagather.a | grep -v ':$' | grep .")
    for name in names:gmatch("[^\n]+") do
      assert.truthy(name:find("^ag_") or name:find("^luaopen_agather_"), name)
    end
  end)

  it("runs the program and finds its modules", function()
    local text = must(environment:gsub("^env ", "env -u LD_LIBRARY_PATH "):gsub(" LD_LIBRARY_PATH=%S*", "") .. "$prefix/bin/agather "
      .. "-e 'print(net.listen(\"127.0.0.1\", 0):local_address())'")
    assert.truthy(text:find("^127%.0%.0%.1\t%d+\n$"), text)
  end)
end)
