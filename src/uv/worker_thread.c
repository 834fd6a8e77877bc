/* The threads of a pool. Each takes jobs off the queue until the pool closes, in a state that it keeps.
** A function that must stop is interrupted on its own thread, by a signal: lua_sethook may be called in a signal
** handler, but not from another thread, as it walks frames that the running state may free meanwhile. SIGURG, as Go
** does it: nobody is harmed by one that comes for no reason, and libc does not use it. */
#include <string.h>

#include "uv/worker.h"

/* In the static block, so that a signal handler never makes it. */
static _Thread_local worker *self __attribute__((tls_model("initial-exec")));

worker *ag_worker_self(void) { return self; }

/* ---- interrupting; the handler belongs to the process, as dispositions do ---- */

static struct sigaction previous;
static pthread_once_t installed = PTHREAD_ONCE_INIT;

static void on_signal(int number, siginfo_t *info, void *context) {
  worker *w = self;
  if (w != NULL && w->listening)
    ag_worker_interrupted(w);
  else if (previous.sa_flags & SA_SIGINFO)
    previous.sa_sigaction(number, info, context);
  else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
    previous.sa_handler(number);
}

static void install(void) {
  struct sigaction ours;
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = on_signal;
  ours.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGURG, &ours, &previous);
}

void ag_worker_stop(job *job) {
  atomic_store(&job->stop, true);
  if (job->worker != NULL)
    pthread_kill(job->worker->thread, SIGURG);
}

/* ---- the thread ---- */

static job *take(pool *p) {
  job *job = p->queue;
  p->queue = job->next;
  if (p->queue == NULL)
    p->queue_end = &p->queue;
  else
    p->queue->place = &p->queue;
  job->next = NULL;
  p->waiting--;
  return job;
}

static void signal_loop(pool *p) {
  if (p->handle_open)
    uv_async_send(&p->done_signal);
}

/* Called and left with the lock held. */
static void work_on(pool *p, worker *w, job *job) {
  job->state = JOB_RUNNING;
  job->worker = w;
  w->job = job;
  pthread_mutex_unlock(&p->lock);
  ag_worker_perform(w, job);
  bool spoiled = job->spoiled;
  pthread_mutex_lock(&p->lock);
  w->job = NULL;
  job->worker = NULL;
  job->state = JOB_DONE;
  *p->done_end = job;
  p->done_end = &job->next;
  signal_loop(p);
  if (spoiled) { /* nobody waits while it is closed */
    pthread_mutex_unlock(&p->lock);
    ag_worker_close_state(w);
    pthread_mutex_lock(&p->lock);
  }
}

static void *worker_main(void *argument) {
  worker *w = argument;
  pool *p = w->among;
  self = w;
  pthread_mutex_lock(&p->lock);
  for (;;) {
    while (p->queue == NULL && !p->closing) {
      p->idle++;
      pthread_cond_wait(&p->queued, &p->lock);
      p->idle--;
    }
    if (p->closing)
      break;
    work_on(p, w, take(p));
  }
  pthread_mutex_unlock(&p->lock);
  ag_worker_close_state(w);
  pthread_mutex_lock(&p->lock);
  p->ended++;
  pthread_cond_signal(&p->left);
  signal_loop(p);
  pthread_mutex_unlock(&p->lock);
  return NULL;
}

int ag_worker_start(pool *p) {
  pthread_once(&installed, install);
  worker *w = &p->workers[p->started];
  memset(w, 0, sizeof *w);
  w->among = p;
  sigset_t urgent, before;
  sigemptyset(&urgent);
  sigaddset(&urgent, SIGURG);
  pthread_sigmask(SIG_UNBLOCK, &urgent, &before); /* the thread inherits the mask */
  int status = pthread_create(&w->thread, NULL, worker_main, w);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (status == 0)
    p->started++;
  return status;
}
