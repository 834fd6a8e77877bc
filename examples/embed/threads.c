/* Two Lua states in two threads, each with a loop of its own, that send each other text. Nothing of Lua is shared: a
** message is copied into plain memory, posted to the other loop, and becomes a string there.
** send(text) tells whether the other side is still there; receive() waits, and gives nil when the other side has ended.
** Build: cc threads.c $(pkg-config --cflags --libs agather lua5.4) -lpthread */
#include <agather.h>
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char asking[] = "for i = 1, 3 do send('ping ' .. i) print(receive()) end";
static const char answering[] = "for text in receive do require('agather.core').sleep(0.001) send('pong to ' .. text) "
                                "end print('nobody is left to answer')";

/* One of the two. Belongs to its thread but for [mailbox], which the other side posts to. */
typedef struct side {
  const char *script;
  struct side *other;
  lua_State *L;
  ag_loop *loop;
  ag_remote *mailbox;
  struct message *first, **last; /* arrived, not yet received */
  bool other_ended;
  ag_wait reader; /* the task in receive() */
  bool failed;
} side;

typedef struct message {
  struct message *next;
  side *to;
  size_t length;
  bool end; /* the sender has ended: no text */
  char text[];
} message;

/* Runs on the receiving loop's thread. */
static void deliver(lua_State *L, void *data) {
  (void)L;
  message *m = data;
  side *s = m->to;
  if (m->end) {
    s->other_ended = true;
    ag_loop_release(s->loop); /* no more posts will come */
    free(m);
  } else {
    m->next = NULL;
    *s->last = m;
    s->last = &m->next;
  }
  ag_wake(&s->reader);
}

/* Posts a copy of the text (NULL: the end). From here on the message is the other loop's: it delivers or frees it. */
static bool post(side *from, const char *text, size_t length) {
  message *m = malloc(sizeof *m + length);
  if (m == NULL)
    return false;
  m->to = from->other;
  m->length = length;
  m->end = text == NULL;
  if (text != NULL)
    memcpy(m->text, text, length);
  return ag_post(from->other->mailbox, deliver, free, m) == AG_OK;
}

/* ---- what scripts call ---- */

static side *side_of(lua_State *L) { return lua_touserdata(L, lua_upvalueindex(1)); }

static int send_text(lua_State *L) {
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  lua_pushboolean(L, post(side_of(L), text, length));
  return 1;
}

/* Runs when there may be a message: at once, or after the wait. */
static int received(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  side *s = side_of(L);
  message *m = s->first;
  if (m == NULL) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushlstring(L, m->text, m->length);
  if ((s->first = m->next) == NULL)
    s->last = &s->first;
  free(m);
  return 1;
}

/* The task was cancelled while it waited: it is not in deliver's way any more, so there is nothing to undo. */
static void stop_waiting(ag_wait *wait) { (void)wait; }

static int receive(lua_State *L) {
  side *s = side_of(L);
  if (s->first != NULL || s->other_ended)
    return received(L, LUA_OK, 0);
  if (ag_waiting(&s->reader))
    return luaL_error(L, "another task receives");
  s->reader.cancel = stop_waiting;
  return ag_suspend(L, &s->reader, 0, received);
}

/* ---- the threads ---- */

static bool open_side(side *s, const char *script, side *other) {
  s->script = script;
  s->other = other;
  s->last = &s->first;
  s->L = luaL_newstate();
  luaL_openlibs(s->L);
  if (ag_open(s->L) != AG_OK || ag_loop_create(s->L, &s->loop) != AG_OK)
    return false;
  s->mailbox = ag_loop_remote(s->loop);
  ag_loop_hold(s->loop); /* a task that waits for a message waits for something that may come */
  lua_pushlightuserdata(s->L, s);
  lua_pushcclosure(s->L, send_text, 1);
  lua_setglobal(s->L, "send");
  lua_pushlightuserdata(s->L, s);
  lua_pushcclosure(s->L, receive, 1);
  lua_setglobal(s->L, "receive");
  return true;
}

static void *run_side(void *data) {
  side *s = data;
  lua_State *L = s->L;
  s->failed = luaL_loadstring(L, s->script) != LUA_OK || ag_spawn(L, s->loop, 0) != AG_OK ||
              ag_run_until(L, s->loop, -1) != AG_OK || ag_future_outcome(L, -1) != AG_OK;
  if (s->failed)
    fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  post(s, NULL, 0);
  lua_close(L); /* closes the loop; what the other side posts from here on is refused and freed */
  for (message *m; (m = s->first) != NULL; free(m))
    s->first = m->next;
  return NULL;
}

int main(void) {
  static side one, two; /* both are there until both threads have ended */
  if (!open_side(&one, asking, &two) || !open_side(&two, answering, &one))
    return 1;
  pthread_t thread;
  if (pthread_create(&thread, NULL, run_side, &two) != 0)
    return 1;
  run_side(&one);
  pthread_join(thread, NULL);
  ag_remote_unref(one.mailbox);
  ag_remote_unref(two.mailbox);
  return one.failed || two.failed;
}
