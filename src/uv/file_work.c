/* The work of open files, on a thread of libuv's pool, and what comes before and after it on the loop's. Knows no Lua.
 */
#include "uv/file_work.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void ag_file_free_if_unused(ag_file *f) {
  if (f->busy || f->anchored || f->owned)
    return;
  ag_reader_clear(&f->in);
  free(f->out.data);
  free(f->going.data);
  free(f->chunk.data);
  free(f->path);
  free(f);
}

/* ---- the work, on a thread of the pool ---- */

static ssize_t read_once(ag_file *f) {
  if (f->seekable)
    return pread(f->fd, f->chunk.data, f->chunk.length, f->from);
  return read(f->fd, f->chunk.data, f->chunk.length);
}

static ssize_t write_once(ag_file *f) {
  const char *data = f->going.data + f->moved;
  size_t n = f->going.length - f->moved;
  if (f->seekable && !f->append)
    return pwrite(f->fd, data, n, f->from + (int64_t)f->moved);
  return write(f->fd, data, n);
}

static int read_chunk(ag_file *f) {
  ssize_t n;
  do
    n = read_once(f);
  while (n < 0 && errno == EINTR);
  f->moved = n > 0 ? (size_t)n : 0;
  return n < 0 ? -errno : 0;
}

static int write_out(ag_file *f) {
  f->moved = 0;
  while (f->moved < f->going.length) {
    ssize_t n = write_once(f);
    if (n < 0 && errno != EINTR)
      return -errno;
    if (n > 0)
      f->moved += (size_t)n;
  }
  return 0;
}

static int write_at_end(ag_file *f) {
  int status = write_out(f);
  f->end = lseek(f->fd, 0, SEEK_CUR);
  return status;
}

static int measure(ag_file *f) {
  f->end = lseek(f->fd, 0, SEEK_END);
  return f->end < 0 ? -errno : 0;
}

static int do_work(ag_file *f) {
  switch (f->kind) {
  case AG_FILE_READ:
    return read_chunk(f);
  case AG_FILE_WRITE:
    return f->append && f->seekable ? write_at_end(f) : write_out(f);
  case AG_FILE_SYNC:
    return fsync(f->fd) == 0 ? 0 : -errno;
  case AG_FILE_MEASURE:
    return measure(f);
  case AG_FILE_CLOSE:
    return close(f->fd) == 0 || errno == EINTR ? 0 : -errno;
  }
  return 0;
}

static void on_work(uv_work_t *work) {
  ag_file *f = work->data;
  f->status = do_work(f);
}

/* ---- before and after it, on the loop's thread ---- */

static void finish_read(ag_file *f) {
  if (f->obsolete || f->closed)
    return;
  if (f->status == 0 && f->moved > 0 && !ag_reader_add(&f->in, f->chunk.data, f->moved))
    f->status = UV_ENOMEM;
  if (f->status != 0)
    f->in.status = f->status;
  else if (f->moved == 0)
    f->in.status = AG_READ_END;
  else
    f->position += (int64_t)f->moved;
}

/* What could not be written is dropped: it would fail again. So is what was to come after it. */
static void finish_write(ag_file *f) {
  if (f->status != 0) {
    f->position = f->from + (int64_t)f->moved;
    f->out.length = 0;
    if (f->write_status == 0)
      f->write_status = f->status;
  }
  if (f->append && f->seekable)
    f->position = f->end + (int64_t)f->out.length;
  f->going.length = 0;
  if (f->going.size > AG_FILE_BIG_CHUNK) {
    free(f->going.data);
    f->going = (ag_bytes){NULL, 0, 0};
  }
}

/* Goes on with closing: first what was not written, then the descriptor. */
static void go_on_closing(ag_file *f) {
  if (f->fd < 0)
    return;
  ag_file_begin(f, f->out.length > 0 ? AG_FILE_WRITE : AG_FILE_CLOSE);
}

static void end(ag_file *f) {
  f->busy = false;
  if (f->kind == AG_FILE_READ) {
    finish_read(f);
  } else if (f->kind == AG_FILE_WRITE) {
    finish_write(f);
  } else if (f->kind == AG_FILE_CLOSE) {
    f->fd = -1;
    if (f->write_status == 0)
      f->write_status = f->status;
    if (f->anchored && !uv_is_closing((uv_handle_t *)&f->anchor))
      uv_close((uv_handle_t *)&f->anchor, ag_file_anchor_closed);
  }
  if (f->kind != AG_FILE_READ || !f->obsolete) /* else it has not moved, but a child may have been given the file */
    ag_file_share_place(f);
  if (f->closed)
    go_on_closing(f);
  if (!f->busy)
    ag_wake(&f->wait);
}

static void on_done(uv_work_t *work, int status) {
  ag_file *f = work->data;
  if (status != 0)
    f->status = status;
  end(f);
  ag_file_free_if_unused(f);
}

void ag_file_find_place(ag_file *f) {
  off_t at = f->shared ? lseek(f->fd, 0, SEEK_CUR) : -1;
  if (at >= 0)
    f->position = at + (int64_t)f->out.length;
}

void ag_file_share_place(ag_file *f) {
  if (f->shared && f->fd >= 0)
    lseek(f->fd, f->position - (int64_t)f->out.length, SEEK_SET);
}

void ag_file_begin(ag_file *f, ag_file_work kind) {
  ag_file_find_place(f);
  f->kind = kind;
  f->busy = true;
  f->obsolete = false;
  f->status = 0;
  f->from = f->position;
  if (kind == AG_FILE_WRITE) {
    ag_bytes out = f->out;
    f->out = f->going; /* empty */
    f->going = out;
    f->from -= (int64_t)out.length;
  }
  f->work.data = f;
  if (f->loop != NULL && uv_queue_work(f->loop, &f->work, on_work, on_done) == 0)
    return;
  f->status = do_work(f);
  end(f);
}

void ag_file_shut(ag_file *f) {
  if (f->closed)
    return;
  f->closed = true;
  ag_reader_clear(&f->in);
  ag_wake(&f->wait);
  if (!f->busy)
    go_on_closing(f);
}

/* The file closed its anchor, or the reactor closes: then what is left is done now, as Lua's own files do at exit. */
void ag_file_anchor_closed(uv_handle_t *handle) {
  ag_file *f = (ag_file *)handle->data;
  f->anchored = false;
  f->loop = NULL;
  ag_file_shut(f);
  ag_wake(&f->wait);
  ag_file_free_if_unused(f);
}
