/* Blocks of memory that the streams of one loop use again: what they have read and nobody has taken yet, and what waits
** to be written. Knows nothing of what is in them. */
#ifndef AG_UV_BLOCKS_H
#define AG_UV_BLOCKS_H

#include <stddef.h>

enum { AG_LARGE_BLOCK = 256 * 1024 };

typedef struct ag_blocks {
  struct spare_block *small, *large; /* not in use */
  unsigned smalls, larges;
} ag_blocks;

/* A block of at least *[size] bytes, and how many it has; NULL when there is no memory. [blocks] may be NULL. */
void *ag_block_new(ag_blocks *blocks, size_t *size);
/* Gives back a block of [size] bytes, as ag_block_new told it; NULL is harmless. */
void ag_block_free(ag_blocks *blocks, void *block, size_t size);
/* Frees the spare ones. */
void ag_blocks_clear(ag_blocks *blocks);

#endif
