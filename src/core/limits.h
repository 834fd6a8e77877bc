/* What scripts may use (ag_set_limits), and the budget of the step that runs. Knows Lua and the state; tasks and loops
** ask it before they take one more.
** Invariant: only while [active] does the hook raise; [innermost] is then the thread whose instructions run. */
#ifndef AG_LIMITS_H
#define AG_LIMITS_H

#include "core/state.h"
#include "noreturn.h"

/* FREE: nothing is spent. CLEANING: it was, the error was raised, a tenth is left for handlers and <close>.
** SPENT: that too is gone; the first instruction of each thread of the step ends it. */
enum ag_stage { AG_FREE, AG_CLEANING, AG_SPENT };

typedef struct ag_limiter {
  ag_limits limits;
  volatile bool active;          /* a step or callback runs */
  lua_State *volatile innermost; /* the hook is armed here when the time is over */
  uint8_t stage;                 /* enum ag_stage */
  const char *which;             /* the budget that is spent */
  lua_State *ending;             /* the thread that has yielded to be ended, or NULL */
  /* Where the hook is always armed: */
  int every;        /* instructions between two calls of it, or 0 */
  int charged;      /* for coroutines, since the clock was looked at */
  int64_t left;     /* instructions */
  int64_t deadline; /* nanoseconds of processor time; 0: the clock was not looked at yet */
  /* Where a timer arms it: */
  bool ticking;
  struct ag_ticker *ticker;
  volatile unsigned steps, seen; /* steps begun, and the one that the ticks are of */
  volatile int ticks;
  volatile bool late;
} ag_limiter;

/* Raises a LimitError: the limit [name] has the given value, and one more was asked for. */
AG_NORETURN int ag_limit_raise(lua_State *L, ag_state *S, const char *name, lua_Integer value);

/* Whether [count] has come to the limit [name] of the state. Reached wherever something is made: one branch. */
#define ag_limit_reached(S, name, count)                                                                               \
  ((S)->limiter != NULL && (S)->limiter->limits.name != 0 && (size_t)(count) >= (S)->limiter->limits.name)

/* Raises when it has. */
#define ag_limit_check(L, S, name, count)                                                                              \
  do {                                                                                                                 \
    if (ag_limit_reached(S, name, count))                                                                              \
      ag_limit_raise(L, S, #name, (lua_Integer)(S)->limiter->limits.name);                                             \
  } while (0)

/* Gives back what ag_set_limits has made; the state closes. Never raises. */
void ag_limits_close(ag_state *S);

/* ---- budget.c; all of these only where S->limiter is not NULL ---- */

/* Chooses how budgets are watched, for new limits. False: no timer can be had. */
bool ag_budget_init(ag_limiter *limiter);
/* A step or callback begins on the thread [L], unless one runs already; returns whether it does. Then ag_budget_close
** must follow. */
bool ag_budget_open(lua_State *L, ag_state *S);
void ag_budget_close(ag_state *S);
/* The loop runs within a step: what it runs has budgets of its own. Returns what ag_budget_continue wants. */
bool ag_budget_suspend(ag_state *S);
void ag_budget_continue(lua_State *L, ag_state *S, bool was_active);
/* lua_resume and ag_close_thread under the budget of the step that runs. */
int ag_budget_resume(ag_state *S, lua_State *co, lua_State *from, int nargs, int *nres);
int ag_budget_reset(ag_state *S, lua_State *co, lua_State *from);

/* The same where there may be no limits. */
static inline int ag_resume(ag_state *S, lua_State *co, lua_State *from, int nargs, int *nres) {
  return S->limiter == NULL ? lua_resume(co, from, nargs, nres) : ag_budget_resume(S, co, from, nargs, nres);
}
static inline int ag_reset(ag_state *S, lua_State *co, lua_State *from) {
  return S->limiter == NULL ? ag_close_thread(co, from) : ag_budget_reset(S, co, from);
}

#endif
