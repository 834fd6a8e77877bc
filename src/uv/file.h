/* Open files, as process.c needs them. */
#ifndef AG_UV_FILE_H
#define AG_UV_FILE_H

#include "uv/uv.h"

#define AG_FILE "agather.File"

/* The descriptor of the file at [index], which keeps it, set to where the file is now; -1 when it is no file. What it
** has not written yet is the caller's care. Raises an OSError for a closed file. [-0, +0, e] */
int ag_file_descriptor(lua_State *L, int index, const char *operation);

#endif
