/* agather/core.so: the library libagather under the name that `require` looks for. */
#include "agather.h"

/* libagather exports the function itself; the reference keeps the linker from dropping the library. */
__attribute__((used)) static int (*const entry)(lua_State *) = luaopen_agather_core;
