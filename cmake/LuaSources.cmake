# Lua from a directory of sources instead of the system's, 5.4.4 or later: -DAGATHER_LUA_SOURCES=dir, where dir or dir/src
# has lua.h. The library takes the headers; programs get the whole of Lua, for the modules that scripts load.
# Sets what pkg-config would: LUA_INCLUDE_DIRS, LUA_LINK_LIBRARIES, and LUA_SERIES such as 5.4.
get_filename_component(directory "${AGATHER_LUA_SOURCES}" ABSOLUTE BASE_DIR "${CMAKE_SOURCE_DIR}")
find_path(AGATHER_LUA_HEADERS lua.h PATHS ${directory} ${directory}/src NO_DEFAULT_PATH NO_CACHE)
if(NOT AGATHER_LUA_HEADERS)
  message(FATAL_ERROR "AGATHER_LUA_SOURCES: no lua.h in ${directory} nor in ${directory}/src")
endif()
file(STRINGS ${AGATHER_LUA_HEADERS}/lua.h minor REGEX "^#define[ \t]+LUA_VERSION_MINOR(_N)?[ \t]+\"?[0-9]")
string(REGEX MATCH "[0-9]+" minor "${minor}")
set(LUA_SERIES 5.${minor})
message(STATUS "Lua ${LUA_SERIES} from ${AGATHER_LUA_HEADERS}")

file(GLOB sources ${AGATHER_LUA_HEADERS}/*.c)
list(FILTER sources EXCLUDE REGEX "/(lua|luac|onelua|ltests)\\.c$")
add_library(agather_lua OBJECT ${sources})
set_target_properties(agather_lua PROPERTIES C_VISIBILITY_PRESET default INTERPROCEDURAL_OPTIMIZATION OFF)
target_compile_definitions(agather_lua PRIVATE LUA_USE_POSIX LUA_USE_DLOPEN)
target_compile_options(agather_lua PRIVATE -w)
set(LUA_INCLUDE_DIRS ${AGATHER_LUA_HEADERS})
set(LUA_LINK_LIBRARIES agather_lua m ${CMAKE_DL_LIBS})
set(CMAKE_ENABLE_EXPORTS ON)

# The interpreter itself, to try scripts with.
if(EXISTS ${AGATHER_LUA_HEADERS}/lua.c)
  add_executable(lua ${AGATHER_LUA_HEADERS}/lua.c)
  target_compile_definitions(lua PRIVATE LUA_USE_POSIX LUA_USE_DLOPEN)
  target_compile_options(lua PRIVATE -w)
  target_link_libraries(lua PRIVATE ${LUA_LINK_LIBRARIES})
  set_target_properties(lua PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endif()
