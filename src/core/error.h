/* Error classes and error objects. Knows Lua and the state, nothing of tasks.
** A class is a table that is called to make an object; an object is a table whose metatable is its class. */
#ifndef AG_ERROR_H
#define AG_ERROR_H

#include "core/state.h"

/* Makes the classes and puts them into the module table on top. [-0, +0, m] */
void ag_errors_open(lua_State *L, ag_state *S);
/* Pushes an object of the class [name] whose message is on top of the stack. [-1, +1, m] */
void ag_error_push(lua_State *L, ag_state *S, const char *name);
/* Raises an object of the class [name]. */
AG_NORETURN int ag_error_raise(lua_State *L, ag_state *S, const char *name, const char *format, ...);
/* Whether the value at [index] is an error object of class [name] (NULL: of any). Never raises. */
bool ag_error_is(lua_State *L, ag_state *S, int index, const char *name);
/* Pushes the error object for the raised value at [index]: itself, or one that wraps it. [-0, +1, m] */
void ag_error_wrap(lua_State *L, ag_state *S, int index);
/* Replaces an error class at [index] by an object of it: raising one is raising the other. [-0, +0, m] */
void ag_error_normalize(lua_State *L, int index);
/* Replaces the error object on top by the value that was raised. [-1, +1, -] */
void ag_error_unwrap(lua_State *L);
/* Pushes the message of any value. [-0, +1, m] */
void ag_error_message(lua_State *L, int index);

#endif
