/* A transfer: one request that curl makes and its response, as a userdata that a task waits on. Knows the multi.
** Its memory outlives the userdata until curl has let go of it. */
#ifndef AG_HTTP_TRANSFER_H
#define AG_HTTP_TRANSFER_H

#include "http/multi.h"

#include <lauxlib.h>

#include "noreturn.h"

#define TRANSFER "agather.http.Transfer"
#define SHARE "agather.http.Share"

/* Bytes; data[start, end) are there. */
typedef struct buffer {
  char *data;
  size_t start, end, size;
} buffer;

/* What clients keep between their transfers: cookies and TLS sessions. Counted by its users. */
typedef struct http_share {
  CURLSH *curl;
  size_t refs;
  bool cookies;
} http_share;

/* Lets go of it; NULL is harmless. */
void http_share_unref(http_share *share);

/* Why curl was told to stop. */
typedef enum http_refusal { REFUSED_NOT, REFUSED_BODY, REFUSED_HEAD, REFUSED_MEMORY } http_refusal;

/* Freed when it is not owned by a userdata and its job is idle. */
typedef struct transfer {
  http_job job; /* first */
  ag_wait wait;
  http_multi *multi;
  http_share *share;
  struct curl_slist *headers, *resolve;
  char error[CURL_ERROR_SIZE];
  buffer head, body, upload;
  size_t head_start;   /* where the last block of headers begins in [head] */
  curl_off_t seen;     /* bytes of the body so far, decoded */
  curl_off_t max_body; /* no more of them than this; negative: no limit */
  bool owned, started, ended, closed;
  bool stream;         /* the body is read while it comes */
  bool may_retry_auth; /* the head is known to be the last one only when the body begins */
  bool head_whole;     /* its empty line has come */
  bool head_done, body_paused, upload_paused, upload_over;
  http_refusal refusal;
  CURLcode code;
  http_end why;
  long os_error; /* errno behind [code], or 0 */
} transfer;

/* Appends [n] bytes; false when out of memory. */
bool http_buffer_add(buffer *b, const char *data, size_t n);

/* Sets the callbacks that every transfer has. */
void http_transfer_prepare(transfer *t);
/* Sets curl's options from the table at [index]. [-0, +0, e] In request.c. */
void http_request_set(lua_State *L, int index, transfer *t);

/* Each adds its functions to the module table on top of the stack. */
void http_open_transfer(lua_State *L);
void http_open_share(lua_State *L);
void http_open_url(lua_State *L);

#endif
