/* What the parts of the scheduler's fuzz target share: the programs, what is counted while they run, and what tasks,
** callbacks and the host can do.
**   model.c   what must come of everything     act.c    what needs no waiting
**   task.c    what tasks do, and what they get  ../scheduler.c   the host */
#ifndef AGATHER_FUZZ_PROGRAM_H
#define AGATHER_FUZZ_PROGRAM_H

#include <lauxlib.h>
#include <stdint.h>

#include "model.h"

enum { PROGRAMS = 32, CALLBACKS = 64, FRAMES = 256 };

typedef struct program {
  const uint8_t *pc, *end;
} program;

/* What is to be called back once: a posted function, or one for call_soon. */
typedef struct callback {
  program code;
  int loop, called, dropped;
  bool cancelled;
} callback;

/* Counts of one input, and what is the case now. */
typedef struct play {
  program programs[PROGRAMS];
  int program_count;
  int budget; /* instructions left, of all programs together */
  int frame_count;
  callback posts[CALLBACKS], handles[CALLBACKS];
  int post_count, handle_count;
  int held[LOOPS];       /* holds of each loop */
  int holders[LOOPS][2]; /* tasks that hold its lock, its semaphore */
  bool stopped;          /* a loop was, by a task */
  bool closing[LOOPS];   /* its queues are shut */
  int nested;            /* tasks that began at once, inside others: Lua allows 200 C calls in each other */
  int blocking[LOOPS];   /* calls that return when the loop has done something */
  long items_put, items_got;
} play;

extern play P;

void split(const uint8_t *bytes, size_t size);
/* The next byte of the program, or 0. */
int next(program *p);
program program_of(int n);

/* Pushes a function of the prelude. [-0, +1] */
void push_call(lua_State *L, const char *name);
/* Pushes the lock, the queues and so on of a loop. [-0, +1] */
void push_primitives(lua_State *L, int loop);
/* Calls a function of the prelude with them. */
void with_primitives(lua_State *L, const char *what, int loop);

/* The node that the operand means, counted from the last; NULL: there is none, or it was given away. */
node *pick_known(int operand);
/* A time that the operand means, on the loop's clock. */
double seconds(int operand, int loop);
/* Whether the loop would wait for what only the host, who is blocked, can give. */
bool would_block(int loop);

/* Runs the next instruction that needs no waiting; [running]: inside a loop that runs. */
void act(lua_State *L, program *code, int loop, bool running);
/* Settles a future with a new result or error. */
void set(lua_State *L, node *n, bool error);
void cancel_node(lua_State *L, node *n);
/* Answers an operation, or gives it up. */
void answer(node *n, int how);
/* Asks for the node's outcome and checks it. */
void ask(lua_State *L, node *n);

/* The body of tasks: gets the number of its node. */
int body(lua_State *L);
/* Goes on with the program of the frame whose number it gets, inside a call. */
int go_inside(lua_State *L);

#endif
