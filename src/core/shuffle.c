/* Another order for what is ready, chosen by a seed: see shuffle.h. Nothing in builds without AGATHER_SHUFFLE. */
#include "core/shuffle.h"

#ifdef AGATHER_SHUFFLE
#include <stdlib.h>

void ag_shuffle_seed(lua_State *L, ag_loop *loop) {
  lua_pushboolean(L, true);
  lua_setfield(L, LUA_REGISTRYINDEX, "agather.shuffles");
  lua_getfield(L, LUA_REGISTRYINDEX, "agather.shuffle");
  uint64_t seed = (uint64_t)lua_tointeger(L, -1);
  bool given = !lua_isnil(L, -1);
  lua_pop(L, 1);
  const char *text = given ? NULL : getenv("AGATHER_SHUFFLE_SEED");
  if (text != NULL && (seed = strtoull(text, NULL, 10)) != 0)
    seed += (uint64_t)loop->id << 32; /* each loop of a process has an order of its own */
  loop->shuffle = seed * 0x9E3779B97F4A7C15u;
}

/* A number below [limit]: splitmix64, whose every state is as good as another. */
static size_t below(ag_loop *loop, size_t limit) {
  uint64_t x = loop->shuffle += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return (size_t)((x ^ (x >> 31)) % limit);
}

void ag_shuffle(ag_loop *loop, ag_link *list) {
  if (loop->shuffle == 0)
    return;
  size_t n = 0;
  for (ag_link *l = list->next; l != list; l = l->next)
    n++;
  ag_link **links = n > 1 ? malloc(n * sizeof(ag_link *)) : NULL;
  if (links == NULL)
    return;
  for (size_t i = 0; i < n; i++) {
    links[i] = list->next;
    ag_link_remove(list->next);
  }
  for (size_t left = n; left > 0; left--) {
    size_t i = below(loop, left);
    ag_list_append(list, links[i]);
    links[i] = links[left - 1];
  }
  free(links);
}
#endif
