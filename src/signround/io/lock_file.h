// One run at a time in one output folder.
#pragma once

#include <filesystem>

#include "signround/io/file.h"

namespace signround {

// Holds an advisory lock (flock) on `path`, which is created with this process's id in it and
// removed at the end. A lock that somebody else holds: Error{kBusy} naming the path and the holder.
// A file that a killed process left behind holds nothing: the system drops its lock with the
// process.
class LockFile {
 public:
  explicit LockFile(const std::filesystem::path& path);
  LockFile(LockFile&&) noexcept = default;
  LockFile& operator=(LockFile&&) = delete;
  ~LockFile();

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
};

}  // namespace signround
