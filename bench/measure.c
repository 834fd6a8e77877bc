/* measure REPEATS COMMAND... [-- COMMAND...]: runs a command so many times, one after the other, and prints the median
** of its wall time in seconds and the largest peak of its memory in bytes. With a second command the two alternate, and
** the median of how many seconds more the first took comes too. What the commands print is thrown away. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Runs the command; its seconds. Raises *peak, in KiB. */
static double run(char **command, long *peak) {
  double started = now();
  pid_t child = vfork();
  if (child == 0) {
    int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 1);
    execvp(command[0], command);
    _exit(127);
  }
  int status;
  struct rusage usage;
  if (child < 0 || wait4(child, &status, 0, &usage) != child) {
    perror("measure");
    exit(1);
  }
  double elapsed = now() - started;
  if (usage.ru_maxrss > *peak)
    *peak = usage.ru_maxrss;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "measure: %s failed (status %d)\n", command[0], status);
    exit(1);
  }
  return elapsed;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

int main(int argc, char **argv) {
  int repeats = argc > 2 ? atoi(argv[1]) : 0;
  if (repeats < 1) {
    fprintf(stderr, "usage: measure REPEATS COMMAND... [-- COMMAND...]\n");
    return 2;
  }
  char **other = NULL;
  for (int i = 2; i < argc - 1 && other == NULL; i++) {
    if (strcmp(argv[i], "--") == 0) {
      argv[i] = NULL;
      other = argv + i + 1;
    }
  }
  double *times = calloc((size_t)repeats, sizeof *times);
  double *differences = calloc((size_t)repeats, sizeof *differences);
  long peak = 0, other_peak = 0;
  for (int i = 0; i < repeats; i++) {
    times[i] = run(argv + 2, &peak);
    if (other != NULL)
      differences[i] = times[i] - run(other, &other_peak);
  }
  printf("wall_seconds %.6f\npeak_bytes %ld\n", median(times, repeats), peak * 1024);
  if (other != NULL)
    printf("more_seconds %.6f\n", median(differences, repeats));
  return 0;
}
