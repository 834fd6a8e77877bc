/* Once it is loaded: a host that reaps every child of the process, also those that are not its own. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void *reap(void *unused) {
  (void)unused;
  for (;;) {
    if (waitpid(-1, NULL, 0) < 0)
      usleep(1000); /* there is none */
  }
  return NULL;
}

__attribute__((constructor)) static void begin(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, reap, NULL);
}
