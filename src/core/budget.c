/* The budget of a step: instructions and processor time. A hook stops who has spent it: first by an error, then by
** taking the thread away.
** Where instructions are counted, or no signal may be used, every thread has the hook from its first instruction on:
** new threads inherit it. Otherwise a timer arms it, on the innermost thread, when a step has taken too long; then no
** instruction is slower. */
#include <time.h>

#include "core/error.h"
#include "core/limits.h"
#include "core/ticker.h"

/* The clock is a system call: it is asked each so many instructions. A step that only makes coroutines is charged for
** each, since their few instructions count on threads of their own. */
enum { EVERY = 10000, CHARGE = 100, TICKS = 8 };

/* What is left to clean up with, as a part of the budget. */
enum { CLEANING_PART = 10 };

static int64_t processor_time(void) {
  struct timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- the hook ---- */

static void on_hook(lua_State *L, lua_Debug *ar);

/* Setting a hook walks all calls of the thread: not again where it is set. */
static void arm(lua_State *L, int every) {
  if (lua_gethookcount(L) != every || lua_gethook(L) != on_hook)
    lua_sethook(L, on_hook, LUA_MASKCOUNT, every);
}

/* Sets the hook to how it is while nothing is spent. */
static void disarm(lua_State *L, const ag_limiter *limiter) {
  if (limiter == NULL || limiter->ticking)
    lua_sethook(L, NULL, 0, 0);
  else
    arm(L, limiter->every);
}

/* The name of the budget that is spent, or NULL. */
static const char *spent(ag_limiter *limiter) {
  if (limiter->ticking)
    return limiter->late ? "seconds" : NULL;
  if (limiter->limits.instructions != 0 && limiter->left < 0)
    return "instructions";
  if (limiter->limits.seconds == 0)
    return NULL;
  int64_t now = processor_time();
  if (limiter->deadline == 0) { /* the first look in this step, whose instructions so far are few */
    limiter->deadline = now + (int64_t)(limiter->limits.seconds * 1e9);
    return NULL;
  }
  return now > limiter->deadline ? "seconds" : NULL;
}

/* Gives a part of the budget for cleaning up. */
static void begin_cleaning(ag_limiter *limiter) {
  limiter->stage = AG_CLEANING;
  limiter->left = (int64_t)(limiter->limits.instructions / CLEANING_PART);
  limiter->deadline = processor_time() + (int64_t)(limiter->limits.seconds / CLEANING_PART * 1e9);
  limiter->ticks = TICKS - 1;
  limiter->late = false;
}

/* The registry's key of the error of a step that is ended. */
static const char error_key = 0;

/* Pushes the error. [-0, +1, m] */
static void push_error(lua_State *L, ag_state *S, const char *name) {
  const ag_limits *limits = &S->limiter->limits;
  luaL_checkstack(L, 20, NULL);
  bool instructions = name[0] == 'i';
  if (instructions)
    lua_pushfstring(L, "a step took more than its %I instructions", (LUAI_UACINT)limits->instructions);
  else
    lua_pushfstring(L, "a step took more than its %f seconds", (LUAI_UACNUMBER)limits->seconds);
  ag_error_push(L, S, "LimitError");
  lua_pushstring(L, name);
  lua_setfield(L, -2, "limit");
  if (instructions)
    lua_pushinteger(L, (lua_Integer)limits->instructions);
  else
    lua_pushnumber(L, limits->seconds);
  lua_setfield(L, -2, "value");
  /* Message handlers run with hooks off, so they must find the traceback here: looking for it in the class could run
  ** a script's __index. */
  luaL_traceback(L, L, NULL, 0);
  lua_setfield(L, -2, "traceback");
}

/* The part for cleaning up is spent, too. A thread that can yield does so, for ag_budget_resume to end it: a script
** that catches errors at each of a hundred thousand levels is not asked at every one of them. Elsewhere the error is
** raised. */
static void end_step(lua_State *L, ag_state *S) {
  ag_limiter *limiter = S->limiter;
  arm(L, 1);
  push_error(L, S, limiter->which);
  if (!lua_isyieldable(L)) {
    lua_error(L);
    return;
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
  limiter->ending = L;
  lua_yield(L, 0);
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  ag_state *S = ag_state_open(L);
  ag_limiter *limiter = S->limiter;
  if (limiter == NULL || !limiter->active) {
    disarm(L, limiter);
    return;
  }
  if (limiter->stage != AG_SPENT) {
    limiter->left -= lua_gethookcount(L);
    limiter->which = spent(limiter);
    if (limiter->which == NULL) {
      disarm(L, limiter);
      return;
    }
  }
  if (limiter->stage != AG_FREE) {
    limiter->stage = AG_SPENT;
    end_step(L, S);
    return;
  }
  begin_cleaning(limiter);
  disarm(L, limiter);
  push_error(L, S, limiter->which);
  lua_error(L);
}

/* In a signal handler on the loop's thread: a step that has been running for TICKS ticks is late. */
static void on_tick(void *data) {
  ag_limiter *limiter = data;
  if (!limiter->active)
    return;
  if (limiter->seen != limiter->steps) {
    limiter->seen = limiter->steps;
    limiter->ticks = 0;
  }
  if (++limiter->ticks < TICKS)
    return;
  limiter->late = true;
  lua_State *L = limiter->innermost;
  if (L != NULL)
    arm(L, 1);
}

bool ag_budget_init(ag_limiter *limiter) {
  const ag_limits *limits = &limiter->limits;
  if (limits->instructions == 0 && limits->seconds == 0)
    return true;
  limiter->ticking = limits->instructions == 0 && limits->signal != 0;
  if (limiter->ticking) {
    double tick = limits->seconds / TICKS;
    limiter->ticker = ag_ticker_new(limits->signal, tick < 1e-3 ? 1e-3 : tick, on_tick, limiter);
    return limiter->ticker != NULL;
  }
  limiter->every = EVERY;
  if (limits->instructions != 0 && limits->instructions / 10 < EVERY)
    limiter->every = limits->instructions < 10 ? 1 : (int)(limits->instructions / 10);
  return true;
}

/* ---- steps ---- */

static void begin(ag_limiter *limiter) {
  limiter->stage = AG_FREE;
  limiter->left = (int64_t)limiter->limits.instructions;
  limiter->deadline = 0;
  limiter->late = false;
  limiter->ending = NULL; /* one in a plain coroutine, which no ag_budget_resume has ended */
  limiter->steps++;
}

/* Sets the hook of a thread that is about to run. */
static void prepare(ag_limiter *limiter, lua_State *L) {
  if (limiter->stage == AG_SPENT)
    arm(L, 1);
  else if (limiter->every != 0 && lua_gethook(L) == NULL)
    arm(L, limiter->every);
}

bool ag_budget_open(lua_State *L, ag_state *S) {
  ag_limiter *limiter = S->limiter;
  if (limiter->active)
    return false;
  if (limiter->ticking && !ag_ticker_here(limiter->ticker)) { /* another thread steps the loop, and has no timer */
    limiter->ticking = false;
    limiter->every = EVERY;
  }
  begin(limiter);
  prepare(limiter, L);
  limiter->innermost = L;
  limiter->active = true;
  return true;
}

void ag_budget_close(ag_state *S) { S->limiter->active = false; }

bool ag_budget_suspend(ag_state *S) {
  bool was_active = S->limiter->active;
  S->limiter->active = false;
  return was_active;
}

void ag_budget_continue(lua_State *L, ag_state *S, bool was_active) {
  S->limiter->active = false;
  if (was_active)
    ag_budget_open(L, S);
}

/* The thread is about to run: that counts, too. */
static void charge(ag_limiter *limiter, lua_State *co) {
  limiter->left -= CHARGE;
  limiter->charged += CHARGE;
  if (limiter->charged < limiter->every)
    return;
  limiter->charged = 0;
  if (limiter->stage != AG_SPENT && spent(limiter) != NULL)
    arm(co, 1); /* raises there */
}

/* Closes a thread in which end_step has yielded, with what its <close> variables do that takes no instruction, and
** leaves the error on its stack as if it had been raised. */
static int end_thread(ag_limiter *limiter, lua_State *co, lua_State *from) {
  limiter->ending = NULL;
  ag_close_thread(co, from);
  lua_settop(co, 0);
  lua_rawgetp(co, LUA_REGISTRYINDEX, &error_key);
  return LUA_ERRRUN;
}

int ag_budget_resume(ag_state *S, lua_State *co, lua_State *from, int nargs, int *nres) {
  ag_limiter *limiter = S->limiter;
  lua_State *outer = limiter->innermost;
  prepare(limiter, co);
  charge(limiter, co);
  limiter->innermost = co;
  int status = lua_resume(co, from, nargs, nres);
  if (status == LUA_YIELD && limiter->ending == co)
    status = end_thread(limiter, co, from);
  limiter->innermost = outer;
  if (limiter->stage == AG_SPENT && limiter->active)
    arm(from, 1);
  return status;
}

int ag_budget_reset(ag_state *S, lua_State *co, lua_State *from) {
  ag_limiter *limiter = S->limiter;
  lua_State *outer = limiter->innermost;
  bool opened = ag_budget_open(co, S);
  prepare(limiter, co);
  limiter->innermost = co;
  int status = ag_close_thread(co, from);
  limiter->innermost = outer;
  if (opened)
    ag_budget_close(S);
  return status;
}
