/* An allocator with a cap. Lua asks once more after it has collected its garbage: only a request that is refused twice
** is an error, and opens the reserve, so that cleaning up has room. */
#include <stdlib.h>

#include "agather.h"

static size_t ceiling(const ag_memory *memory) {
  if (memory->limit == 0)
    return (size_t)-1;
  return memory->spent ? memory->limit + memory->reserve : memory->limit;
}

/* Remembers what is refused; the same request refused again is an error. */
static void refuse(ag_memory *memory, const void *block, size_t size) {
  bool again = memory->asking && memory->asked == block && memory->asked_size == size;
  memory->asking = !again;
  memory->asked = block;
  memory->asked_size = size;
  if (again) {
    memory->refused++;
    memory->spent = true;
  }
}

void *ag_alloc(void *data, void *block, size_t old, size_t size) {
  ag_memory *memory = data;
  if (block == NULL)
    old = 0; /* it says what the block is for */
  if (size > old && (size - old > ceiling(memory) || memory->used > ceiling(memory) - (size - old))) {
    refuse(memory, block, size);
    return NULL;
  }
  void *got = NULL;
  if (memory->from != NULL) {
    got = memory->from(memory->data, block, old, size);
  } else if (size == 0) {
    free(block);
  } else {
    got = realloc(block, size);
  }
  if (size > 0 && got == NULL) {
    refuse(memory, block, size);
    return NULL;
  }
  memory->used = memory->used - old + size;
  if (memory->used > memory->peak)
    memory->peak = memory->used;
  if (size > old)
    memory->asking = false;
  if (memory->spent && memory->used + memory->reserve <= memory->limit)
    memory->spent = false;
  return got;
}
