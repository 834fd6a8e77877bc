/* load PROTOCOL CONNECTIONS SECONDS SIZE -- COMMAND...: starts a server, loads it, and says what it did.
** The server prints the port that it listens on as its first line. Each connection sends a request, waits for the
** whole response and sends the next: "echo" sends SIZE bytes and compares what comes back; "http" asks for / and looks
** for the Content-Length of the first response, which all the others must have.
** Prints requests per second, and the processor time (user and system, from /proc/PID/stat) that the server took per
** request, which tells more than the former where this program is the bottleneck. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_SECONDS = 20, READ_SIZE = 1 << 16 };

typedef struct connection {
  int fd;
  size_t sent, received; /* of the request and the response under way */
} connection;

static char *request;
static size_t request_size, response_size; /* response_size: 0 until the first HTTP response told it */
static bool http;
static pid_t server;
static char data[READ_SIZE];

static void stop_server(void) {
  if (server > 0) {
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    server = 0;
  }
}

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("load: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  stop_server();
  exit(1);
}

static double now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- the server ---- */

/* Starts it; the port that it prints. It dies with this program. */
static int start_server(char **command) {
  int out[2];
  if (pipe(out) != 0)
    fail("pipe: %s", strerror(errno));
  server = fork();
  if (server == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out[1], 1);
    close(out[0]);
    close(out[1]);
    execvp(command[0], command);
    perror(command[0]);
    _exit(127);
  }
  close(out[1]);
  char line[32];
  size_t have = 0;
  double deadline = now() + START_SECONDS;
  while (memchr(line, '\n', have) == NULL) {
    struct pollfd ready = {.fd = out[0], .events = POLLIN};
    double left = deadline - now();
    if (left <= 0 || have == sizeof line - 1 || poll(&ready, 1, (int)(left * 1000)) <= 0)
      fail("the server did not print its port in %d seconds", START_SECONDS);
    ssize_t got = read(out[0], line + have, sizeof line - 1 - have);
    if (got <= 0)
      fail("the server ended before it printed its port");
    have += (size_t)got;
  }
  line[have] = '\0';
  return atoi(line);
}

/* Seconds of processor time that all threads of the server took until now. */
static double server_time(void) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)server);
  FILE *file = fopen(path, "r");
  size_t got = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
  if (file != NULL)
    fclose(file);
  text[got] = '\0';
  const char *after_name = strrchr(text, ')'); /* the name may hold anything */
  unsigned long user, system;
  if (after_name == NULL ||
      sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
    fail("the server ended");
  return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- the connections ---- */

static void send_rest(connection *c) {
  ssize_t done = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
  if (done < 0 && errno != EAGAIN)
    fail("send: %s", strerror(errno));
  if (done > 0)
    c->sent += (size_t)done;
}

/* The first response tells the size of all; it is small enough to come in one piece. */
static void learn_size(size_t got) {
  data[got] = '\0';
  char *body = strstr(data, "\r\n\r\n"), *length = strcasestr(data, "\r\ncontent-length:");
  if (strncmp(data, "HTTP/1.1 200", 12) != 0 || body == NULL || length == NULL || length > body)
    fail("not a response with a length: %.80s", data);
  response_size = (size_t)(body + 4 - data) + strtoul(length + 17, NULL, 10);
}

/* Reads what there is; the number of responses that ended with it, 0 or 1. */
static long receive_some(connection *c) {
  ssize_t got = recv(c->fd, data, sizeof data - 1, 0);
  if (got < 0 && errno == EAGAIN)
    return 0;
  if (got <= 0)
    fail("the server closed a connection%s%s", got < 0 ? ": " : "", got < 0 ? strerror(errno) : "");
  if (response_size == 0)
    learn_size((size_t)got);
  if (c->received + (size_t)got > response_size)
    fail("the server sent more than asked for");
  if (!http && memcmp(data, request + c->received, (size_t)got) != 0)
    fail("the echo differs from what was sent");
  c->received += (size_t)got;
  if (c->received < response_size)
    return 0;
  c->received = c->sent = 0;
  return 1;
}

static connection *connect_all(int poll, int count, int port) {
  connection *all = calloc((size_t)count, sizeof *all);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  for (int i = 0; i < count; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
      fail("connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    all[i].fd = fd;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &all[i]};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
      fail("epoll_ctl: %s", strerror(errno));
  }
  return all;
}

/* Loads for that long; the number of requests that were answered. */
static long run_for(int poll, double seconds) {
  double deadline = now() + seconds, heard = now();
  long answered = 0;
  while (now() < deadline) {
    struct epoll_event events[256];
    int n = epoll_wait(poll, events, 256, 100);
    if (n > 0)
      heard = now();
    else if (now() - heard > 5)
      fail("the server has not answered for 5 seconds");
    for (int i = 0; i < n; i++) {
      connection *c = events[i].data.ptr;
      if (events[i].events & ~(uint32_t)EPOLLOUT)
        answered += receive_some(c);
      if (c->sent < request_size)
        send_rest(c);
    }
  }
  return answered;
}

int main(int argc, char **argv) {
  if (argc < 7 || strcmp(argv[5], "--") != 0) {
    fprintf(stderr, "usage: load echo|http CONNECTIONS SECONDS SIZE -- COMMAND...\n");
    return 2;
  }
  http = strcmp(argv[1], "http") == 0;
  double seconds = atof(argv[3]);
  if (http) {
    request = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n";
    request_size = strlen(request);
  } else {
    request_size = response_size = strtoul(argv[4], NULL, 10);
    request = malloc(request_size);
    for (size_t i = 0; i < request_size; i++)
      request[i] = (char)('a' + i % 26);
  }
  int port = start_server(argv + 6);
  int poll = epoll_create1(0);
  connect_all(poll, atoi(argv[2]), port);
  run_for(poll, seconds / 4); /* warm-up */
  double busy = server_time(), started = now();
  long answered = run_for(poll, seconds);
  double elapsed = now() - started;
  busy = server_time() - busy;
  stop_server();
  if (answered == 0) {
    fprintf(stderr, "load: no request was answered\n");
    return 1;
  }
  printf("requests_per_second %.0f\nserver_nanoseconds_per_request %.0f\nserver_load %.3f\n",
         (double)answered / elapsed, busy / (double)answered * 1e9, busy / elapsed);
  return 0;
}
