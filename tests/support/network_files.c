/* For LD_PRELOAD: below the directory RATPLUS_TEST_NETWORK_FILES, files behave as on network file systems (NFS without
 * locks, Lustre, GPFS):
 *   locks                        ENOLCK
 *   fsync of a directory         EINVAL
 *   rename by exchange, O_TMPFILE, sync_file_range, fallocate   EINVAL, EOPNOTSUPP
 *   hard links                   EPERM
 *   an open file that is removed stays in its directory as .nfs..., until it is closed
 *   every third rename is done, but its answer is lost, and asked again it fails with ENOENT
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_below(const char* path) {
  const char* root = getenv("RATPLUS_TEST_NETWORK_FILES");
  return root != NULL && strncmp(path, root, strlen(root)) == 0;
}

/* Whether the path, relative to the directory `at`, is on the network; `whole`, of PATH_MAX bytes, gets it as a whole. */
static int whole_path(int at, const char* path, char* whole) {
  char directory[PATH_MAX] = "", link[64];
  if (path[0] != '/') {
    if (at == AT_FDCWD) {
      if (getcwd(directory, sizeof directory) == NULL) return 0;
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", at);
      const ssize_t length = readlink(link, directory, sizeof directory - 1);
      if (length < 0) return 0;
      directory[length] = '\0';
    }
  }
  if (snprintf(whole, PATH_MAX, "%s%s%s", directory, directory[0] ? "/" : "", path) >= PATH_MAX) return 0;
  return is_below(whole);
}

static int on_network(int file) {
  char whole[PATH_MAX], link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t length = readlink(link, whole, sizeof whole - 1);
  if (length < 0) return 0;
  whole[length] = '\0';
  return is_below(whole);
}

static int refuse(int error) {
  errno = error;
  return -1;
}

int flock(int file, int operation) {
  return on_network(file) && !(operation & 8 /* LOCK_UN */) ? refuse(ENOLCK) : (int)syscall(SYS_flock, file, operation);
}

int fsync(int file) {
  struct stat status;
  if (on_network(file) && fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) return refuse(EINVAL);
  return (int)syscall(SYS_fsync, file);
}

int sync_file_range(int file, off64_t from, off64_t bytes, unsigned flags) {
  return on_network(file) ? refuse(EOPNOTSUPP) : (int)syscall(SYS_sync_file_range, file, from, bytes, flags);
}

int posix_fallocate(int file, off_t from, off_t bytes) {
  return on_network(file) ? EOPNOTSUPP : REAL(posix_fallocate)(file, from, bytes);
}

int link(const char* from, const char* to) {
  return is_below(to) ? refuse(EPERM) : REAL(link)(from, to);
}

int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  char whole[PATH_MAX];
  if (flags != 0 && whole_path(to_at, to, whole)) return refuse(EINVAL);
  return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
}

int rename(const char* from, const char* to) {
  static int count = 0;
  char whole[PATH_MAX];
  const int result = (int)syscall(SYS_rename, from, to);
  if (result == 0 && whole_path(AT_FDCWD, to, whole) && __sync_add_and_fetch(&count, 1) % 3 == 0) return refuse(ENOENT);
  return result;
}

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  char whole[PATH_MAX];
  if ((flags & O_TMPFILE) == O_TMPFILE && whole_path(AT_FDCWD, path, whole)) return refuse(EOPNOTSUPP);
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* Files that were removed while open. */
static struct {
  dev_t device;
  ino_t inode;
  char path[PATH_MAX];
} removed[64];
static int removed_count = 0;

static int is_open(dev_t device, ino_t inode) {
  struct stat status;
  for (int file = 0; file < 1024; ++file) {
    if (fstat(file, &status) == 0 && status.st_dev == device && status.st_ino == inode) return 1;
  }
  return 0;
}

int unlinkat(int at, const char* path, int flags) {
  char whole[PATH_MAX];
  struct stat status;
  if (flags != 0 || !whole_path(at, path, whole) || lstat(whole, &status) != 0 || !S_ISREG(status.st_mode) ||
      !is_open(status.st_dev, status.st_ino))
    return (int)syscall(SYS_unlinkat, at, path, flags);
  char* name = strrchr(whole, '/') + 1;
  if (strncmp(name, ".nfs", 4) == 0) return refuse(EBUSY);
  const int slot = __sync_fetch_and_add(&removed_count, 1);
  if (slot >= 64) abort();
  removed[slot].device = status.st_dev;
  removed[slot].inode = status.st_ino;
  snprintf(removed[slot].path, PATH_MAX, "%.*s.nfs%08d%04d", (int)(name - whole), whole, (int)getpid(), slot);
  return (int)syscall(SYS_rename, whole, removed[slot].path);
}

int unlink(const char* path) {
  return unlinkat(AT_FDCWD, path, 0);
}

int remove(const char* path) {
  struct stat status;
  if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) return rmdir(path);
  return unlinkat(AT_FDCWD, path, 0);
}

int close(int file) {
  struct stat status;
  const int known = removed_count > 0 && fstat(file, &status) == 0;
  const int result = (int)syscall(SYS_close, file);
  for (int i = 0; known && i < removed_count; ++i) {
    if (removed[i].inode == status.st_ino && removed[i].device == status.st_dev && !is_open(status.st_dev, status.st_ino))
      syscall(SYS_unlink, removed[i].path);
  }
  return result;
}
