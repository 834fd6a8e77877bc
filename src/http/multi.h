/* One curl multi handle per loop, driven by the loop's libuv. Knows jobs: an easy handle with deadlines that ends once.
** Must not know requests, bodies or Lua values. All of it belongs to the loop's thread, and nothing here raises but
** http_multi_of. */
#ifndef AG_HTTP_MULTI_H
#define AG_HTTP_MULTI_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "agather.h"
#include "noreturn.h"

typedef struct http_multi http_multi;

/* Why a job ended, when it was not curl that ended it. */
typedef enum http_end { HTTP_CURL, HTTP_TIMEOUT_TOTAL, HTTP_TIMEOUT_CONNECT, HTTP_TIMEOUT_READ, HTTP_CLOSED } http_end;

typedef enum http_job_state {
  HTTP_IDLE,    /* curl does not know it: on no list */
  HTTP_QUEUED,  /* on [queued]: curl will get it */
  HTTP_RUNNING, /* on [running]: curl has it */
  HTTP_DROPPED  /* on [dropped]: curl has it and will be told to let it go */
} http_job_state;

/* One transfer, embedded in what it is for. Zero it before use.
** It is on the list that its state names; [ended] has been called exactly when it is neither queued nor running. */
typedef struct http_job http_job;
struct http_job {
  TAILQ_ENTRY(http_job) link;
  http_multi *multi;
  CURL *easy;
  http_job_state state;
  /* Deadlines, in milliseconds of the libuv loop's clock; 0 for none. */
  uint64_t total_at, connect_at;
  uint64_t read_ms;        /* longest time without a byte once connected; 0 for no limit */
  uint64_t moved;          /* when the last byte moved */
  bool connected, stalled; /* stalled: waits for us, not for the peer */
  /* Called once, when curl has let the job go or it ran out of time (then curl still has it). */
  void (*ended)(http_job *job, CURLcode code, http_end why);
  /* Called when curl has let go of a job that was dropped; may free the job. */
  void (*gone)(http_job *job);
};

/* The multi of the running loop; borrowed, hold it with http_multi_ref. Raises outside a loop. [-0, +0, e] */
http_multi *http_multi_of(lua_State *L, const char *what);
void http_multi_ref(http_multi *m);
void http_multi_unref(http_multi *m);
/* Whether the loop has closed; then nothing is done by it any more. */
bool http_multi_closed(const http_multi *m);
/* ag_wake, from within callbacks of jobs: it keeps libuv from sleeping on it. */
void http_multi_wake(http_multi *m, ag_wait *wait);
/* Milliseconds on the loop's clock. */
uint64_t http_multi_now(const http_multi *m);

/* Gives [job], which is idle and has its easy handle, to curl: at once, or soon when many come. Sets its deadlines from
** now on: [total], [connect] and [read] in milliseconds, 0 for none. */
void http_multi_add(http_multi *m, http_job *job, uint64_t total, uint64_t connect, uint64_t read);
/* Takes a job away without [ended]. True: curl has let go of it. False: it will soon, and calls [gone]. */
bool http_multi_drop(http_job *job);
/* Says that the time to read counts from now on: after [connected] or [stalled] changed. */
void http_multi_moved(http_job *job);
/* Lets paused directions of a running job go on, as curl_easy_pause does. May call the job's callbacks; after an error
** that one of them made, curl goes on as if nothing were, so drop the job then. */
CURLcode http_multi_pause(http_job *job, int mask);
/* Closes the idle connections as soon as no job is there, unless one is added before. */
void http_multi_trim(http_multi *m);

/* Sets the options of [easy] that make its sockets known to [m]; false when out of memory. */
bool http_multi_adopt(http_multi *m, CURL *easy);

#endif
