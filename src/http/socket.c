/* Sockets that curl opens, watches and closes, as libuv's poll handles. */
#include "http/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
  TURN_NS = 2000000, /* if that can be helped: curl is not interrupted */
  MAX_FD = 1 << 22
};

/* A socket that libuv watches. In [at] by its descriptor until curl closes that; the memory lives until libuv has
** closed the poll handle. */
struct http_socket {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_poll_t poll;
  http_sockets *all;
  int fd;
  int events;     /* what libuv watches for */
  bool wanted;    /* curl waits for it, so the program does */
  bool connected; /* then curl tells us when it closes it; before that it does not */
  bool is_late;   /* on [late]; [flags] say for what it is ready */
  int flags;
  TAILQ_ENTRY(http_socket) link;
};

/* ---- turns ---- */

void http_sockets_turn(http_sockets *sockets) {
  sockets->turn_end = uv_hrtime() + TURN_NS;
  sockets->turn_begins = false;
}

void http_sockets_turn_next(http_sockets *sockets) { sockets->turn_begins = true; }

bool http_sockets_out_of_time(const http_sockets *sockets) { return uv_hrtime() > sockets->turn_end; }

static void not_late(http_socket *s) {
  if (s->is_late)
    TAILQ_REMOVE(&s->all->late, s, link);
  s->is_late = false;
  s->flags = 0;
}

void http_sockets_catch_up(http_sockets *sockets) {
  http_socket *s;
  while ((s = TAILQ_FIRST(&sockets->late)) != NULL && !http_sockets_out_of_time(sockets)) {
    int flags = s->flags;
    not_late(s);
    sockets->ready(sockets, s->fd, flags);
  }
}

/* ---- watching ---- */

static void on_socket_closed(uv_handle_t *handle) {
  http_socket *s = handle->data;
  http_sockets *all = s->all;
  not_late(s);
  if (s->fd < all->size && all->at[s->fd] == s)
    all->at[s->fd] = NULL;
  free(s);
  all->let_go(all);
}

/* Stops watching for good. The descriptor may be closed right after. */
static void forget(http_socket *s) {
  not_late(s);
  s->all->at[s->fd] = NULL;
  s->wanted = false;
  if (!uv_is_closing((uv_handle_t *)&s->poll))
    uv_close((uv_handle_t *)&s->poll, on_socket_closed);
}

static http_socket *socket_at(const http_sockets *all, curl_socket_t fd) {
  return fd >= 0 && fd < all->size ? all->at[fd] : NULL;
}

/* Room for a descriptor; false when out of memory. */
static bool make_room(http_sockets *all, curl_socket_t fd) {
  if (fd < 0 || fd >= MAX_FD)
    return false;
  if (fd < all->size)
    return true;
  int size = all->size != 0 ? all->size : 64;
  while (size <= fd)
    size *= 2;
  http_socket **at = realloc(all->at, (size_t)size * sizeof(void *));
  if (at == NULL)
    return false;
  memset(at + all->size, 0, (size_t)(size - all->size) * sizeof(void *));
  all->at = at;
  all->size = size;
  return true;
}

static http_socket *watch(http_sockets *all, curl_socket_t fd) {
  http_socket *s = make_room(all, fd) ? calloc(1, sizeof *s) : NULL;
  if (s == NULL)
    return NULL;
  if (uv_poll_init(all->loop, &s->poll, fd) != 0) {
    free(s);
    return NULL;
  }
  s->on_close = on_socket_closed;
  s->poll.data = s;
  s->all = all;
  s->fd = fd;
  uv_unref((uv_handle_t *)&s->poll);
  all->at[fd] = s;
  all->hold(all);
  return s;
}

static void on_socket(uv_poll_t *poll, int status, int events) {
  http_socket *s = poll->data;
  http_sockets *all = s->all;
  if (!s->wanted) {
    /* An idle connection: its peer has closed it, which curl finds out when it looks at it next. */
    uv_poll_stop(poll);
    s->events = 0;
    return;
  }
  if (all->turn_begins)
    http_sockets_turn(all);
  /* What is wrong with it curl learns from the socket: it takes a CURL_CSELECT_ERR alone for the end of the transfer,
  ** though an answer may have come before a connection was reset, and one that was reset while it was idle may be
  ** replaced. libuv has stopped it, and tells not for what it is ready. It goes on with one that curl has read from,
  ** for there may be more; another curl may close behind our back, and libuv must not come across it. */
  if (status < 0) {
    events = s->events;
    s->events = 0;
    if ((s->connected || (events & UV_READABLE)) && uv_poll_start(poll, events, on_socket) == 0)
      s->events = events;
  }
  int flags = 0;
  if (events & UV_READABLE)
    flags |= CURL_CSELECT_IN;
  if (events & UV_WRITABLE)
    flags |= CURL_CSELECT_OUT;
  if (!http_sockets_out_of_time(all) && TAILQ_EMPTY(&all->late)) {
    all->ready(all, s->fd, flags);
    return;
  }
  /* Others want a turn. In the order they came, so that busy sockets do not keep others from theirs. */
  s->flags |= flags;
  if (!s->is_late)
    TAILQ_INSERT_TAIL(&all->late, s, link);
  s->is_late = true;
  all->has_late(all);
}

static void want(http_socket *s, int events) {
  if (s->events != events && uv_poll_start(&s->poll, events, on_socket) == 0)
    s->events = events;
  s->wanted = true;
  uv_ref((uv_handle_t *)&s->poll);
}

/* ---- what curl calls ---- */

/* CURLMOPT_SOCKETFUNCTION. A connection that becomes idle stays in libuv's set, unreferenced: most are used again at
** once, and each change of the set is a system call. */
static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *data, void *unused) {
  (void)easy, (void)unused;
  http_sockets *all = data;
  http_socket *s = socket_at(all, fd);
  if (all->closed)
    return 0;
  if (what == CURL_POLL_REMOVE) {
    if (s == NULL)
      return 0;
    s->wanted = false;
    not_late(s);
    uv_unref((uv_handle_t *)&s->poll);
    if (!s->connected)
      forget(s);
    return 0;
  }
  if (s == NULL && (s = watch(all, fd)) == NULL)
    return -1;
  s->connected = s->connected || what == CURL_POLL_IN;
  want(s, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0));
  return 0;
}

/* CURLOPT_OPENSOCKETFUNCTION. One that had the same number was closed behind our back, as curl does it while it
** connects; to curl both are one, so what it wants of the old it will not say again. */
static curl_socket_t open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address) {
  (void)purpose;
  http_sockets *all = data;
  if (all->closed)
    return CURL_SOCKET_BAD;
  int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
  if (fd < 0)
    return CURL_SOCKET_BAD;
  http_socket *old = socket_at(all, fd);
  int events = old != NULL && old->wanted ? old->events : 0;
  if (old != NULL)
    forget(old);
  http_socket *s = watch(all, fd);
  if (s == NULL) {
    close(fd);
    errno = ENOMEM;
    return CURL_SOCKET_BAD;
  }
  if (events != 0)
    want(s, events);
  return fd;
}

/* CURLOPT_CLOSESOCKETFUNCTION, for sockets that were connected. */
static int close_socket(void *data, curl_socket_t fd) {
  http_socket *s = socket_at(data, fd);
  if (s != NULL)
    forget(s);
  return close(fd);
}

bool http_sockets_adopt(http_sockets *sockets, CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, sockets);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, sockets);
  return curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket) == CURLE_OK;
}

bool http_sockets_serve(http_sockets *sockets, CURLM *multi) {
  curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, sockets);
  return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_wanted) == CURLM_OK;
}

/* Whether it is an end of a pair of sockets without names. */
static bool is_of_pair(int fd) {
  struct sockaddr_un address = {.sun_family = AF_UNSPEC};
  socklen_t size = sizeof address;
  return getsockname(fd, (struct sockaddr *)&address, &size) == 0 && address.sun_family == AF_UNIX &&
         size == sizeof address.sun_family;
}

CURLM *http_sockets_new_multi(void) {
  /* The pair by which other threads could wake it would go to children (curl 7.88), and nothing tells its numbers: they
  ** are the lowest that are free. */
  int lowest[2];
  for (int i = 0; i < 2; i++)
    lowest[i] = open("/", O_RDONLY | O_CLOEXEC);
  for (int i = 0; i < 2; i++)
    if (lowest[i] >= 0)
      close(lowest[i]);
  CURLM *multi = curl_multi_init();
  for (int i = 0; i < 2 && multi != NULL; i++)
    if (lowest[i] >= 0 && is_of_pair(lowest[i]))
      fcntl(lowest[i], F_SETFD, FD_CLOEXEC);
  return multi;
}

void http_sockets_init(http_sockets *sockets, uv_loop_t *loop) {
  sockets->loop = loop;
  TAILQ_INIT(&sockets->late);
  http_sockets_turn(sockets);
}

void http_sockets_clear(http_sockets *sockets) {
  free(sockets->at);
  sockets->at = NULL;
  sockets->size = 0;
}
