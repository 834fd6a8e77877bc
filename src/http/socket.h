/* The sockets of curl, watched by libuv, and whose turn it is. Knows curl's callbacks for sockets; what is done when
** one is ready is its owner's business, who embeds this. Loop's thread; nothing here raises. */
#ifndef AG_HTTP_SOCKET_H
#define AG_HTTP_SOCKET_H

#include <curl/curl.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

typedef struct http_socket http_socket;
TAILQ_HEAD(http_socket_list, http_socket);

/* All the sockets of one multi. */
typedef struct http_sockets {
  uv_loop_t *loop;
  http_socket **at; /* by descriptor */
  int size;
  struct http_socket_list late; /* ready, in the order they came, while their turn has not */
  uint64_t turn_end;
  bool turn_begins, closed;
  /* The owner's: a socket is ready; some are late: call http_sockets_catch_up in a turn to come; a socket holds the
  ** owner's memory, or lets it go. */
  void (*ready)(struct http_sockets *sockets, curl_socket_t fd, int flags);
  void (*has_late)(struct http_sockets *sockets);
  void (*hold)(struct http_sockets *sockets);
  void (*let_go)(struct http_sockets *sockets);
} http_sockets;

/* Lists and clock; the owner's functions are set already. */
void http_sockets_init(http_sockets *sockets, uv_loop_t *loop);
/* Frees what is left when no socket holds it any more. */
void http_sockets_clear(http_sockets *sockets);
/* A multi that hands no descriptor to children of the process, or NULL without memory. */
CURLM *http_sockets_new_multi(void);
/* Makes the sockets of a multi and of an easy handle known to [sockets]; false when out of memory. */
bool http_sockets_serve(http_sockets *sockets, CURLM *multi);
bool http_sockets_adopt(http_sockets *sockets, CURL *easy);

/* A turn is the time that curl may take at once. It begins now, or with the next socket that is ready. */
void http_sockets_turn(http_sockets *sockets);
void http_sockets_turn_next(http_sockets *sockets);
/* Whether the turn is over. */
bool http_sockets_out_of_time(const http_sockets *sockets);
/* Sockets that are late get what is left of the turn. */
void http_sockets_catch_up(http_sockets *sockets);

#endif
