/* POSIX timers, with the signal sent to the thread that asked (Linux). A signal may still be under way when its timer
** is gone, so that the memory of tickers is used again for tickers only. */
#include "core/ticker.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct ag_ticker {
  struct ag_ticker *next; /* in the list of those that are free */
  void (*volatile tick)(void *data);
  void *volatile data;
  timer_t timer;
  const char *thread; /* the thread whose time counts, or NULL */
  int signal;
  struct itimerspec interval;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ag_ticker *unused;

/* Its address tells threads apart. */
static _Thread_local char here;

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  ag_ticker *ticker = info->si_code == SI_TIMER ? info->si_value.sival_ptr : NULL;
  if (ticker == NULL || ticker->thread != &here)
    return;
  void (*tick)(void *) = ticker->tick;
  if (tick != NULL)
    tick(ticker->data);
}

static void stop(ag_ticker *ticker) {
  if (ticker->thread != NULL)
    timer_delete(ticker->timer);
  ticker->thread = NULL;
}

bool ag_ticker_here(ag_ticker *ticker) {
  if (ticker->thread == &here)
    return true;
  stop(ticker);
#ifdef SIGEV_THREAD_ID
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = ticker->signal;
  event.sigev_value.sival_ptr = ticker;
  event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
  if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &ticker->timer) != 0)
    return false;
  ticker->thread = &here;
  return timer_settime(ticker->timer, 0, &ticker->interval, NULL) == 0;
#else
  return false;
#endif
}

ag_ticker *ag_ticker_new(int number, double seconds, void (*tick)(void *data), void *data) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(number, &action, NULL) != 0)
    return NULL;
  pthread_mutex_lock(&lock);
  ag_ticker *ticker = unused;
  if (ticker != NULL)
    unused = ticker->next;
  pthread_mutex_unlock(&lock);
  if (ticker == NULL)
    ticker = calloc(1, sizeof *ticker);
  if (ticker == NULL)
    return NULL;
  ticker->thread = NULL;
  ticker->signal = number;
  if (seconds > 1e6)
    seconds = 1e6;
  ticker->interval.it_interval.tv_sec = (time_t)seconds;
  ticker->interval.it_interval.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9);
  ticker->interval.it_value = ticker->interval.it_interval;
  ticker->data = data;
  ticker->tick = tick;
  if (!ag_ticker_here(ticker)) {
    ag_ticker_free(ticker);
    return NULL;
  }
  return ticker;
}

void ag_ticker_free(ag_ticker *ticker) {
  ticker->tick = NULL;
  stop(ticker);
  ticker->data = NULL;
  pthread_mutex_lock(&lock);
  ticker->next = unused;
  unused = ticker;
  pthread_mutex_unlock(&lock);
}
