rockspec_format = "3.0"
package = "agather"
version = "0.1.0-1"
source = {
  url = "git+file://.",
}
description = {
  summary = "asyncio's tasks and gather for Lua",
  detailed = "Tasks, gather, timeouts, task groups, locks and queues as asyncio has them, with the loop in C.",
  license = "MIT",
}
dependencies = {
  "lua >= 5.4, < 5.5",
}
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "Release",
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    CMAKE_INSTALL_LIBDIR = "$(LIBDIR)/agather",
    AGATHER_LUA_DIR = "$(LUADIR)",
    AGATHER_LUA_CDIR = "$(LIBDIR)",
    AGATHER_SONAME = "OFF", -- luarocks copies no links
    AGATHER_TESTS = "OFF",
  },
}
