/* The family of malloc with faults: see faults.h. The real ones are found by dlsym, so that they may be those of
** AddressSanitizer. What dlsym itself asks for comes from a small arena. */
#define _GNU_SOURCE
#include "faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default"), noinline))

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);

static _Alignas(16) char arena[65536];
static size_t arena_used;

static bool in_arena(const void *block) {
  return (const char *)block >= arena && (const char *)block < arena + sizeof arena;
}

static void *from_arena(size_t size) {
  size_t at = (arena_used + 15) & ~(size_t)15;
  if (size > sizeof arena - at)
    abort();
  arena_used = at + size;
  return arena + at;
}

/* False while dlsym is at it. */
static bool found(void) {
  static bool looking;
  if (real_free != NULL)
    return true;
  if (looking)
    return false;
  looking = true;
  real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
  real_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
  real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
  real_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
  looking = false;
  return true;
}

/* ---- who asks ---- */

typedef struct range {
  uintptr_t first, last;
  int who;
} range;

static range ranges[256];
static int range_count;

static int owner_of(const char *path) {
  const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
  if (name[0] == '\0' || strncmp(name, "liblua", 6) == 0 || strncmp(name, "libasan", 7) == 0 ||
      strncmp(name, "libubsan", 8) == 0 || strncmp(name, "linux-vdso", 10) == 0)
    return 0;
  if (strncmp(name, "libagather", 10) == 0 || strstr(path, "/agather/") != NULL)
    return FAULTS_AGATHER;
  return strncmp(name, "libuv", 5) == 0 ? FAULTS_LIBUV : FAULTS_LIBRARIES;
}

static int add_ranges(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size, (void)data;
  int who = owner_of(info->dlpi_name);
  for (int i = 0; i < info->dlpi_phnum && who != 0 && range_count < 256; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type != PT_LOAD || (segment->p_flags & PF_X) == 0)
      continue;
    uintptr_t first = info->dlpi_addr + segment->p_vaddr;
    ranges[range_count++] = (range){first, first + segment->p_memsz, who};
  }
  return 0;
}

void faults_look(void) {
  range_count = 0;
  dl_iterate_phdr(add_ranges, NULL);
}

static int who_is(const void *caller) {
  uintptr_t address = (uintptr_t)caller;
  for (int i = 0; i < range_count; i++)
    if (address >= ranges[i].first && address < ranges[i].last)
      return ranges[i].who;
  return 0;
}

/* ---- what is armed, and which blocks there are ---- */

typedef struct block {
  uintptr_t hidden; /* its address with all bits turned, so that LeakSanitizer does not find it here; 0: none */
  const void *caller;
  long age;
  int who;
} block;

enum { PLACES = 1 << 17 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block blocks[PLACES];
static long armed_who, armed_first, counted, age;
static bool armed, armed_all;

void faults_arm(int who, long first, bool all) {
  pthread_mutex_lock(&lock);
  armed_who = who;
  armed_first = first;
  armed_all = all;
  counted = 0;
  armed = true;
  pthread_mutex_unlock(&lock);
}

long faults_disarm(void) {
  pthread_mutex_lock(&lock);
  armed = false;
  long count = counted;
  pthread_mutex_unlock(&lock);
  return count;
}

void faults_mark(void) {
  pthread_mutex_lock(&lock);
  age++;
  pthread_mutex_unlock(&lock);
}

static uintptr_t hide(const void *address) { return ~(uintptr_t)address; }

static size_t place_of(uintptr_t hidden) { return (size_t)((hidden >> 4) * 0x9E3779B97F4A7C15u >> 47) & (PLACES - 1); }

static void remember(void *address, const void *caller, int who) {
  size_t place = place_of(hide(address));
  for (int tried = 0; blocks[place].hidden != 0; place = (place + 1) & (PLACES - 1))
    if (++tried == PLACES)
      abort();
  blocks[place] = (block){hide(address), caller, age, who};
}

/* Takes the block out, and moves up what could not stand in its own place. */
static block forget(const void *address) {
  size_t place = place_of(hide(address));
  while (blocks[place].hidden != hide(address)) {
    if (blocks[place].hidden == 0)
      return (block){0, NULL, 0, 0};
    place = (place + 1) & (PLACES - 1);
  }
  block was = blocks[place];
  for (size_t next = (place + 1) & (PLACES - 1); blocks[next].hidden != 0; next = (next + 1) & (PLACES - 1)) {
    size_t home = place_of(blocks[next].hidden);
    if (((next - home) & (PLACES - 1)) < ((next - place) & (PLACES - 1)))
      continue;
    blocks[place] = blocks[next];
    place = next;
  }
  blocks[place].hidden = 0;
  return was;
}

/* libuv calls abort() when the table of its descriptors cannot grow; it calls realloc for little else. */
static bool spared(int who, bool grows) { return who == FAULTS_LIBUV && grows; }

/* Whether this request fails. */
static bool fails(int who, bool grows) {
  if (!armed || (who & armed_who) == 0 || spared(who, grows))
    return false;
  long number = ++counted;
  return armed_first > 0 && (number == armed_first || (armed_all && number > armed_first));
}

static void *refuse(void) {
  pthread_mutex_unlock(&lock);
  errno = ENOMEM;
  return NULL;
}

static void *make(size_t size, bool zero, bool grows, const void *caller) {
  int who = who_is(caller);
  if (who == 0)
    return zero ? real_calloc(1, size) : real_malloc(size);
  pthread_mutex_lock(&lock);
  if (fails(who, grows))
    return refuse();
  void *made = zero ? real_calloc(1, size) : real_malloc(size);
  if (made != NULL)
    remember(made, caller, who);
  pthread_mutex_unlock(&lock);
  return made;
}

PUBLIC void *malloc(size_t size) {
  if (!found())
    return from_arena(size);
  return make(size, false, false, __builtin_return_address(0));
}

PUBLIC void *calloc(size_t count, size_t size) {
  if (size != 0 && count > SIZE_MAX / size)
    return NULL;
  if (!found())
    return from_arena(count * size);
  return make(count * size, true, false, __builtin_return_address(0));
}

PUBLIC void free(void *old) {
  if (old == NULL || in_arena(old) || !found())
    return;
  if (range_count > 0) {
    pthread_mutex_lock(&lock);
    forget(old);
    pthread_mutex_unlock(&lock);
  }
  real_free(old);
}

PUBLIC void *realloc(void *old, size_t size) {
  if (!found() || in_arena(old)) {
    void *moved = from_arena(size);
    if (old != NULL)
      memcpy(moved, old, size < (size_t)(arena + arena_used - (char *)old) ? size : 0);
    return moved;
  }
  const void *caller = __builtin_return_address(0);
  if (old == NULL)
    return make(size, false, true, caller);
  if (size == 0) {
    free(old);
    return NULL;
  }
  if (range_count == 0)
    return real_realloc(old, size);
  int who = who_is(caller);
  pthread_mutex_lock(&lock);
  if (fails(who, true))
    return refuse();
  block was = forget(old);
  void *moved = real_realloc(old, size);
  if (moved == NULL && was.hidden != 0)
    remember(old, was.caller, was.who);
  else if (moved != NULL && who != 0)
    remember(moved, caller, who);
  pthread_mutex_unlock(&lock);
  return moved;
}

void *faults_plain(void *old, size_t size) {
  found();
  if (size > 0)
    return real_realloc(old, size);
  real_free(old);
  return NULL;
}

/* Those of the C library would ask in its own name. */

PUBLIC char *strndup(const char *text, size_t most) {
  size_t length = strnlen(text, most);
  char *copy = make(length + 1, true, false, __builtin_return_address(0));
  return copy != NULL ? memcpy(copy, text, length) : NULL;
}

PUBLIC char *strdup(const char *text) {
  char *copy = make(strlen(text) + 1, true, false, __builtin_return_address(0));
  return copy != NULL ? strcpy(copy, text) : NULL;
}

int faults_left(int who, const char *text) {
  int left = 0;
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < PLACES; i++) {
    const block *b = &blocks[i];
    if (b->hidden == 0 || b->age != age || (b->who & who) == 0)
      continue;
    Dl_info info = {NULL, NULL, NULL, NULL};
    dladdr(b->caller, &info);
    char line[500];
    snprintf(line, sizeof line, "%s: a block is left that %s made (%s+0x%lx)\n", text,
             info.dli_sname != NULL ? info.dli_sname : "?", info.dli_fname != NULL ? info.dli_fname : "?",
             (unsigned long)((const char *)b->caller - (const char *)info.dli_fbase));
    fputs(line, stdout);
    left++;
  }
  pthread_mutex_unlock(&lock);
  return left;
}
