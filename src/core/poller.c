/* The built-in poller: poll(2) on a pipe of its own. */
#define _GNU_SOURCE
#include "core/poller.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct sleeper {
  ag_poller base;
  int pipe[2];
} sleeper;

static void sleeper_wait(ag_poller *poller, double timeout) {
  sleeper *s = (sleeper *)poller;
  struct pollfd fd = {s->pipe[0], POLLIN, 0};
  struct timespec limit;
  if (timeout >= 0) {
    if (timeout > 86400)
      timeout = 86400;
    limit.tv_sec = (time_t)timeout;
    limit.tv_nsec = (long)((timeout - (double)limit.tv_sec) * 1e9);
  }
  if (ppoll(&fd, 1, timeout < 0 ? NULL : &limit, NULL) > 0) {
    char buffer[64];
    while (read(s->pipe[0], buffer, sizeof buffer) > 0) {
    }
  }
}

static void sleeper_wake(ag_poller *poller) {
  sleeper *s = (sleeper *)poller;
  int saved = errno;
  ssize_t n = write(s->pipe[1], "", 1); /* a full pipe wakes as well */
  (void)n;
  errno = saved;
}

static bool sleeper_alive(ag_poller *poller) {
  (void)poller;
  return false;
}

static int sleeper_fd(ag_poller *poller) { return ((sleeper *)poller)->pipe[0]; }

static void sleeper_close(ag_poller *poller) {
  sleeper *s = (sleeper *)poller;
  close(s->pipe[0]);
  close(s->pipe[1]);
  free(s);
}

ag_poller *ag_sleeper_new(void) {
  sleeper *s = calloc(1, sizeof *s);
  if (s == NULL)
    return NULL;
  if (pipe2(s->pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
    free(s);
    return NULL;
  }
  s->base = (ag_poller){sleeper_wait, sleeper_wake, sleeper_alive, sleeper_fd, sleeper_close, NULL};
  return &s->base;
}
