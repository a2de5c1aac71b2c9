// Preloaded into a program (LD_PRELOAD), counts its calls that change files. With FAULT_AT=n, the
// n-th call does not happen: FAULT=kill ends the process by SIGKILL in front of it, FAULT=full lets
// it and every later one that needs space fail with ENOSPC. With FAULT_COUNT=file, the number of
// calls is written there at the end. With FREE_BYTES=n, disks say that n bytes are free.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace {

std::atomic<long> g_calls{0};

long fault_at() {
  static const char* text = getenv("FAULT_AT");
  static const long value = text ? atol(text) : 0;
  return value;
}

// True if the call must fail for lack of space.
bool count(bool needs_space) {
  static const char* fault = getenv("FAULT");
  const long call = ++g_calls;
  if (fault_at() == 0 || fault == nullptr || call < fault_at()) return false;
  if (strcmp(fault, "kill") == 0 && call == fault_at()) kill(getpid(), SIGKILL);
  return needs_space && strcmp(fault, "full") == 0;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

struct AtExit {
  ~AtExit() {
    const char* path = getenv("FAULT_COUNT");
    FILE* file = path ? fopen(path, "w") : nullptr;
    if (file == nullptr) return;
    fprintf(file, "%ld\n", g_calls.load());
    fclose(file);
  }
} g_at_exit;

int no_space() {
  errno = ENOSPC;
  return -1;
}

}  // namespace

extern "C" {

int rename(const char* from, const char* to) noexcept {
  if (count(false)) return no_space();
  return next<int(const char*, const char*)>("rename")(from, to);
}

int unlink(const char* path) noexcept {
  count(false);
  return next<int(const char*)>("unlink")(path);
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  count(false);
  return next<int(int, const char*, int)>("unlinkat")(folder, path, flags);
}

int remove(const char* path) noexcept {
  count(false);
  return next<int(const char*)>("remove")(path);
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (count(true)) return no_space();
  return next<int(const char*, mode_t)>("mkdir")(path, mode);
}

int fsync(int file) {
  if (count(true)) return no_space();
  return next<int(int)>("fsync")(file);
}

int fdatasync(int file) {
  if (count(true)) return no_space();
  return next<int(int)>("fdatasync")(file);
}

int ftruncate(int file, off_t bytes) noexcept {
  count(false);
  return next<int(int, off_t)>("ftruncate")(file, bytes);
}

int fallocate(int file, int mode, off_t offset, off_t bytes) {
  if (count(true)) return no_space();
  return next<int(int, int, off_t, off_t)>("fallocate")(file, mode, offset, bytes);
}

ssize_t pwrite(int file, const void* data, size_t bytes, off_t offset) {
  if (count(true)) return no_space();
  return next<ssize_t(int, const void*, size_t, off_t)>("pwrite")(file, data, bytes, offset);
}

int statvfs(const char* path, struct statvfs* info) noexcept {
  const int result = next<int(const char*, struct statvfs*)>("statvfs")(path, info);
  static const char* bytes = getenv("FREE_BYTES");
  if (result == 0 && bytes != nullptr) {
    info->f_frsize = 1;
    info->f_bavail = info->f_bfree = static_cast<fsblkcnt_t>(atol(bytes));
  }
  return result;
}

}  // extern "C"
