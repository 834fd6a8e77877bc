/* Lua's own memory, of a state whose allocator counts, and fails on demand. */
#ifndef MEMORY_H
#define MEMORY_H

#include <lua.h>
#include <stdbool.h>

typedef struct memory {
  long count;   /* allocations since memory_arm */
  long blocks;  /* not given back */
  long fail_at; /* those from here on fail; 0: none */
  bool armed;   /* they count */
  bool collect; /* each fails once */
  bool lost;    /* Lua could not call a finalizer: what it would have given back is left */
  bool failed;  /* the last one did */
  bool to_call; /* what was refused last may have been what Lua needs to call a function */
} memory;

/* Makes a state that uses [m], which it sets to zero, but for [blocks]. */
lua_State *memory_state(memory *m);

/* From now on allocations count, and those from [fail_at] on fail, or with [collect] each of them once. */
void memory_arm(memory *m, long fail_at, bool collect);

#endif
