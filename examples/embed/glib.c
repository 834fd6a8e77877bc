/* A host in a GLib main loop: agather's loop is one more source of it. The source is ready when the loop's descriptor
** is readable, when its deadline has come, or when a task is ready; being dispatched is one step.
** Build: cc glib.c $(pkg-config --cflags --libs agather lua5.4 glib-2.0) -lm; run: ./glib */
#include <agather.h>
#include <glib-unix.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>

static const char script[] = "local agather = require 'agather.core' "
                             "for i = 1, 3 do agather.sleep(0.01) print('task', i) end";

typedef struct scripts {
  GSource source; /* first: GLib makes it */
  lua_State *L;
  ag_loop *loop;
  int fd;
  gpointer tag; /* GLib's name for the descriptor in this source */
} scripts;

/* The loop's descriptor may be another one after a step. */
static void watch_descriptor(scripts *s) {
  int fd = ag_fd(s->loop);
  if (fd == s->fd)
    return;
  if (s->tag != NULL)
    g_source_remove_unix_fd(&s->source, s->tag);
  s->fd = fd;
  s->tag = fd < 0 ? NULL : g_source_add_unix_fd(&s->source, fd, G_IO_IN);
}

/* Before GLib waits: how long it may. Other sources may have made tasks ready since the last step. */
static gboolean prepare(GSource *source, gint *timeout) {
  scripts *s = (scripts *)source;
  double seconds = ag_timeout(s->loop);
  *timeout = seconds < 0 ? -1 : seconds > 86400 ? 86400000 : (gint)ceil(seconds * 1000);
  return *timeout == 0;
}

static gboolean check(GSource *source) {
  scripts *s = (scripts *)source;
  return ag_timeout(s->loop) == 0 || (s->tag != NULL && g_source_query_unix_fd(source, s->tag) != 0);
}

/* One step. The source removes itself, by what the callback returns, when no task is left. */
static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer data) {
  scripts *s = (scripts *)source;
  ag_status status = ag_step(s->L, s->loop);
  watch_descriptor(s);
  if (status == AG_MORE || status == AG_IDLE)
    return G_SOURCE_CONTINUE;
  return callback != NULL ? callback(data) : G_SOURCE_REMOVE;
}

static gboolean quit(gpointer data) {
  g_main_loop_quit((GMainLoop *)data);
  return G_SOURCE_REMOVE;
}

/* Something else that the main loop does. */
static gboolean tick(gpointer data) {
  int *ticks = (int *)data;
  printf("tick %d of GLib\n", ++*ticks);
  return *ticks < 2 ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

int main(void) {
  static GSourceFuncs functions = {.prepare = prepare, .check = check, .dispatch = dispatch};
  ag_loop *loop;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (ag_open(L) != AG_OK || ag_loop_create(L, &loop) != AG_OK || luaL_loadstring(L, script) != LUA_OK ||
      ag_spawn(L, loop, 0) != AG_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    return 1;
  }
  int ticks = 0;
  GMainLoop *main_loop = g_main_loop_new(NULL, FALSE);
  GSource *source = g_source_new(&functions, sizeof(scripts));
  scripts *s = (scripts *)source;
  s->L = L;
  s->loop = loop;
  s->fd = -1;
  watch_descriptor(s);
  g_source_set_callback(source, quit, main_loop, NULL);
  g_source_attach(source, NULL);
  g_timeout_add(5, tick, &ticks);
  g_main_loop_run(main_loop);
  g_source_destroy(source); /* before the loop that it steps */
  g_source_unref(source);
  g_main_loop_unref(main_loop);
  ag_loop_destroy(L, loop);
  lua_close(L);
  return 0;
}
