/* The limit: a server in C with one thread, level-triggered epoll, one read and one write per request, no memory
** allocated. net.c PROTOCOL, "echo" or "http"; prints its port. HTTP: data that ends in an empty line is a request. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const char response[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int poll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
    fail("epoll_ctl");
}

int main(int argc, char **argv) {
  int http = argc > 1 && strcmp(argv[1], "http") == 0, yes = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 511) != 0)
    fail("listen");
  getsockname(listener, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  int poll = epoll_create1(0);
  watch(poll, listener);
  for (;;) {
    struct epoll_event events[256];
    int n = epoll_wait(poll, events, 256, -1);
    for (int i = 0; i < n; i++) {
      static char data[65536];
      int fd = events[i].data.fd;
      if (fd == listener) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
          fail("accept");
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(poll, client);
        continue;
      }
      ssize_t got = read(fd, data, sizeof data);
      if (got <= 0) {
        close(fd);
      } else if (!http) {
        if (write(fd, data, (size_t)got) != got)
          close(fd);
      } else if (got >= 4 && memcmp(data + got - 4, "\r\n\r\n", 4) == 0) {
        if (write(fd, response, sizeof response - 1) != sizeof response - 1)
          close(fd);
      }
    }
  }
}
