# find_package(agather): the targets agather::agather (shared) and agather::static. Neither links Lua: add your own.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include("${CMAKE_CURRENT_LIST_DIR}/agatherTargets.cmake")
