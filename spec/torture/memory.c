/* An allocator for Lua with faults: see memory.h. */
#include "memory.h"

#include <agather.h>
#include <string.h>

#include "faults.h"

/* To call a function Lua may have to grow its stack, or to make one of these. */
enum { CALL_INFO = 64 }; /* bytes, of 64-bit systems */

static void *allocate(void *data, void *block, size_t old, size_t size) {
  memory *m = data;
  if (size == 0) {
    m->blocks -= block != NULL;
    return faults_plain(block, 0);
  }
  if (m->armed && (block == NULL || size > old)) {
    m->count++;
    if (m->fail_at > 0 && m->count >= m->fail_at) {
      m->to_call = block != NULL || size == CALL_INFO;
      return NULL;
    }
    m->failed = m->collect && !m->failed;
    if (m->failed)
      return NULL;
  }
  m->blocks += block == NULL;
  return faults_plain(block, size);
}

/* Where Lua lacks memory to call a finalizer it warns, and does not try again. Not so where the finalizer itself has
** failed. */
static void on_warning(void *data, const char *message, int more) {
  memory *m = data;
  (void)more;
  if (strstr(message, "not enough memory") != NULL && m->to_call)
    m->lost = true;
}

lua_State *memory_state(memory *m) {
  *m = (memory){.blocks = m->blocks};
  lua_State *L = ag_newstate(allocate, m);
  lua_setwarnf(L, on_warning, m);
  return L;
}

void memory_arm(memory *m, long fail_at, bool collect) {
  *m = (memory){.blocks = m->blocks, .lost = m->lost, .fail_at = fail_at, .armed = true, .collect = collect};
}
