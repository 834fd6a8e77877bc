/* Messages: Lua values as bytes in a C block, to go from one Lua state to another. nil, booleans, numbers, strings and
** tables of them are copied; a table that stands at several places, or within itself, does so in the copy too.
** Metatables stay behind. Knows Lua alone. */
#ifndef AG_UV_MESSAGE_H
#define AG_UV_MESSAGE_H

#include <lauxlib.h>
#include <stdbool.h>
#include <stddef.h>

/* A block that grows. Zero it before the first use. */
typedef struct ag_message {
  char *data;
  size_t size, capacity;
  size_t read; /* bytes that were taken */
} ag_message;

void ag_message_free(ag_message *message);

/* Copies values into or out of one message. Keeps a slot of the stack for the tables it has seen. */
typedef struct ag_copier {
  lua_State *L;
  ag_message *message;
  int seen; /* the slot */
  lua_Integer tables;
} ag_copier;

/* Takes the slot: pushes one value. [-0, +1, e] */
void ag_copier_begin(ag_copier *copier, lua_State *L, ag_message *message);

/* Appends the value at [index]. False: it cannot be copied, and a text is on top that tells where in it and why, such
** as ".callbacks[3] is a function". Raises when memory is short. [-0, +0|1, m] */
bool ag_copier_put(ag_copier *copier, int index);
/* Takes the next value and pushes it. [-0, +1, m] */
void ag_copier_get(ag_copier *copier);

/* Plain numbers and bytes between the values. */
void ag_message_put_integer(lua_State *L, ag_message *message, lua_Integer value);
lua_Integer ag_message_get_integer(ag_message *message);
void ag_message_put_bytes(lua_State *L, ag_message *message, const void *bytes, size_t size);
/* The next [size] bytes; borrowed. */
const char *ag_message_get_bytes(ag_message *message, size_t size);

#endif
