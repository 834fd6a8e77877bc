/* Posting: functions that other threads have the loop run. A posted function becomes a node of the ready queue when
** the loop takes its mail, so it runs in turn with the tasks. */
#include "core/post.h"

#include <assert.h>
#include <stdlib.h>

#include "core/error.h"
#include "core/limits.h"
#include "core/op.h"
#include "core/report.h"

typedef struct post {
  ag_node node;
  bool called;
  ag_post_fn fn;
  void (*drop)(void *data);
  void *data;
} post;

static void drop_post(post *p) {
  if (!p->called && p->drop != NULL)
    p->drop(p->data);
  free(p);
}

static int call_posted(lua_State *L) {
  post *p = lua_touserdata(L, 1);
  lua_settop(L, 0);
  p->called = true;
  p->fn(L, p->data);
  return 0;
}

static void run_post(ag_loop *loop, lua_State *L, ag_node *node) {
  post *p = ag_container(node, post, node);
  lua_pushcfunction(L, call_posted);
  lua_pushlightuserdata(L, p);
  bool opened = loop->S->limiter != NULL && ag_budget_open(L, loop->S);
  int status = lua_pcall(L, 1, 0, 0);
  if (opened)
    ag_budget_close(loop->S);
  loop->runs = NULL; /* the node goes: should reporting fail, nobody must look at it */
  drop_post(p);
  if (status != LUA_OK) {
    ag_error_wrap(L, loop->S, -1);
    ag_report(L, loop, "Exception in posted function", 0);
  }
}

ag_status ag_post(ag_remote *remote, ag_post_fn fn, void (*drop)(void *data), void *data) {
  post *p = malloc(sizeof *p);
  if (p != NULL) {
    *p = (post){{{NULL, NULL}, run_post}, false, fn, drop, data};
    if (ag_remote_put(remote, &p->node))
      return AG_OK;
    drop_post(p);
    return AG_CLOSED;
  }
  if (drop != NULL)
    drop(data);
  return AG_NO_MEMORY;
}

ag_remote *ag_loop_remote(ag_loop *loop) { return loop->closed ? NULL : ag_remote_ref(loop->remote); }

void ag_loop_hold(ag_loop *loop) { loop->outside++; }

void ag_loop_release(ag_loop *loop) {
  assert(loop->outside > 0);
  loop->outside--;
}

/* Moves what other threads have put among the nodes of [list] to the chain that ends at [last]; returns its end. */
static ag_link **collect_mail(ag_link **last, ag_link *list) {
  for (ag_link *l = list->next, *next; l != list; l = next) {
    next = l->next;
    ag_node *node = ag_container(l, ag_node, link);
    if (node->run != run_post && ag_op_of(node) == NULL)
      continue;
    ag_link_remove(l);
    l->next = NULL;
    *last = l;
    last = &l->next;
  }
  return last;
}

void ag_post_close(ag_loop *loop) {
  ag_ops_close(loop);
  ag_link rest, *mail = NULL;
  ag_link_init(&rest);
  ag_remote_close(loop->remote, &rest);
  collect_mail(collect_mail(collect_mail(&mail, &loop->current), &loop->ready), &rest);
  for (ag_link *next; mail != NULL; mail = next) { /* what is called here finds no list that it could change */
    next = mail->next;
    ag_node *node = ag_container(mail, ag_node, link);
    if (node->run == run_post)
      drop_post(ag_container(node, post, node));
    else
      ag_op_finish(ag_op_of(node));
  }
}
