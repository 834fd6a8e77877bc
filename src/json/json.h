/* What the files of agather.jansson share: what C owns while a Lua error may come, and the two values of their own. */
#ifndef AG_JSON_H
#define AG_JSON_H

#include <lauxlib.h>
#include <stddef.h>

#include "noreturn.h"

enum { JSON_MAX_DEPTH = 512 };

/* The metatable of tables that are arrays also when they are empty, in the registry. */
#define JSON_ARRAY_TYPE "agather.json.array"
/* The value that stands for null, in the registry. */
#define JSON_NULL_VALUE "agather.json.null"

/* Adds encode to the module table on top of the stack. */
void json_open_encode(lua_State *L);

#endif
