/*
 * Faults of disks and processes on order, for tests: a library for LD_PRELOAD. The product has no hooks for it.
 *
 *   LTH_FAULTS_UNDER   an absolute folder; calls that change something below it are counted and logged, and where an
 *                      order asks for them also those that read a file
 *   LTH_FAULTS_STATE   a folder elsewhere with the file `control`; the log `calls` is appended to there
 *
 * Without both it does nothing. All processes of a tree share `control` (struct control below, mapped), so that the
 * n-th call is the n-th of all of them, and orders may change while they live. `calls` has two lines a call:
 *
 *   B serial pid kind path     before; F instead of B where the fault hits
 *   E serial                   after: a call without it was under way when the process was killed
 *
 * System calls are made directly, so there is nothing to look up and no order of initialisation to get wrong. Not seen
 * are calls that pass the C library by (io_uring, which UV_USE_IO_URING=0 excludes; stdio's own; sendfile and
 * copy_file_range) and descriptors made by dup.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

// As in test/helpers/faults.ts.
enum kind { CREATE, MKDIR, WRITE, SYNC, CLOSE, RENAME, UNLINK, READ };
static const char* const kind_names[] = {"create", "mkdir", "write", "sync", "close", "rename", "unlink", "read"};

// A negative action is an errno that the call fails with.
enum action { NONE, KILL_BEFORE, KILL_AFTER, KILL_HALF, SHORT_WRITE };

struct control {
  _Atomic uint64_t serial;  // calls seen, of all kinds
  _Atomic uint64_t calls;   // calls of the kinds that count
  uint64_t at;              // the call that the fault hits, from 1; 0: none
  uint64_t times;           // how many calls from there on
  uint32_t kinds;           // bit 1 << kind: this kind counts
  int32_t action;
};

static struct control* control;
static int log_file = -1;
static char under[PATH_MAX];
static size_t under_length;

// What is known of a descriptor: opened by its path; written to below the folder. A cheap first look, because Node
// writes to its own descriptors all the time; what counts is where /proc says that it leads.
enum { UNKNOWN, OPENED, WRITTEN };
#define DESCRIPTORS 65536
static _Atomic unsigned char known[DESCRIPTORS];

struct call {
  uint64_t serial;  // 0: not ours
  int32_t action;
};

__attribute__((constructor)) static void set_up(void) {
  const char* folder = getenv("LTH_FAULTS_UNDER");
  const char* state = getenv("LTH_FAULTS_STATE");
  if (!folder || !state || folder[0] != '/') return;
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/control", state);
  const int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (file < 0) return;
  void* shared = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  syscall(SYS_close, file);
  if (shared == MAP_FAILED) return;
  snprintf(path, sizeof path, "%s/calls", state);
  log_file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  under_length = (size_t)snprintf(under, sizeof under, "%s/", folder);
  control = shared;
}

static void tell(const char* line, int length) {
  if (log_file >= 0 && syscall(SYS_write, log_file, line, (size_t)length) < 0) abort();
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static bool is_inside(const char* path) { return strncmp(path, under, under_length) == 0; }

// Where a descriptor leads.
static bool descriptor_path(int descriptor, char* to) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t n = readlink(link, to, PATH_MAX - 1);
  to[n < 0 ? 0 : n] = 0;
  return n > 0;
}

// The absolute path that a call means, with its dots and symbolic links as they are.
static void absolute(int folder, const char* path, char* to) {
  to[0] = 0;
  if (path[0] != '/') {
    if (folder == AT_FDCWD ? !getcwd(to, PATH_MAX) : !descriptor_path(folder, to)) return;
    strncat(to, "/", PATH_MAX - 1 - strlen(to));
  }
  strncat(to, path, PATH_MAX - 1 - strlen(to));
}

static struct call begin(enum kind kind, const char* path) {
  const int error = errno;
  struct call call = {atomic_fetch_add(&control->serial, 1) + 1, NONE};
  if (control->kinds & 1u << kind) {
    const uint64_t n = atomic_fetch_add(&control->calls, 1) + 1;
    if (control->at && n >= control->at && n - control->at < control->times) call.action = control->action;
  }
  char line[PATH_MAX + 64];
  const int length = snprintf(line, sizeof line, "%c %llu %d %s %s\n", call.action == NONE ? 'B' : 'F',
                              (unsigned long long)call.serial, (int)getpid(), kind_names[kind], path);
  tell(line, length);
  // Half of anything but a write is nothing.
  if (call.action == KILL_BEFORE || (call.action == KILL_HALF && kind != WRITE)) die();
  errno = error;
  return call;
}

static struct call at_path(enum kind kind, int folder, const char* path) {
  char whole[PATH_MAX];
  if (!control || !path) return (struct call){0, NONE};
  absolute(folder, path, whole);
  return is_inside(whole) ? begin(kind, whole) : (struct call){0, NONE};
}

static struct call at_descriptor(enum kind kind, int descriptor) {
  char path[PATH_MAX];
  if (!control || descriptor < 0 || descriptor >= DESCRIPTORS || known[descriptor] == UNKNOWN ||
      (kind == READ && !(control->kinds & 1u << READ)) || !descriptor_path(descriptor, path) || !is_inside(path)) {
    return (struct call){0, NONE};
  }
  if (kind == WRITE) known[descriptor] = WRITTEN;
  return begin(kind, path);
}

static bool fails(struct call call) {
  if (call.action >= 0) return false;
  errno = -call.action;
  return true;
}

static long end(struct call call, long result) {
  if (call.serial == 0) return result;
  const int error = errno;
  if (call.action == KILL_AFTER || call.action == KILL_HALF) die();
  char line[32];
  tell(line, snprintf(line, sizeof line, "E %llu\n", (unsigned long long)call.serial));
  errno = error;
  return result;
}

static int opened(int folder, const char* path, int flags, mode_t mode) {
  struct call call = {0, NONE};
  if (flags & (O_CREAT | O_TRUNC)) call = at_path(CREATE, folder, path);
  const int descriptor = fails(call) ? -1 : (int)syscall(SYS_openat, folder, path, flags, mode);
  // A folder is opened for reading and synced all the same.
  if (descriptor >= 0 && descriptor < DESCRIPTORS) known[descriptor] = control ? OPENED : UNKNOWN;
  return (int)end(call, descriptor);
}

// `count` is bytes, or buffers where a call takes several.
static size_t reduced(struct call call, size_t count) {
  if (call.action != KILL_HALF && call.action != SHORT_WRITE) return count;
  return count > 1 ? count / 2 : count;
}

#define MODE(flags)                         \
  mode_t mode = 0;                          \
  if ((flags) & (O_CREAT | O_TMPFILE)) {    \
    va_list rest;                           \
    va_start(rest, flags);                  \
    mode = va_arg(rest, mode_t);            \
    va_end(rest);                           \
  }

int open(const char* path, int flags, ...) {
  MODE(flags)
  return opened(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  MODE(flags)
  return opened(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  MODE(flags)
  return opened(folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
  MODE(flags)
  return opened(folder, path, flags, mode);
}

#define WRITES(n, ...)                                      \
  struct call call = at_descriptor(WRITE, descriptor);      \
  if (fails(call)) return end(call, -1);                    \
  n = (__typeof__(n))reduced(call, (size_t)(n));            \
  return end(call, syscall(__VA_ARGS__));

ssize_t write(int descriptor, const void* bytes, size_t n) { WRITES(n, SYS_write, descriptor, bytes, n) }
ssize_t pwrite(int descriptor, const void* bytes, size_t n, off_t at) {
  WRITES(n, SYS_pwrite64, descriptor, bytes, n, at)
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t n, off64_t at) {
  WRITES(n, SYS_pwrite64, descriptor, bytes, n, at)
}
ssize_t writev(int descriptor, const struct iovec* parts, int n) { WRITES(n, SYS_writev, descriptor, parts, n) }
ssize_t pwritev(int descriptor, const struct iovec* parts, int n, off_t at) {
  WRITES(n, SYS_pwritev, descriptor, parts, n, at, 0)
}
ssize_t pwritev64(int descriptor, const struct iovec* parts, int n, off64_t at) {
  WRITES(n, SYS_pwritev, descriptor, parts, n, at, 0)
}

#define READS(...)                                          \
  struct call call = at_descriptor(READ, descriptor);       \
  return end(call, fails(call) ? -1 : syscall(__VA_ARGS__));

ssize_t read(int descriptor, void* bytes, size_t n) { READS(SYS_read, descriptor, bytes, n) }
ssize_t pread(int descriptor, void* bytes, size_t n, off_t at) { READS(SYS_pread64, descriptor, bytes, n, at) }
ssize_t pread64(int descriptor, void* bytes, size_t n, off64_t at) { READS(SYS_pread64, descriptor, bytes, n, at) }

int fsync(int descriptor) {
  struct call call = at_descriptor(SYNC, descriptor);
  return (int)end(call, fails(call) ? -1 : syscall(SYS_fsync, descriptor));
}
int fdatasync(int descriptor) {
  struct call call = at_descriptor(SYNC, descriptor);
  return (int)end(call, fails(call) ? -1 : syscall(SYS_fdatasync, descriptor));
}

// Only of files that were written to: there a close may tell of bytes that did not reach the disk. The descriptor is
// gone whatever it tells.
int close(int descriptor) {
  struct call call = {0, NONE};
  if (descriptor >= 0 && descriptor < DESCRIPTORS && known[descriptor] != UNKNOWN) {
    if (known[descriptor] == WRITTEN) call = at_descriptor(CLOSE, descriptor);
    known[descriptor] = UNKNOWN;
  }
  const long result = syscall(SYS_close, descriptor);
  return (int)end(call, fails(call) ? -1 : result);
}

static int renamed(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  struct call call = at_path(RENAME, to_folder, to);
  return (int)end(call, fails(call) ? -1 : syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}
int rename(const char* from, const char* to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_folder, const char* from, int to_folder, const char* to) {
  return renamed(from_folder, from, to_folder, to, 0);
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  return renamed(from_folder, from, to_folder, to, flags);
}

int unlinkat(int folder, const char* path, int flags) {
  struct call call = at_path(UNLINK, folder, path);
  return (int)end(call, fails(call) ? -1 : syscall(SYS_unlinkat, folder, path, flags));
}
int unlink(const char* path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char* path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char* path, mode_t mode) {
  struct call call = at_path(MKDIR, folder, path);
  return (int)end(call, fails(call) ? -1 : syscall(SYS_mkdirat, folder, path, mode));
}
int mkdir(const char* path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
