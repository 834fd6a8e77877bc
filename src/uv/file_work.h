/* What an open file is, and its work on libuv's pool: file.c has what scripts call.
** A file does one piece of work at a time. It owns the buffers that the work uses and outlives its userdata while there
** is any, so a task that is cancelled leaves at once; what the work reads then stays in the buffer, and what it writes
** is written. The next operation begins when the work has ended. */
#ifndef AG_UV_FILE_WORK_H
#define AG_UV_FILE_WORK_H

#include "uv/reader.h"
#include "uv/uv.h"

/* AG_FILE_CHUNK: bytes that one piece of work reads, or that are gathered before they are written; AG_FILE_BIG_CHUNK
** where it is known that as much is wanted. */
enum { AG_FILE_CHUNK = 65536, AG_FILE_BIG_CHUNK = 1 << 20 };

typedef enum ag_file_work { AG_FILE_READ, AG_FILE_WRITE, AG_FILE_SYNC, AG_FILE_MEASURE, AG_FILE_CLOSE } ag_file_work;

typedef struct ag_bytes {
  char *data;
  size_t length, size;
} ag_bytes;

/* [position]: of the byte after the last that was read or is gathered in [out]. Where the script stands is [position]
** less what [in] holds. Not both [in] and [out] hold bytes. What is being written is [going], which changed places with
** [out], so writing can go on meanwhile. */
typedef struct ag_file {
  uv_close_cb on_close; /* first: the reactor closes what is left through it */
  uv_prepare_t anchor;  /* never started: by it the reactor knows the file */
  uv_loop_t *loop;      /* NULL: the reactor is gone, and work is done at once */
  uv_work_t work;
  ag_wait wait;
  ag_reader in;
  char *path;
  ag_bytes out, going;
  ag_bytes chunk; /* where reading puts what it gets */
  size_t moved;
  int64_t position;
  int64_t from; /* where the work reads or writes */
  int64_t end;  /* what measuring found, and where appending came to */
  ag_file_work kind;
  int status;       /* of the work: 0 or a negative errno */
  int write_status; /* of a failed write or close that nobody was told of */
  int fd;           /* -1: closed */
  bool readable, writable, append, seekable;
  bool shared;   /* a child was given it: the place is the descriptor's, see ag_file_find_place */
  bool busy;     /* work is under way: fd, going, chunk, from and end are the pool's */
  bool obsolete; /* what is being read is from where the script does not stand any longer */
  bool closed;   /* for the script */
  bool anchored; /* libuv has the anchor */
  bool owned;    /* a userdata refers to it */
} ag_file;

/* Where children have the file, too, they move its place, and are moved: finds it before anything is done, and tells
** where the file has come to. */
void ag_file_find_place(ag_file *f);
void ag_file_share_place(ag_file *f);
/* Begins a piece of work; the file is not busy. What waits for it is woken at its end. */
void ag_file_begin(ag_file *f, ag_file_work kind);
/* Closes it for the script; what is gathered is written, then the descriptor is closed. */
void ag_file_shut(ag_file *f);
/* Frees it unless a userdata, libuv or work under way needs it. */
void ag_file_free_if_unused(ag_file *f);
/* How its anchor is closed. */
void ag_file_anchor_closed(uv_handle_t *handle);

#endif
