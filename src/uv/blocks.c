/* Blocks in two sizes that are kept for the next who needs one; other sizes come from malloc and go back to it. */
#include "uv/blocks.h"

#include <stdlib.h>

/* Most messages fit a small block; a large one takes what a stream writes before its writer waits. */
enum { SMALL = 1024, LARGE = AG_LARGE_BLOCK, MOST_SMALLS = 256, MOST_LARGES = 4 };

typedef struct spare_block {
  struct spare_block *next;
} spare_block;

static void *take(spare_block **list, unsigned *count) {
  spare_block *block = *list;
  *list = block->next;
  --*count;
  return block;
}

void *ag_block_new(ag_blocks *blocks, size_t *size) {
  if (*size <= SMALL) {
    *size = SMALL;
    if (blocks != NULL && blocks->small != NULL)
      return take(&blocks->small, &blocks->smalls);
  } else if (*size > LARGE / 4 && *size <= LARGE) {
    *size = LARGE;
    if (blocks != NULL && blocks->large != NULL)
      return take(&blocks->large, &blocks->larges);
  }
  return malloc(*size);
}

static void give(spare_block **list, unsigned *count, void *block) {
  spare_block *spare = block;
  spare->next = *list;
  *list = spare;
  ++*count;
}

void ag_block_free(ag_blocks *blocks, void *block, size_t size) {
  if (block == NULL)
    return;
  if (blocks != NULL && size == SMALL && blocks->smalls < MOST_SMALLS)
    give(&blocks->small, &blocks->smalls, block);
  else if (blocks != NULL && size == LARGE && blocks->larges < MOST_LARGES)
    give(&blocks->large, &blocks->larges, block);
  else
    free(block);
}

void ag_blocks_clear(ag_blocks *blocks) {
  while (blocks->small != NULL)
    free(take(&blocks->small, &blocks->smalls));
  while (blocks->large != NULL)
    free(take(&blocks->large, &blocks->larges));
}
