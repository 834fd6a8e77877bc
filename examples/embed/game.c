/* A game with fixed steps of 1/60 s: scripts run as tasks and get 2 ms of each frame; what they do not finish goes
** on in the next. frame() lets a script wait for the next frame: a builtin that waits, written in C.
** Build: cc game.c $(pkg-config --cflags --libs agather lua5.4); run: ./game */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, nanosleep */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <time.h>

static const double frame_seconds = 1.0 / 60, script_seconds = 0.002;

static const char script[] = "local agather = require 'agather.core' "
                             "local function walk(name, steps) "
                             "  for _ = 1, steps do frame() end "
                             "  print(name .. ' has walked ' .. steps .. ' steps') "
                             "end "
                             "local function think() "
                             "  for i = 1, 30000 do local _ = i * i end "
                             "end "
                             "agather.spawn(walk, 'the fox', 5) "
                             "agather.spawn(walk, 'the snail', 20) "
                             "local plans = {} "
                             "for i = 1, 400 do plans[i] = think end "
                             "local first = frame() "
                             "agather.await(agather.gather_list(plans)) "
                             "print(#plans .. ' plans were made in one frame: ' .. tostring(frame() - first < 2))";

/* A task that waits for the next frame. It lives on the Lua stack of the waiting call, and in a list. */
typedef struct waiter {
  ag_wait wait; /* first: the library hands it to leave() */
  struct waiter *next, **link;
} waiter;

typedef struct game {
  int frame;
  waiter *waiters;
} game;

/* The task was cancelled: nobody shall wake it. */
static void leave(ag_wait *wait) {
  waiter *w = (waiter *)wait;
  *w->link = w->next;
  if (w->next != NULL)
    w->next->link = w->link;
}

/* What frame() returns once the task runs again. */
static int frame_came(lua_State *L, int status, lua_KContext context) {
  (void)status;
  lua_pushinteger(L, ((game *)context)->frame);
  return 1;
}

/* frame(): waits for the next frame and returns its number. */
static int frame(lua_State *L) {
  game *g = (game *)lua_touserdata(L, lua_upvalueindex(1));
  waiter *w = (waiter *)lua_newuserdatauv(L, sizeof *w, 0);
  *w = (waiter){.wait = {.cancel = leave}, .next = g->waiters, .link = &g->waiters};
  if (g->waiters != NULL)
    g->waiters->link = &w->next;
  g->waiters = w;
  return ag_suspend(L, &w->wait, (lua_KContext)g, frame_came);
}

static void next_frame(game *g) {
  g->frame++;
  waiter *w = g->waiters;
  g->waiters = NULL; /* who waits again waits for the frame after this one */
  while (w != NULL) {
    waiter *next = w->next;
    ag_wake(&w->wait);
    w = next;
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void sleep_until(double deadline) {
  double left = deadline - now();
  struct timespec t = {0, (long)(left * 1e9)};
  if (left > 0 && left < 1)
    nanosleep(&t, NULL);
}

int main(void) {
  game g = {0, NULL};
  ag_loop *loop;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_pushlightuserdata(L, &g);
  lua_pushcclosure(L, frame, 1);
  lua_setglobal(L, "frame");
  if (ag_open(L) != AG_OK || ag_loop_create(L, &loop) != AG_OK || luaL_loadstring(L, script) != LUA_OK ||
      ag_spawn(L, loop, 0) != AG_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    return 1;
  }
  ag_status status = AG_MORE;
  for (double deadline = now(); status >= 0 && status != AG_DONE; deadline += frame_seconds) {
    next_frame(&g);
    /* ... here the game moves and draws ... */
    status = ag_step_for(L, loop, script_seconds);
    sleep_until(deadline + frame_seconds);
  }
  ag_loop_destroy(L, loop);
  lua_close(L);
  return status == AG_DONE ? 0 : 1;
}
