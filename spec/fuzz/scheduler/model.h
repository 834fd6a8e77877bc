/* What the scheduler's fuzz target expects of every future, task and gather. A node stands for each: what it must have
** become is known here, or, where the loop settles it some turns later, what it may have become.
** The model is loose once something cancels unseen: a deadline, a group, a loop that closes. Then a cancellation is
** accepted anywhere; results and errors are exact all the same. So it is once a cancellation has gone in a circle. */
#ifndef AGATHER_FUZZ_MODEL_H
#define AGATHER_FUZZ_MODEL_H

#include <agather.h>
#include <stdarg.h>

enum { LOOPS = 3, NODES = 96, CHILDREN = 5 };

enum kind { FUTURE, TASK, GATHER, SHIELD, OPERATION };

typedef struct node node;
struct node {
  enum kind kind;
  int loop;
  bool known;             /* its value stands in the table of values */
  ag_future_status state; /* AG_PENDING: not settled, or the loop has not told yet */
  lua_Integer tag;        /* of its result or error: see tag_of */
  int watches, watched;   /* callbacks that were asked for, and that have come */
  /* tasks */
  bool started, must_cancel, visiting;
  bool stopped; /* the library has ended it, at a limit */
  node *waits;  /* what it awaits; NULL: something else, or nothing */
  /* gathers, and shields with one child */
  node *children[CHILDREN];
  int count, height;
  bool return_exceptions, cancel_requested;
  /* operations */
  ag_op *op;
  bool answered, answer_failed, given_up;
  int pushed, released, unwanted;
};

typedef struct world {
  ag_loop *loops[LOOPS];
  bool made[LOOPS], destroyed[LOOPS], gone[LOOPS], virtual_clock[LOOPS]; /* destroyed: also while that is done */
  node nodes[NODES];
  int count;
  bool loose, circles, limited;
  bool spent; /* a budget: what ran then may have stopped anywhere, holding anything */
  bool knots; /* a group and its tasks may wait for each other: it takes every cancellation, as asyncio's does */
  lua_Integer next_tag;
} world;

extern world W;

/* Prints what is wrong and aborts. */
AG_NORETURN void wrong(const char *format, ...);

/* The table of values is the registry's field "values", by node number; [0, +1]. */
void push_value(lua_State *L, const node *n);
/* Pops the node's value. */
void set_value(lua_State *L, node *n);
node *new_node(enum kind kind, int loop);
int number(const node *n);

/* A number that stands for a result or an error: itself, or where it is. */
lua_Integer tag_of(lua_State *L, int index);
bool is_cancelled_error(lua_State *L, int index);
/* Whether it is of the limit [name]; NULL: of any. */
bool is_limit_error(lua_State *L, int index, const char *name);
/* A budget was spent, in [n] or, NULL, elsewhere: notes that the model is not sure any more. */
void note_spent(node *n);
/* The same if the error at [index] says so; whether it does. */
bool note_if_spent(lua_State *L, int index, node *n);
/* lua_call for functions of the prelude, which a budget may stop: notes that. [-(nargs + 1), +nresults] */
void call_prelude(lua_State *L, int nargs, int nresults);
/* Pushes what was raised, of an error object. [-0, +1] */
void push_raised(lua_State *L, int index);
/* A new result or error; pushed. [-0, +1] */
lua_Integer push_tagged(lua_State *L, bool error);

/* What the library says of the node; the model takes note, and objects. */
ag_future_status observe(lua_State *L, node *n);
void settle(node *n, ag_future_status state, lua_Integer tag);
/* Somebody cancels the node; whether it accepts. Called before the library is. */
bool cancel(lua_State *L, node *n);
/* Whether awaiting [n] would lead to [task] again. */
bool reaches(const node *n, const node *task);
/* Whether the value may be the result, the error, of the settled node. */
bool fits_result(lua_State *L, int index, node *n);
bool fits_error(lua_State *L, int index, node *n);

#endif
