/* Sockets that listen. */
#include "uv/bind.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Closes it and gives the error. */
static int failed(int fd) {
  int number = errno;
  close(fd);
  return -number;
}

int ag_bind_tcp(const struct sockaddr *address, int backlog, bool reuseport) {
  int on = 1;
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  socklen_t size = address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
    return failed(fd);
  if (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
    return failed(fd);
  if (bind(fd, address, size) != 0 || listen(fd, backlog) != 0)
    return failed(fd);
  return fd;
}

/* Whether the file is a socket that refuses connections: whoever made it has ended. */
static bool is_left_over(const struct sockaddr_un *address) {
  struct stat status;
  if (lstat(address->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode))
    return false;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return false;
  bool refused = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

int ag_bind_unix(const char *path, int backlog, mode_t mode, bool replace, ag_socket_file *file) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct stat status;
  if (strlen(path) >= sizeof address.sun_path)
    return -ENAMETOOLONG;
  memcpy(address.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  /* The file gets the mode of the socket, so at no time can more connect than may. */
  if (fchmod(fd, mode) != 0)
    return failed(fd);
  int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
  if (bound != 0 && errno == EADDRINUSE) {
    bool retry = replace && is_left_over(&address) && unlink(path) == 0;
    bound = retry ? bind(fd, (struct sockaddr *)&address, sizeof address) : -1;
    errno = retry ? errno : EADDRINUSE;
  }
  if (bound != 0)
    return failed(fd);
  memset(file, 0, sizeof *file);
  if (lstat(path, &status) != 0)
    return failed(fd);
  file->device = status.st_dev;
  file->inode = status.st_ino;
  memcpy(file->path, path, strlen(path));
  bool umask_took_some = (status.st_mode & 0777) != mode;
  if ((umask_took_some && chmod(path, mode) != 0) || listen(fd, backlog) != 0) {
    int number = errno;
    ag_unlink_socket(file);
    errno = number;
    return failed(fd);
  }
  return fd;
}

void ag_unlink_socket(const ag_socket_file *file) {
  struct stat status;
  if (file->path[0] != '\0' && lstat(file->path, &status) == 0 && status.st_dev == file->device &&
      status.st_ino == file->inode)
    unlink(file->path);
}
