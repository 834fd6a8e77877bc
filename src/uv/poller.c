/* The poller on libuv. The loop owns the outer iteration, so libuv's phase order does not matter: one uv_run is one
** look at the system, and all it calls only marks tasks as ready. */
#define _GNU_SOURCE /* strerrorname_np */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uv/guest.h"
#include "uv/process.h"
#include "uv/signal.h"
#include "uv/uv.h"

typedef struct reactor {
  ag_poller base;
  uv_loop_t loop;
  uv_async_t wake;
  uv_timer_t timer;
  uv_prepare_t prepare;
  uint64_t due; /* on libuv's clock: when the first timer was due as the look began */
  ag_shared shared;
  ag_guest *guest; /* or NULL */
} reactor;

/* How long a loop that closes goes on sending what was written to streams that are closed. */
enum { LINGER_SECONDS = 1 };

static void on_wake(uv_async_t *handle) { (void)handle; }
static void on_timer(uv_timer_t *handle) { (void)handle; }

/* uv_run calls what is due before it blocks. What that has made ready must not wait then: should time have passed since
** the look began, as on a busy machine, there may be nothing left that ends it. */
static void on_prepare(uv_prepare_t *handle) {
  const reactor *r = (const reactor *)(const void *)((const char *)handle - offsetof(reactor, prepare));
  if (uv_now(handle->loop) >= r->due)
    uv_stop(handle->loop); /* this look only */
}

/* Looks at the system for at most [timeout] seconds; negative: until something comes. */
static void look(reactor *r, double timeout) {
  if (timeout == 0) {
    uv_run(&r->loop, UV_RUN_NOWAIT);
    return;
  }
  uv_ref((uv_handle_t *)&r->wake);
  uv_update_time(&r->loop);
  if (timeout > 0) {
    double ms = ceil(timeout * 1000);
    uv_timer_start(&r->timer, on_timer, ms > 86400e3 ? 86400000 : (uint64_t)ms, 0);
  }
  int first = uv_backend_timeout(&r->loop);
  r->due = first >= 0 ? uv_now(&r->loop) + (uint64_t)first : UINT64_MAX;
  uv_run(&r->loop, UV_RUN_ONCE);
  uv_timer_stop(&r->timer);
  uv_unref((uv_handle_t *)&r->wake);
}

static void reactor_wait(ag_poller *poller, double timeout) {
  reactor *r = (reactor *)poller;
  look(r, ag_guest_before(r->guest, timeout));
  ag_guest_after(r->guest);
}

static void reactor_wake(ag_poller *poller) { uv_async_send(&((reactor *)poller)->wake); }

static bool reactor_alive(ag_poller *poller) {
  reactor *r = (reactor *)poller;
  return ag_guest_alive(r->guest) || uv_loop_alive(&r->loop) != 0;
}

static int reactor_fd(ag_poller *poller) { return uv_backend_fd(&((reactor *)poller)->loop); }

static double reactor_timeout(ag_poller *poller) {
  reactor *r = (reactor *)poller;
  double guest = ag_guest_timeout(r->guest);
  uv_update_time(&r->loop);
  int ms = uv_loop_alive(&r->loop) ? uv_backend_timeout(&r->loop) : -1;
  return ms < 0 || (guest >= 0 && guest < ms / 1000.0) ? guest : ms / 1000.0;
}

static void close_handle(uv_handle_t *handle, void *unused) {
  (void)unused;
  if (uv_is_closing(handle))
    return;
  if (handle->type == UV_SIGNAL) { /* must give the signal back */
    ag_signal_shut(handle);
    return;
  }
  if (handle->type == UV_PROCESS) { /* must be reaped */
    ag_process_shut(handle);
    return;
  }
  /* Handles of ours know how to close themselves: their data is a close function's argument. */
  uv_close(handle, handle->data != NULL ? *(uv_close_cb *)handle->data : NULL);
}

static reactor *new_reactor(void) {
  reactor *r = calloc(1, sizeof *r);
  if (r == NULL)
    return NULL;
  r->shared.scratch_size = AG_LARGE_BLOCK;
  r->shared.scratch = ag_block_new(&r->shared.blocks, &r->shared.scratch_size);
  if (r->shared.scratch == NULL) {
    free(r);
    return NULL;
  }
  return r;
}

static void free_reactor(reactor *r) {
  ag_block_free(&r->shared.blocks, r->shared.scratch, r->shared.scratch_size);
  ag_blocks_clear(&r->shared.blocks);
  free(r);
}

static void reactor_close(ag_poller *poller) {
  reactor *r = (reactor *)poller;
  ag_guest_leave(r->guest); /* no script has a turn from here on */
  r->guest = NULL;
  uint64_t end = uv_hrtime() + LINGER_SECONDS * UINT64_C(1000000000);
  while (r->shared.lingering > 0 && uv_hrtime() < end)
    reactor_wait(poller, 0.1);
  uv_walk(&r->loop, close_handle, NULL);
  while (uv_run(&r->loop, UV_RUN_DEFAULT) != 0) {
  }
  uv_loop_close(&r->loop);
  free_reactor(r);
}

ag_shared *ag_uv_shared(uv_loop_t *loop) {
  return &((reactor *)(void *)((char *)loop - offsetof(reactor, loop)))->shared;
}

void ag_uv_set_guest(uv_loop_t *loop, ag_guest *guest) {
  reactor *r = (reactor *)(void *)((char *)loop - offsetof(reactor, loop));
  ag_guest_leave(r->guest); /* at most one: an earlier one is asked no more */
  r->guest = guest;
}

/* Writing to a socket whose other side is gone is an error, not the end of the process. A handler of the host's stays.
 */
static void ignore_sigpipe(void) {
  struct sigaction action;
  if (sigaction(SIGPIPE, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL) {
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
  }
}

/* libuv aborts when it closes one of the first three descriptors. Where a process has closed its standard input, output
** or error, what comes next would get its number: they are /dev/null from now on. */
static int fill_standard_descriptors(void) {
  int fd;
  do
    fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd < 0)
    return -errno;
  close(fd);
  return 0;
}

/* The first uv_loop_init of a process aborts where it gets no descriptors for its pipe: it must not come to that. */
static int check_descriptors(void) {
  uv_file first[2], second[2];
  int status = uv_pipe(first, 0, 0);
  if (status != 0)
    return status;
  status = uv_pipe(second, 0, 0);
  if (status == 0) {
    close(second[0]);
    close(second[1]);
  }
  close(first[0]);
  close(first[1]);
  return status;
}

/* uv_loop_init that leaves nothing behind where it fails: libuv forgets the descriptor it waits with. */
static int init_loop(uv_loop_t *loop) {
  loop->backend_fd = -1;
  int status = uv_loop_init(loop);
  if (status != 0 && loop->backend_fd != -1)
    close(loop->backend_fd);
  return status;
}

uv_loop_t *ag_uv_loop(lua_State *L, const char *what) {
  ag_loop *loop = ag_running_loop(L, what);
  ag_poller *poller = ag_loop_poller(loop);
  if (poller->wait == reactor_wait)
    return &((reactor *)poller)->loop;
  reactor *r = new_reactor();
  if (r == NULL)
    luaL_error(L, "not enough memory");
  int status = fill_standard_descriptors();
  if (status == 0)
    status = check_descriptors();
  if (status == 0)
    status = init_loop(&r->loop);
  if (status != 0) {
    free_reactor(r);
    ag_uv_error(L, status, "epoll", NULL);
  }
  status = uv_async_init(&r->loop, &r->wake, on_wake);
  if (status != 0) {
    uv_loop_close(&r->loop);
    free_reactor(r);
    ag_uv_error(L, status, "eventfd", NULL);
  }
  uv_timer_init(&r->loop, &r->timer);
  uv_prepare_init(&r->loop, &r->prepare);
  uv_prepare_start(&r->prepare, on_prepare);
  uv_unref((uv_handle_t *)&r->prepare);
  uv_unref((uv_handle_t *)&r->wake);
  ignore_sigpipe();
  r->base = (ag_poller){reactor_wait, reactor_wake, reactor_alive, reactor_fd, reactor_close, reactor_timeout};
  ag_loop_set_poller(loop, &r->base);
  (void)fill_standard_descriptors(); /* the poller before may have had some */
  return &r->loop;
}

enum { OWN_HANDLES = 3 }; /* of the reactor: wake, timer, prepare */

static void count_handle(uv_handle_t *handle, void *count) {
  if (!uv_is_closing(handle))
    ++*(size_t *)count;
}

uv_loop_t *ag_uv_loop_for_handle(lua_State *L, const char *what) {
  uv_loop_t *loop = ag_uv_loop(L, what);
  size_t limit = ag_handle_limit(ag_running_loop(L, what));
  if (limit == 0)
    return loop;
  size_t count = 0;
  uv_walk(loop, count_handle, &count);
  if (count >= limit + OWN_HANDLES)
    ag_limit_error(L, "handles", (lua_Integer)limit);
  return loop;
}

int ag_uv_error(lua_State *L, int status, const char *operation, const char *address) {
  static const char unknown[] = "Unknown system error";
  char name[64], text[128];
  uv_err_name_r(status, name, sizeof name);
  uv_strerror_r(status, text, sizeof text);
  if (strncmp(name, unknown, sizeof unknown - 1) != 0)
    ag_os_error(L, name, -status, text, operation, address);
    /* libuv's list lacks some of the system's, such as EDQUOT and ESTALE */
#ifdef __GLIBC__
  if (strerrorname_np(-status) != NULL)
    ag_os_error(L, strerrorname_np(-status), -status, strerrordesc_np(-status), operation, address);
#endif
  ag_os_error(L, name, -status, text, operation, address);
}
