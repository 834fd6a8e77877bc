/* Lua's read formats over bytes that come in pieces: a buffer, what ended it, and "take this, or say that more is
** needed". Knows Lua and agather.h, nothing of where bytes come from. Streams embed one; uv.buffer() is one for
** scripts. */
#ifndef AG_UV_READER_H
#define AG_UV_READER_H

#include <lauxlib.h>
#include <stdbool.h>

#include "uv/blocks.h"

typedef enum ag_read_kind {
  AG_READ_LINE,      /* without its newline */
  AG_READ_LINE_KEPT, /* with it */
  AG_READ_ALL,
  AG_READ_SOME,    /* at least one and at most n bytes */
  AG_READ_EXACTLY, /* n bytes */
  AG_READ_UNTIL    /* up to and with a separator */
} ag_read_kind;

typedef enum ag_taken {
  AG_TAKEN,      /* a string, or nil at the end, was pushed */
  AG_NEEDS_MORE, /* nothing was pushed */
  AG_BROKEN      /* nothing was pushed: the error in [status] stands in the way */
} ag_taken;

/* Bytes data[start, end) were read and not taken. */
typedef struct ag_reader {
  char *data;
  size_t start, end, size;
  size_t taken;      /* bytes taken since the beginning */
  size_t wanted;     /* no use in looking again with fewer bytes than these */
  size_t line_limit; /* bytes of a line, or up to a separator */
  size_t all_limit;  /* bytes that "a" and read_exactly gather */
  int status;        /* 0: more may come; AG_READ_END, or an error number of the owner's */
  ag_blocks *blocks;
} ag_reader;

enum { AG_READ_END = 1, AG_LINE_LIMIT = 65536 };

/* [blocks] may be NULL; it must outlive what was read. */
void ag_reader_init(ag_reader *r, ag_blocks *blocks);
/* Frees what was read. */
void ag_reader_clear(ag_reader *r);
/* Where [n] bytes can be added, or NULL without memory. */
char *ag_reader_room(ag_reader *r, size_t n);
/* Adds bytes; false without memory. */
bool ag_reader_add(ag_reader *r, const char *bytes, size_t n);
/* Gives it a block of its blocks, of [size] bytes, of which the first [n] came; it must hold nothing. */
void ag_reader_give(ag_reader *r, char *block, size_t size, size_t n);
static inline size_t ag_reader_held(const ag_reader *r) { return r->end - r->start; }

/* What the argument of read asks for: "l" (also where there is none), "L", "a" or a number. Raises an argument error.
 */
ag_read_kind ag_read_format(lua_State *L, int arg);
/* Check the argument of read_exactly and of read_until. */
void ag_check_count(lua_State *L, int arg);
void ag_check_separator(lua_State *L, int arg);
/* Sets the limits from a table of options { line =, all = } at [arg]. Raises an argument error and changes nothing. */
void ag_check_limits(lua_State *L, int arg, ag_reader *r);

/* Takes what [kind] and its argument at the absolute index [arg] ask for. *[searched] is 0 at the first call and tells
** the next one where to go on. Raises IncompleteReadError with .partial and .expected, and LimitOverrunError, which
** takes nothing. [-0, +0|1, e] */
ag_taken ag_reader_take(lua_State *L, ag_reader *r, ag_read_kind kind, int arg, size_t *searched);

#endif
