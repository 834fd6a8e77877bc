/* Limits: what a host sets, and the error of who wants more. */
#include "core/limits.h"

#include <stdlib.h>

#include "core/error.h"
#include "core/loop.h"
#include "core/ticker.h"

int ag_limit_raise(lua_State *L, ag_state *S, const char *name, lua_Integer value) {
  lua_pushfstring(L, "too many %s: the limit is %I", name, (LUAI_UACINT)value);
  ag_error_push(L, S, "LimitError");
  lua_pushstring(L, name);
  lua_setfield(L, -2, "limit");
  lua_pushinteger(L, value);
  lua_setfield(L, -2, "value");
  lua_error(L);
}

int ag_limit_error(lua_State *L, const char *name, lua_Integer value) {
  ag_limit_raise(L, ag_state_open(L), name, value);
}

size_t ag_handle_limit(const ag_loop *loop) {
  const ag_limiter *limiter = loop->S->limiter;
  return limiter != NULL ? limiter->limits.handles : 0;
}

void ag_limits_close(ag_state *S) {
  ag_limiter *limiter = S->limiter;
  S->limiter = NULL;
  if (limiter != NULL && limiter->ticker != NULL)
    ag_ticker_free(limiter->ticker);
  free(limiter);
}

/* 1: the limits, 2: where to say whether a loop runs. */
static int set_limits(lua_State *L) {
  const ag_limits *limits = lua_touserdata(L, 1);
  luaL_requiref(L, "agather.core", luaopen_agather_core, 0);
  ag_state *S = ag_state_open(L);
  *(bool *)lua_touserdata(L, 2) = S->running != NULL;
  if (S->running != NULL)
    return 0;
  if (limits == NULL) {
    ag_limits_close(S);
    return 0;
  }
  if (!(limits->seconds >= 0))
    return luaL_error(L, "ag_set_limits: seconds must not be negative, got %f", (LUAI_UACNUMBER)limits->seconds);
  if (limits->instructions > INT64_MAX)
    return luaL_error(L, "ag_set_limits: instructions must fit 63 bits");
  ag_limiter *limiter = calloc(1, sizeof *limiter);
  if (limiter == NULL)
    return luaL_error(L, "not enough memory");
  limiter->limits = *limits;
  if (!ag_budget_init(limiter)) {
    free(limiter);
    return luaL_error(L, "ag_set_limits: no timer with the signal %d can be had", limits->signal);
  }
  ag_limits_close(S);
  S->limiter = limiter;
  return 0;
}

ag_status ag_set_limits(lua_State *L, const ag_limits *limits) {
  bool running = false;
  lua_pushcfunction(L, set_limits);
  lua_pushlightuserdata(L, (void *)limits);
  lua_pushlightuserdata(L, &running);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK)
    return AG_ERROR;
  return running ? AG_REENTRANT : AG_OK;
}
