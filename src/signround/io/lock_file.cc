#include "signround/io/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "signround/base/error.h"

namespace signround {
namespace {

constexpr const char* kWhere = "lock";

std::string holder_of(const FileDescriptor& file) {
  char text[32];
  const ssize_t n = pread(file.get(), text, sizeof(text), 0);
  std::string pid;
  for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9'; ++i) pid += text[i];
  return pid.empty() ? "another process" : "process " + pid;
}

// The last holder may have removed the name between our open and our lock: then we hold a lock on
// nothing.
bool is_still_named(const FileDescriptor& file, const std::filesystem::path& path) {
  struct stat held {
  }, named{};
  return fstat(file.get(), &held) == 0 && stat(path.c_str(), &named) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

}  // namespace

LockFile::LockFile(const std::filesystem::path& path) : path_(path) {
  do {
    file_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (!file_.is_open()) fail_io(kWhere, "create", path, errno);
    while (flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno == EWOULDBLOCK)
        fail(ErrorKind::kBusy, kWhere, path.string(), " is held by ", holder_of(file_),
             ": only one run at a time may write there");
      fail_io(kWhere, "lock", path, errno);
    }
  } while (!is_still_named(file_, path));
  const std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(file_.get(), 0) != 0) fail_io(kWhere, "truncate", path, errno);
  write_fully(kWhere, file_, path, std::as_bytes(std::span(pid)), 0);
}

LockFile::~LockFile() {
  if (file_.is_open())
    ::unlink(path_.c_str());  // while the lock is held: nobody else can have it under this name
}

}  // namespace signround
