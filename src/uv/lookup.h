/* Look-ups of names, for scripts and for what opens connections. Knows the reactor and agather.h.
** Those who ask for the same name at the same time share one request, and its answer serves for some seconds. */
#ifndef AG_UV_LOOKUP_H
#define AG_UV_LOOKUP_H

#include "uv/uv.h"

/* What was found. Shared and never changed; ag_lookup_clear gives up the share. */
typedef struct ag_answer {
  unsigned shares;
  int count;                           /* of addresses */
  const char *name;                    /* of a reverse look-up */
  struct sockaddr_storage addresses[]; /* without port; the system's order of preference */
} ag_answer;

struct ag_query;

/* One who waits for an answer, embedded in what asks. Zero it before the first use. */
typedef struct ag_lookup {
  void (*done)(struct ag_lookup *lookup); /* loop's thread; must not raise nor call Lua */
  int status;                             /* 0 or a libuv error */
  ag_answer *answer;                      /* owned until ag_lookup_clear; NULL unless status is 0 */
  struct ag_query *query;                 /* private from here on */
  struct ag_lookup *next, **place;
} ag_lookup;

enum { AG_LOOKUP_FRESH = 1 }; /* flags: a cached answer will not do */

/* Asks for the addresses of [host], which has 1 to 253 bytes, in [family] (AF_INET, AF_INET6 or AF_UNSPEC). 0: [done]
** will be called, later; 1: the answer is there already (numeric addresses, localhost, cached); negative: a libuv
** error. Never raises. [-0, +0, -] */
int ag_lookup_start(lua_State *L, uv_loop_t *loop, ag_lookup *lookup, const char *host, int family, int flags);
/* The same, for the name of an address. */
int ag_lookup_reverse(lua_State *L, uv_loop_t *loop, ag_lookup *lookup, const struct sockaddr_storage *address,
                      int flags);
/* Gives up waiting, and the share in the answer. [done] will not be called; again is harmless. */
void ag_lookup_clear(ag_lookup *lookup);
/* What is asked from now on is asked anew; those who wait share their look-up still. */
void ag_lookup_forget(lua_State *L);
/* Makes what a state's look-ups share. [-0, +0, m] */
void ag_open_lookup(lua_State *L);

#endif
